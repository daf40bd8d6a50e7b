// Package policy is for writing Tidegate policies in Go: who may read which channels.
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
// A policy is compiled by `tidegate policy build`, and tested as any Go program is: package policytest plays the gateway.
package policy

import (
	"errors"
	"fmt"
	"time"

	"tidegate/policy/internal/host"
)

// A Func decides about one request. An error keeps the client out: [Refusal] says what it gets. So does a panic, with a 500.
type Func func(*Request) (*Answer, error)

// Handle makes f the policy. It is called from an init function: main does not run.
func Handle(f Func) {
	host.Decide = func(request host.Request) host.Answer { return answer(f, request) }
}

// Prepare has f called ahead of a request, for what takes time and needs no request. The gateway keeps instances ready, each for
// one decision. Settings, clocks, randomness and the log work in f; look-ups and tokens do not.
func Prepare(f func()) {
	host.Prepare = f
}

// An Answer lets the client in or keeps it out: see [Allow] and [Reject]. One that keeps it out may be returned as an error too,
// from wherever it is found that it has to be.
type Answer struct {
	// Whether the client is let in.
	Allowed bool

	// Of those let in: who it is, for logs, limits and revocation. Empty: nobody in particular.
	Subject string
	// The channels that it gets, some of those that it asked for. None: all of them.
	Channels []string
	// When it ends: the stream is rotated before, and the policy asked again. Zero: not by itself.
	Expires time.Time
	// Nothing older is replayed. Zero: all that there is.
	ReplaySince time.Time

	// Of those kept out: an HTTP status and body.
	Status int
	Body   []byte

	// Of both. A grant may have set-cookie and x-…, a rejection any.
	Header Header
	// Why, for the decision log; never sent to the client.
	Reason string
	// How long the answer may be given again to the same request, if the headers named in CacheVary are the same; credentials
	// belong there. It counts in seconds; none keeps nothing.
	CacheFor  time.Duration
	CacheVary []string
	// The kept answer holds for clients of any address.
	CacheAnyAddress bool
}

// Allow lets the client in.
func Allow(subject string) *Answer {
	return &Answer{Allowed: true, Subject: subject}
}

// Reject keeps the client out, with a status from 200 to 599 and a text/plain body.
func Reject(status int, text string) *Answer {
	return &Answer{Status: status, Body: []byte(text), Header: Header{{"content-type", "text/plain"}}}
}

// Because sets the reason and returns the answer.
func (a *Answer) Because(reason string) *Answer {
	a.Reason = reason
	return a
}

// Error tells a rejection's status, body and reason.
func (a *Answer) Error() string {
	if a == nil {
		return "no answer"
	}
	if a.Allowed {
		return "let in, which is no error"
	}
	text := fmt.Sprintf("%d %s", a.Status, a.Body)
	if a.Reason != "" {
		text += " (" + a.Reason + ")"
	}
	return text
}

// Refusal is what the client gets when a policy returns the error: the rejection that it is, 503 "Try again" for a look-up that
// failed or a token that could not be checked, 401 "Unauthorized" for a token that does not hold, and 500 for any other.
func Refusal(err error) *Answer {
	var rejection *Answer
	switch {
	case errors.As(err, &rejection) && rejection != nil && !rejection.Allowed:
		return rejection
	case errors.Is(err, ErrDenied):
		return Reject(503, "Try again").Because("look-up denied")
	case errors.Is(err, ErrUnavailable):
		return Reject(503, "Try again").Because("look-up unavailable")
	case errors.Is(err, ErrNoKey):
		return Reject(503, "Try again").Because("token cannot be checked")
	case errors.Is(err, ErrMalformed), errors.Is(err, ErrUntrusted), errors.Is(err, ErrExpired), errors.Is(err, ErrClaims):
		return Reject(401, "Unauthorized").Because(err.Error())
	default:
		return Reject(500, "Internal Server Error").Because("the policy failed")
	}
}
