package policy

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"tidegate/policy/internal/host"
)

// Asks the policy and turns its answer into what the gateway takes.
func answer(f Func, request host.Request) host.Answer {
	answer := ask(f, newRequest(request))
	announce(answer)
	if !answer.Allowed {
		return host.Answer{
			Status:  uint16(min(max(answer.Status, 0), 65535)),
			Headers: fields(answer.Header),
			Body:    answer.Body,
		}
	}
	grant := host.Answer{
		Allowed:  true,
		Subject:  text(answer.Subject),
		Channels: answer.Channels,
		Headers:  fields(answer.Header),
	}
	if !answer.Expires.IsZero() {
		grant.ExpiresAt, grant.Expires = milliseconds(answer.Expires), true
	}
	return grant
}

// What the policy answers, whatever it does. What fails without being meant to is told to the log, and not to the client.
func ask(f Func, request *Request) (given *Answer) {
	defer func() {
		if cause := recover(); cause != nil {
			given = failure(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
		}
	}()
	answer, err := f(request)
	switch {
	case err != nil:
		return failure(err)
	case answer == nil:
		return failure(errors.New("the policy gave neither an answer nor an error"))
	default:
		return answer
	}
}

func failure(err error) *Answer {
	refusal := Refusal(err)
	if refusal.Status == 500 {
		host.Current.Log(host.Error, text(err.Error()))
	}
	return refusal
}

// Says what stands beside the answer itself.
func announce(answer *Answer) {
	if answer.Reason != "" {
		host.Current.Reason(text(answer.Reason))
	}
	if !answer.ReplaySince.IsZero() {
		host.Current.ReplaySince(milliseconds(answer.ReplaySince))
	}
	if seconds := answer.CacheFor / time.Second; seconds > 0 {
		host.Current.CacheFor(uint32(min(int64(seconds), 1<<32-1)), answer.CacheVary)
		if answer.CacheAnyAddress {
			host.Current.CacheAnyAddress()
		}
	}
}

func newRequest(given host.Request) *Request {
	header := make(Header, len(given.Headers))
	for i, field := range given.Headers {
		header[i] = Field{field.Name, string(field.Value)}
	}
	return &Request{
		Method:        given.Method,
		Scheme:        given.Scheme,
		Authority:     given.Authority,
		Target:        given.PathWithQuery,
		Header:        header,
		ClientAddress: given.ClientAddress,
		Channels:      given.Channels,
	}
}

func fields(header Header) []host.Header {
	fields := make([]host.Header, len(header))
	for i, field := range header {
		fields[i] = host.Header{Name: strings.ToLower(text(field.Name)), Value: []byte(field.Value)}
	}
	return fields
}

// Text for the gateway is UTF-8.
func text(text string) string {
	return strings.ToValidUTF8(text, "\uFFFD")
}

// The gateway's clock begins in 1970.
func milliseconds(t time.Time) uint64 {
	return uint64(max(t.UnixMilli(), 0))
}
