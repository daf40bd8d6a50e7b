package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tidegate/policy/internal/host"
)

// recordingHost records what a policy passes to the gateway.
type recordingHost struct {
	host.Host
	log, reason string
	seconds     uint32
	vary        []string
	anyAddress  bool
	replaySince uint64
}

func (h *recordingHost) Log(_ uint8, message string)            { h.log += message + "\n" }
func (h *recordingHost) Reason(text string)                     { h.reason = text }
func (h *recordingHost) ReplaySince(time uint64)                { h.replaySince = time }
func (h *recordingHost) CacheFor(seconds uint32, vary []string) { h.seconds, h.vary = seconds, vary }
func (h *recordingHost) CacheAnyAddress()                       { h.anyAddress = true }

func (h *recordingHost) Get(key string) ([]byte, bool, *host.Failure) {
	return nil, false, &host.Failure{Kind: host.Unavailable, Text: key}
}

func decide(t *testing.T, f Func) (host.Answer, *recordingHost) {
	gateway := &recordingHost{}
	host.Current = gateway
	t.Cleanup(func() { host.Current = nil })
	return answer(f, host.Request{}), gateway
}

func TestGrantCarriesAllItsOptions(t *testing.T) {
	result, gateway := decide(t, func(*Request) (*Answer, error) {
		answer := Allow("alice\xff").WithReason("known")
		answer.Channels = []string{"a"}
		answer.Expires = time.UnixMilli(5)
		answer.ReplaySince = time.UnixMilli(7)
		answer.CacheFor, answer.CacheVary, answer.CacheAnyAddress = 90*time.Second, []string{"cookie"}, true
		answer.Header.Add("X-Mode", "one")
		answer.Header.Set("x-mode", "two")
		return answer, nil
	})
	if !result.Allowed || result.Subject != "alice\uFFFD" || !slices.Equal(result.Channels, []string{"a"}) {
		t.Errorf("%+v", result)
	}
	if !result.Expires || result.ExpiresAt != 5 || len(result.Headers) != 1 || string(result.Headers[0].Value) != "two" {
		t.Errorf("%+v", result)
	}
	if gateway.reason != "known" || gateway.seconds != 90 || !gateway.anyAddress || gateway.replaySince != 7 {
		t.Errorf("%+v", gateway)
	}
}

func TestRejectionIsPlainText(t *testing.T) {
	result, _ := decide(t, func(*Request) (*Answer, error) { return Reject(403, "no"), nil })
	if result.Allowed || result.Status != 403 || string(result.Body) != "no" || result.Headers[0].Name != "content-type" {
		t.Errorf("%+v", result)
	}
}

func TestUnexpectedErrorIsOnlyLogged(t *testing.T) {
	for name, f := range map[string]Func{
		"a secret":          func(*Request) (*Answer, error) { return nil, errors.New("a secret") },
		"panic: a surprise": func(*Request) (*Answer, error) { panic("a surprise") },
		"neither":           func(*Request) (*Answer, error) { return nil, nil },
		"no-such-file: no such file or directory; a policy has no files: embed them": func(*Request) (*Answer, error) {
			_, err := os.ReadFile("no-such-file")
			return nil, fmt.Errorf("reading the key: %w", err)
		},
	} {
		result, gateway := decide(t, f)
		if result.Allowed || result.Status != 500 || string(result.Body) != "Internal Server Error" {
			t.Errorf("%s: %+v", name, result)
		}
		if !strings.Contains(gateway.log, name) {
			t.Errorf("%s: the log is %q", name, gateway.log)
		}
	}
}

func TestErrorsMapToRejections(t *testing.T) {
	for _, c := range []struct {
		err            error
		status         int
		body, expected string
	}{
		{Reject(404, "none").WithReason("why"), 404, "none", "why"},
		{fmt.Errorf("wrapped: %w", Reject(404, "none")), 404, "none", ""},
		{fmt.Errorf("%w: wrapped", ErrDenied), 503, "Try again", "look-up denied"},
		{ErrUnavailable, 503, "Try again", "look-up unavailable"},
		{ErrNoKey, 503, "Try again", "token cannot be verified"},
		{fmt.Errorf("%w: aud", ErrClaims), 401, "Unauthorized", "invalid token claims: aud"},
		{ErrExpired, 401, "Unauthorized", "expired token"},
		{Allow("alice"), 500, "Internal Server Error", "the policy failed"},
		{(*Answer)(nil), 500, "Internal Server Error", "the policy failed"},
	} {
		result, gateway := decide(t, func(*Request) (*Answer, error) { return nil, c.err })
		if int(result.Status) != c.status || string(result.Body) != c.body || gateway.reason != c.expected {
			t.Errorf("%v: %+v %q", c.err, result, gateway.reason)
		}
	}
}

func TestLookupErrors(t *testing.T) {
	host.Current = &recordingHost{}
	defer func() { host.Current = nil }()
	_, _, err := Get("a-key")
	if !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "a-key") {
		t.Error(err)
	}
	if _, found, err := Get("\xff"); found || err != nil {
		t.Error("a key that is not UTF-8 is not found")
	}
}

func TestRequestIsParsed(t *testing.T) {
	r := &Request{
		Scheme: "https", Authority: "app.example", Target: "/api/realtime?channel=a%2Db&channel=c&q=x+y",
		Header: Header{{"authorization", "bEARER  abc "}, {"cookie", "flag; =x; a=1"}, {"cookie", " b = 2=3 ;c="}},
	}
	for name, expected := range map[string]string{"a": "1", "b": "2=3", "c": ""} {
		if value, found := r.Cookie(name); value != expected || !found {
			t.Errorf("cookie %s: %q, %v", name, value, found)
		}
	}
	for _, name := range []string{"A", "flag", "d"} {
		if _, found := r.Cookie(name); found {
			t.Errorf("cookie %s is found", name)
		}
	}
	if token, found := r.Bearer(); token != "abc" || !found {
		t.Error(token)
	}
	if query := r.Query(); !slices.Equal(query["channel"], []string{"a-b", "c"}) || query.Get("q") != "x y" {
		t.Error(query)
	}
	if url := r.URL(); url.Host != "app.example" || url.Path != "/api/realtime" {
		t.Error(url)
	}
	if len(r.Header.Values("Cookie")) != 2 || r.Header.Get("none") != "" {
		t.Error(r.Header)
	}
}

func TestLogLineHasAttributes(t *testing.T) {
	gateway := &recordingHost{}
	host.Current = gateway
	defer func() { host.Current = nil }()
	log := slog.New(LogHandler{}).With("user", "alice").WithGroup("db")
	log.Warn("slow", "took", time.Second, slog.Group("key", "name", "a"), slog.Attr{})
	if gateway.log != "slow user=alice db.took=1s db.key.name=a\n" {
		t.Error(gateway.log)
	}
}
