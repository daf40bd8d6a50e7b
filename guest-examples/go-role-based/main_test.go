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
	admin        = "403 Admin access required"
	team         = "403 Not a team member"
	own          = "403 You can only access your own channels"
	tryAgain     = "503 Try again"
)

// alice in team red, bob in team blue, root with the role admin, and a few invalid sessions.
func gateway() *policytest.Gateway {
	return &policytest.Gateway{
		Strings: map[string]string{
			"session:alice":    `{"id":"alice","role":"member"}`,
			"session:bob":      `{"id":"bob"}`,
			"session:root":     `{"role":"admin","id":"root","since":3}`,
			"session:odd-role": `{"id":"bob","role":["admin"]}`,
			"session:broken":   `{"id":"alice"`,
			"session:trailing": `{"id":"alice"} x`,
			"session:no-id":    `{"role":"admin"}`,
			"session:other-id": `{"Id":"alice"}`,
			"session:empty-id": `{"id":"","role":"admin"}`,
			"session:number":   `{"id":7}`,
			"session:list":     `["alice","admin"]`,
			"session:nothing":  ``,
		},
		Sets: map[string][]string{"team:red:members": {"alice"}, "team:blue:members": {"bob"}},
	}
}

// answerTo returns the answer as text, such as "allowed alice" or "403 Not a team member", and its reason.
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

		{"session=alice", "alice- alice-inbox alice default team-red", "allowed alice"},
		{"session=alice", "alice2", own},
		{"session=alice", "alic", own},
		{"session=alice", "default-2", own},
		{"session=alice", "team", own},
		{"session=alice", "admin-", admin},
		{"session=odd-role", "admin-log", admin},
		{"session=root", "admin-log root default", "allowed root"},
		{"session=bob", "team-blue", "allowed bob"},
		{"session=root", "team-red", team},
		{"session=alice", "team-", team},
		{"session=root", "alice-inbox", own},

		{"session=alice", "default admin-log team-blue bob", admin},
		{"session=alice", "team-red team-blue admin-log", team},
		{"session=alice", "bob admin-log", own},
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
		store.Failures = map[string]error{"team:": err}
		if answer, reason := answerTo(t, store, "session=alice", "default", "team-red"); answer != tryAgain || reason != expected {
			t.Error(answer, reason)
		}
		if answer, _ := answerTo(t, store, "session=alice", "admin-log", "team-red"); answer != admin {
			t.Error(answer)
		}
	}
}

func TestOnlyNeededKeysAreLookedUp(t *testing.T) {
	store := gateway()
	answerTo(t, store, "session=", "team-red")
	answerTo(t, store, "session=alice", "default", "team-red", "bob", "team-blue")
	if !slices.Equal(store.Lookups, []string{"session:alice", "team:red:members"}) {
		t.Error(store.Lookups)
	}
}

func TestReasonNamesTheUserButNotTheSession(t *testing.T) {
	for _, c := range []struct{ session, channel, expected string }{
		{"", "default", "no session"},
		{"mallory", "default", "unknown session"},
		{"odd-role", "default", "bob: 1 channels"},
		{"odd-role", "admin-log", "bob is not an admin"},
		{"odd-role", "team-red", "bob is not in team red"},
		{"odd-role", "alice", "alice is not a channel of bob"},
	} {
		if _, reason := answerTo(t, gateway(), "session="+c.session, c.channel); reason != c.expected {
			t.Errorf("%q, expected %q", reason, c.expected)
		}
	}
}
