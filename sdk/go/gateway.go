package policy

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"tidegate/policy/internal/host"
)

// Why a look-up or a token gave nothing.
var (
	// The operator allowed no such key.
	ErrDenied = errors.New("look-up denied")
	// The store did not answer in time, or answered with an error.
	ErrUnavailable = errors.New("look-up unavailable")

	// The token is none.
	ErrMalformed = errors.New("malformed token")
	// The token's signature, algorithm or key does not hold.
	ErrUntrusted = errors.New("untrusted token")
	// The token's time is over.
	ErrExpired = errors.New("expired token")
	// The token's issuer, audience or not-before does not hold.
	ErrClaims = errors.New("token with claims that do not hold")
	// No key for the token could be had.
	ErrNoKey = errors.New("token cannot be checked")
)

// Get returns the string at the key, and whether there is one. The error is [ErrDenied] or [ErrUnavailable].
func Get(key string) (value []byte, found bool, err error) {
	if !isText(key) {
		return nil, false, nil
	}
	value, found, failure := host.Current.Get(key)
	return value, found, reason(failure)
}

// HashGet returns a field of the hash at the key, and whether there is one.
func HashGet(key, field string) (value []byte, found bool, err error) {
	if !isText(key, field) {
		return nil, false, nil
	}
	value, found, failure := host.Current.HashGet(key, field)
	return value, found, reason(failure)
}

// SetContains says whether the set at the key holds the member.
func SetContains(key, member string) (bool, error) {
	if !isText(key, member) {
		return false, nil
	}
	found, failure := host.Current.SetContains(key, member)
	return found, reason(failure)
}

// Keys are UTF-8, so there is nothing at one that is not.
func isText(texts ...string) bool {
	for _, text := range texts {
		if !utf8.ValidString(text) {
			return false
		}
	}
	return true
}

// VerifyToken checks a JSON Web Token against the operator's profile for its issuer, and returns its claims as JSON.
func VerifyToken(token string) (claims []byte, err error) {
	if !isText(token) {
		return nil, ErrMalformed
	}
	text, failure := host.Current.Verify(token)
	return []byte(text), reason(failure)
}

// VerifyTokenWith checks it against one profile.
func VerifyTokenWith(profile, token string) (claims []byte, err error) {
	if !isText(profile, token) {
		return nil, ErrMalformed
	}
	text, failure := host.Current.VerifyWith(profile, token)
	return []byte(text), reason(failure)
}

func reason(failure *host.Failure) error {
	if failure == nil {
		return nil
	}
	err := [...]error{ErrDenied, ErrUnavailable, ErrMalformed, ErrUntrusted, ErrExpired, ErrClaims, ErrNoKey}[failure.Kind]
	if failure.Text != "" {
		err = fmt.Errorf("%w: %s", err, failure.Text)
	}
	return err
}

// Setting returns one of the operator's settings, and whether there is one.
func Setting(name string) (string, bool) {
	if !isText(name) {
		return "", false
	}
	return host.Current.Setting(name)
}

// Now is the time on the gateway's clock.
func Now() time.Time {
	return time.UnixMilli(int64(host.Current.Now()))
}

// RequestID is the same in every log line about this request.
func RequestID() string {
	return host.Current.RequestID()
}

// Action is "stream" or "history".
func Action() string {
	return host.Current.Action()
}
