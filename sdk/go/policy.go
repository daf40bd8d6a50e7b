// Package policy is the SDK for Tidegate policies in Go. A policy decides which clients may read which channels.
//
//	func init() { policy.Handle(decide) }
//
//	func decide(r *policy.Request) (*policy.Answer, error) {
//		session, _ := r.Cookie("session")
//		user, known, err := policy.Get("session:" + session)
//		if err != nil {
//			return nil, err
//		}
//		if !known {
//			return policy.Reject(401, "Unauthorized"), nil
//		}
//		return policy.Allow(string(user)), nil
//	}
//
//	func main() {}
//
// `tidegate policy build` compiles a policy. Its tests are ordinary Go tests; package policytest has a gateway for them.
package policy

import (
	"errors"
	"fmt"
	"time"

	"tidegate/policy/internal/host"
)

// A Func decides one request. An error rejects the client with the response of [ToRejection], and a panic rejects it with a 500.
type Func func(*Request) (*Answer, error)

// Handle makes f the policy. Call it from an init function, because main does not run.
func Handle(f Func) {
	host.Decide = func(request host.Request) host.Answer { return answer(f, request) }
}

// Prepare registers f for prewarmed instances: the gateway calls it before the request arrives. Use it for slow work that needs no
// request. Settings, clocks, randomness and the log work in f; look-ups and tokens do not.
func Prepare(f func()) {
	host.Prepare = f
}

// An Answer admits or rejects the client: see [Allow] and [Reject]. A rejection may also be returned as an error.
type Answer struct {
	// Whether the client is admitted.
	Allowed bool

	// Only for a grant: the user, for logs, limits and revocation. Empty: no subject.
	Subject string
	// Only for a grant: those of the requested channels that are granted. Empty: all of them.
	Channels []string
	// Only for a grant: its end. The stream is rotated before that, and the policy decides again. Zero: no end.
	Expires time.Time
	// Only for a grant: older events are not replayed. Zero: all events are.
	ReplaySince time.Time

	// Only for a rejection: HTTP status and body.
	Status int
	Body   []byte

	// Response headers: a grant may have set-cookie and x-…, a rejection any.
	Header Header
	// The reason for the decision, for the decision log; never sent to the client.
	Reason string
	// How long the gateway may reuse the answer, in whole seconds, for requests with the same URL, client address and values of
	// the headers in CacheVary. Name the headers that carry credentials there. Zero: the answer is not cached.
	CacheFor  time.Duration
	CacheVary []string
	// Whether the cached answer is valid for clients of any address.
	CacheAnyAddress bool
}

// Allow admits the client.
func Allow(subject string) *Answer {
	return &Answer{Allowed: true, Subject: subject}
}

// Reject rejects the client, with a status from 200 to 599 and a text/plain body.
func Reject(status int, text string) *Answer {
	return &Answer{Status: status, Body: []byte(text), Header: Header{{"content-type", "text/plain"}}}
}

// WithReason sets the reason and returns the answer.
func (a *Answer) WithReason(reason string) *Answer {
	a.Reason = reason
	return a
}

// Error returns a rejection's status, body and reason.
func (a *Answer) Error() string {
	if a == nil {
		return "no answer"
	}
	if a.Allowed {
		return "allowed, which is not an error"
	}
	text := fmt.Sprintf("%d %s", a.Status, a.Body)
	if a.Reason != "" {
		text += " (" + a.Reason + ")"
	}
	return text
}

// ToRejection returns the client's response when a policy returns the error: the rejection itself, 503 "Try again" for a failed
// look-up or a token that could not be verified, 401 "Unauthorized" for an invalid token, and 500 for any other error.
func ToRejection(err error) *Answer {
	var rejection *Answer
	switch {
	case errors.As(err, &rejection) && rejection != nil && !rejection.Allowed:
		return rejection
	case errors.Is(err, ErrDenied):
		return Reject(503, "Try again").WithReason("look-up denied")
	case errors.Is(err, ErrUnavailable):
		return Reject(503, "Try again").WithReason("look-up unavailable")
	case errors.Is(err, ErrNoKey):
		return Reject(503, "Try again").WithReason("token cannot be verified")
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrUntrusted), errors.Is(err, ErrExpired), errors.Is(err, ErrClaims):
		return Reject(401, "Unauthorized").WithReason(err.Error())
	default:
		return Reject(500, "Internal Server Error").WithReason("the policy failed")
	}
}
