// Package policytest has a gateway for tests of policies.
//
//	gateway := policytest.Gateway{Strings: map[string]string{"session:s1": "alice"}}
//	request := policytest.NewRequest("default")
//	request.Header.Add("cookie", "session=s1")
//	answer := gateway.Decide(decide, request)
package policytest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tidegate/policy"
	"tidegate/policy/internal/host"
)

// A Gateway is a gateway for tests, with a store, settings, tokens and a clock. The zero value has an empty store, and its time is
// 2026-01-01.
type Gateway struct {
	// The values in the store, by key.
	Strings map[string]string
	Hashes  map[string]map[string]string
	Sets    map[string][]string
	// Errors of look-ups by prefix of the key: policy.ErrDenied or policy.ErrUnavailable.
	Failures map[string]error

	Settings map[string]string
	// Claims of valid tokens, for all profiles. Any other token is policy.ErrUntrusted.
	Tokens map[string]string
	Now    time.Time

	// Filled by Decide: the keys that the policy looked up, and its log lines.
	Lookups []string
	Log     []string
}

// NewRequest returns a GET request for the channels.
func NewRequest(channels ...string) *policy.Request {
	return &policy.Request{
		Method:        "GET",
		Scheme:        "https",
		Authority:     "app.example",
		Target:        "/api/realtime",
		ClientAddress: "192.0.2.1",
		Channels:      channels,
	}
}

// Serializes decisions, because the current host is global.
var decideMutex sync.Mutex

// Decide evaluates the policy. Errors are converted to rejections, and logged, as in the gateway.
func (g *Gateway) Decide(f policy.Func, request *policy.Request) *policy.Answer {
	decideMutex.Lock()
	defer decideMutex.Unlock()
	host.Current = testHost{g}
	defer func() { host.Current = nil }()
	answer, err := f(request)
	if err == nil && answer == nil {
		err = errors.New("the policy returned neither an answer nor an error")
	}
	if err == nil {
		return answer
	}
	rejection := policy.ToRejection(err)
	if rejection.Status == 500 {
		host.Current.Log(host.Error, err.Error())
	}
	return rejection
}

type testHost struct {
	*Gateway
}

func (p testHost) lookUp(key string) *host.Failure {
	p.Lookups = append(p.Lookups, key)
	for prefix, err := range p.Failures {
		if strings.HasPrefix(key, prefix) {
			if errors.Is(err, policy.ErrDenied) {
				return &host.Failure{Kind: host.Denied}
			}
			return &host.Failure{Kind: host.Unavailable, Text: "the store does not answer"}
		}
	}
	return nil
}

func (p testHost) Get(key string) ([]byte, bool, *host.Failure) {
	if failure := p.lookUp(key); failure != nil {
		return nil, false, failure
	}
	value, found := p.Strings[key]
	return []byte(value), found, nil
}

func (p testHost) HashGet(key, field string) ([]byte, bool, *host.Failure) {
	if failure := p.lookUp(key); failure != nil {
		return nil, false, failure
	}
	value, found := p.Hashes[key][field]
	return []byte(value), found, nil
}

func (p testHost) SetContains(key, member string) (bool, *host.Failure) {
	if failure := p.lookUp(key); failure != nil {
		return false, failure
	}
	return slices.Contains(p.Sets[key], member), nil
}

func (p testHost) Verify(token string) (string, *host.Failure) {
	claims, found := p.Tokens[token]
	if !found {
		return "", &host.Failure{Kind: host.Untrusted}
	}
	return claims, nil
}

func (p testHost) VerifyWith(_, token string) (string, *host.Failure) {
	return p.Verify(token)
}

func (p testHost) Setting(name string) (string, bool) {
	value, found := p.Settings[name]
	return value, found
}

func (p testHost) Now() uint64 {
	if p.Gateway.Now.IsZero() {
		return uint64(time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	}
	return uint64(p.Gateway.Now.UnixMilli())
}

func (p testHost) RequestID() string { return "a-test" }

func (p testHost) Action() string { return "stream" }

func (p testHost) Log(level uint8, message string) {
	names := [...]string{"debug", "info", "warn", "error"}
	p.Gateway.Log = append(p.Gateway.Log, fmt.Sprintf("%s: %s", names[level], message))
}

// Decide returns the policy's answer with its options, so these calls need not be recorded.

func (p testHost) Reason(string)             {}
func (p testHost) ReplaySince(uint64)        {}
func (p testHost) CacheFor(uint32, []string) {}
func (p testHost) CacheAnyAddress()          {}
