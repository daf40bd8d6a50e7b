package policy

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"tidegate/policy/internal/host"
)

// Errors of look-ups and of the verification of tokens.
var (
	// The operator did not allow the key.
	ErrDenied = errors.New("look-up denied")
	// The store did not answer in time, or answered with an error.
	ErrUnavailable = errors.New("look-up unavailable")

	// The text is not a token.
	ErrMalformed = errors.New("malformed token")
	// The token's signature, algorithm or key is not valid.
	ErrUntrusted = errors.New("untrusted token")
	// The token has expired.
	ErrExpired = errors.New("expired token")
	// The token's issuer, audience or not-before does not match.
	ErrClaims = errors.New("invalid token claims")
	// The gateway has no key to verify the token.
	ErrNoKey = errors.New("token cannot be verified")
)

// Get returns the string at the key, and whether there is one. The error is [ErrDenied] or [ErrUnavailable].
func Get(key string) (value []byte, found bool, err error) {
	if !isText(key) {
		return nil, false, nil
	}
	value, found, failure := host.Current.Get(key)
	return value, found, toError(failure)
}

// HashGet returns a field of the hash at the key, and whether there is one.
func HashGet(key, field string) (value []byte, found bool, err error) {
	if !isText(key, field) {
		return nil, false, nil
	}
	value, found, failure := host.Current.HashGet(key, field)
	return value, found, toError(failure)
}

// SetContains reports whether the set at the key contains the member.
func SetContains(key, member string) (bool, error) {
	if !isText(key, member) {
		return false, nil
	}
	found, failure := host.Current.SetContains(key, member)
	return found, toError(failure)
}

// Keys are UTF-8, so no other key has a value.
func isText(texts ...string) bool {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return false
		}
	}
	return true
}

// VerifyToken verifies a JSON Web Token with the operator's profile for its issuer, and returns its claims as JSON.
func VerifyToken(token string) (claims []byte, err error) {
	if !isText(token) {
		return nil, ErrMalformed
	}
	text, failure := host.Current.Verify(token)
	return []byte(text), toError(failure)
}

// VerifyTokenWith verifies a JSON Web Token with one profile, and returns its claims as JSON.
func VerifyTokenWith(profile, token string) (claims []byte, err error) {
	if !isText(profile, token) {
		return nil, ErrMalformed
	}
	text, failure := host.Current.VerifyWith(profile, token)
	return []byte(text), toError(failure)
}

func toError(failure *host.Failure) error {
	if failure == nil {
		return nil
	}
	err := [...]error{ErrDenied, ErrUnavailable, ErrMalformed, ErrUntrusted, ErrExpired, ErrClaims, ErrNoKey}[failure.Kind]
	if failure.Text != "" {
		err = fmt.Errorf("%w: %s", err, failure.Text)
	}
	return err
}

// Setting returns a setting of the operator, and whether there is one.
func Setting(name string) (string, bool) {
	if !isText(name) {
		return "", false
	}
	return host.Current.Setting(name)
}

// Now returns the time of the gateway's clock.
func Now() time.Time {
	return time.UnixMilli(int64(host.Current.Now()))
}

// RequestID returns the id of this request, as in all log lines about it.
func RequestID() string {
	return host.Current.RequestID()
}

// Action returns the requested action: "stream" or "history".
func Action() string {
	return host.Current.Action()
}
