package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"tidegate/policy"
	"tidegate/policy/policytest"
)

const (
	unauthorized = "401 Unauthorized"
	own          = "403 You can only access your own channels"
	tryAgain     = "503 Try again"
)

// alice, bob, and a few invalid sessions.
func gateway() *policytest.Gateway {
	return &policytest.Gateway{
		Strings: map[string]string{
			"session:alice":    `{"id":"alice","role":"member"}`,
			"session:bob":      `{"id":"bob"}`,
			"session:broken":   `{"id":"alice"`,
			"session:trailing": `{"id":"alice"} x`,
			"session:no-id":    `{"role":"admin"}`,
			"session:other-id": `{"Id":"alice"}`,
			"session:empty-id": `{"id":"","role":"admin"}`,
			"session:number":   `{"id":7}`,
			"session:list":     `["alice","admin"]`,
			"session:nothing":  ``,
		},
	}
}

// answerTo returns the answer as text, such as "allowed alice" or "403 You can only …", and its reason.
func answerTo(t *testing.T, gateway *policytest.Gateway, cookie string, channels ...string) (string, string) {
	t.Helper()
	request := policytest.NewRequest(channels...)
	request.Header.Add("cookie", cookie)
	answer := gateway.Decide(decide, request)
	if answer.Allowed {
		return "allowed " + answer.Subject, answer.Reason
	}
	if !slices.Equal(answer.Header, policy.Header{{Name: "content-type", Value: "text/plain"}}) {
		t.Errorf("headers %v", answer.Header)
	}
	return fmt.Sprintf("%d %s", answer.Status, answer.Body), answer.Reason
}

func TestDecisions(t *testing.T) {
	for _, c := range []struct{ cookie, channels, expected string }{
		{"", "default", unauthorized},
		{"session=mallory", "default", unauthorized},
		{"session=mallory", "admin-x", unauthorized},
		{"session=broken", "default", unauthorized},
		{"session=trailing", "default", unauthorized},
		{"session=no-id", "default", unauthorized},
		{"session=other-id", "default", unauthorized},
		{"session=empty-id", "default", unauthorized},
		{"session=number", "default", unauthorized},
		{"session=list", "default", unauthorized},
		{"session=nothing", "default", unauthorized},

		{"a=b; session=alice; session=bob", "default", "allowed alice"},
		{"flag; =x; ; session = alice ", "default", "allowed alice"},
		{"session=; session=alice", "default", unauthorized},
		{"Session=alice; mysession=alice; session", "default", unauthorized},
		{"session=\xff", "default", unauthorized},

		{"session=alice", "default", "allowed alice"},
		{"session=alice", "alice- alice-inbox alice default", "allowed alice"},
		{"session=alice", "alice2", own},
		{"session=alice", "alic", own},
		{"session=alice", "default-2", own},
		{"session=alice", "default alice bob-inbox", own},
	} {
		if answer, _ := answerTo(t, gateway(), c.cookie, strings.Fields(c.channels)...); answer != c.expected {
			t.Errorf("%s at %s: %s, expected %s", c.cookie, c.channels, answer, c.expected)
		}
	}
}

func TestFailedLookupIsA503(t *testing.T) {
	for err, expected := range map[error]string{
		policy.ErrDenied: "look-up denied", policy.ErrUnavailable: "look-up unavailable",
	} {
		store := gateway()
		store.Failures = map[string]error{"session:": err}
		if answer, reason := answerTo(t, store, "session=alice", "default"); answer != tryAgain || reason != expected {
			t.Error(answer, reason)
		}
	}
}

func TestOnlyNeededKeysAreLookedUp(t *testing.T) {
	store := gateway()
	answerTo(t, store, "session=", "default")
	answerTo(t, store, "session=alice", "default", "alice")
	if !slices.Equal(store.Lookups, []string{"session:alice"}) {
		t.Error(store.Lookups)
	}
}

func TestReasonNamesTheUserButNotTheSession(t *testing.T) {
	for _, c := range []struct{ session, channel, expected string }{
		{"", "default", "no session"},
		{"mallory", "default", "unknown session"},
		{"bob", "default", "bob: 1 channels"},
		{"bob", "alice", "alice is not a channel of bob"},
	} {
		if _, reason := answerTo(t, gateway(), "session="+c.session, c.channel); reason != c.expected {
			t.Errorf("%q, expected %q", reason, c.expected)
		}
	}
}
