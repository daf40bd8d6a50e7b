// Package policytest plays the gateway for the tests of a policy, which run as any Go tests do.
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

// A Gateway is what a policy finds around it. The zero value has an empty store and 2026-01-01 as the time.
type Gateway struct {
	// What the store holds.
	Strings map[string]string
	Hashes  map[string]map[string]string
	Sets    map[string][]string
	// Look-ups of keys with such a prefix fail with the error: policy.ErrDenied or policy.ErrUnavailable.
	Failures map[string]error

	Settings map[string]string
	// The claims of the tokens that hold, whatever the profile; any other is policy.ErrUntrusted.
	Tokens map[string]string
	Now    time.Time

	// What the policy did: the keys that it looked up, and what it logged.
	Asked []string
	Log   []string
}

// NewRequest is a GET for the channels.
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

// One policy decides at a time: there is one gateway.
var turn sync.Mutex

// Decide asks the policy. An error becomes what the client would get, and is told to the log where the gateway would tell it.
func (g *Gateway) Decide(f policy.Func, request *policy.Request) *policy.Answer {
	turn.Lock()
	defer turn.Unlock()
	host.Current = played{g}
	defer func() { host.Current = nil }()
	answer, err := f(request)
	if err == nil && answer == nil {
		err = errors.New("the policy gave neither an answer nor an error")
	}
	if err == nil {
		return answer
	}
	refusal := policy.Refusal(err)
	if refusal.Status == 500 {
		host.Current.Log(host.Error, err.Error())
	}
	return refusal
}

type played struct {
	*Gateway
}

func (p played) fails(key string) *host.Failure {
	p.Asked = append(p.Asked, key)
	for prefix, err := range p.Failures {
		if strings.HasPrefix(key, prefix) {
			if errors.Is(err, policy.ErrDenied) {
				return &host.Failure{Kind: host.Denied}
			}
			return &host.Failure{Kind: host.Unavailable, Text: "the store of the test is away"}
		}
	}
	return nil
}

func (p played) Get(key string) ([]byte, bool, *host.Failure) {
	if failure := p.fails(key); failure != nil {
		return nil, false, failure
	}
	value, found := p.Strings[key]
	return []byte(value), found, nil
}

func (p played) HashGet(key, field string) ([]byte, bool, *host.Failure) {
	if failure := p.fails(key); failure != nil {
		return nil, false, failure
	}
	value, found := p.Hashes[key][field]
	return []byte(value), found, nil
}

func (p played) SetContains(key, member string) (bool, *host.Failure) {
	if failure := p.fails(key); failure != nil {
		return false, failure
	}
	return slices.Contains(p.Sets[key], member), nil
}

func (p played) Verify(token string) (string, *host.Failure) {
	claims, found := p.Tokens[token]
	if !found {
		return "", &host.Failure{Kind: host.Untrusted}
	}
	return claims, nil
}

func (p played) VerifyWith(_, token string) (string, *host.Failure) {
	return p.Verify(token)
}

func (p played) Setting(name string) (string, bool) {
	value, found := p.Settings[name]
	return value, found
}

func (p played) Now() uint64 {
	if p.Gateway.Now.IsZero() {
		return uint64(time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	}
	return uint64(p.Gateway.Now.UnixMilli())
}

func (p played) RequestID() string { return "a-test" }

func (p played) Action() string { return "stream" }

func (p played) Log(level uint8, message string) {
	names := [...]string{"debug", "info", "warn", "error"}
	p.Gateway.Log = append(p.Gateway.Log, fmt.Sprintf("%s: %s", names[level], message))
}

// What stands beside an answer is part of it, so nothing has to be kept.

func (p played) Reason(string)             {}
func (p played) ReplaySince(uint64)        {}
func (p played) CacheFor(uint32, []string) {}
func (p played) CacheAnyAddress()          {}
