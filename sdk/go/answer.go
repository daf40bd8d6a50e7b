package policy

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"strings"
	"time"

	"tidegate/policy/internal/host"
)

// Evaluates the policy and converts its answer to the gateway's.
func answer(f Func, request host.Request) host.Answer {
	answer := evaluate(f, newRequest(request))
	setOptions(answer)
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

// Calls the policy and converts errors and panics into rejections. Unexpected errors are logged and not sent to the client.
func evaluate(f Func, request *Request) (result *Answer) {
	defer func() {
		if cause := recover(); cause != nil {
			result = failure(fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
		}
	}()
	answer, err := f(request)
	switch {
	case err != nil:
		return failure(err)
	case answer == nil:
		return failure(errors.New("the policy returned neither an answer nor an error"))
	default:
		return answer
	}
}

func failure(err error) *Answer {
	rejection := ToRejection(err)
	if rejection.Status == 500 {
		host.Current.Log(host.Error, text(err.Error()+remedy(err)))
	}
	return rejection
}

// What a policy uses instead of files. Errors of the network have it in their text: see policy build.
func remedy(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return "; a policy has no files: embed them with //go:embed, or use policy.Setting"
	}
	return ""
}

// Passes the answer's options to the gateway.
func setOptions(answer *Answer) {
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

func newRequest(request host.Request) *Request {
	header := make(Header, len(request.Headers))
	for i, field := range request.Headers {
		header[i] = Field{field.Name, string(field.Value)}
	}
	return &Request{
		Method:        request.Method,
		Scheme:        request.Scheme,
		Authority:     request.Authority,
		Target:        request.PathWithQuery,
		Header:        header,
		ClientAddress: request.ClientAddress,
		Channels:      request.Channels,
	}
}

func fields(header Header) []host.Header {
	fields := make([]host.Header, len(header))
	for i, field := range header {
		fields[i] = host.Header{Name: strings.ToLower(text(field.Name)), Value: []byte(field.Value)}
	}
	return fields
}

// Makes text valid UTF-8, as the gateway requires.
func text(text string) string {
	return strings.ToValidUTF8(text, "\uFFFD")
}

// Converts a time to ms since 1970; earlier times become 0.
func milliseconds(t time.Time) uint64 {
	return uint64(max(t.UnixMilli(), 0))
}
