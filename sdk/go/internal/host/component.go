//go:build wasip1

package host

import (
	"unsafe"

	answer "tidegate/policy/internal/bindings/tidegate_policy_answer"
	context "tidegate/policy/internal/bindings/tidegate_policy_context"
	lookup "tidegate/policy/internal/bindings/tidegate_policy_lookup"
	settings "tidegate/policy/internal/bindings/tidegate_policy_settings"
	tokens "tidegate/policy/internal/bindings/tidegate_policy_tokens"
	"tidegate/policy/internal/wit/types"
)

// Functions of the adapter, adapter/wasi_snapshot_preview1.wat. They tell it when the component may call the host, because Go also
// reads the clock while the gateway passes values to the component.

//go:wasmimport wasi_snapshot_preview1 tidegate_open
func Open()

//go:wasmimport wasi_snapshot_preview1 tidegate_close
func Close()

//go:wasmimport wasi_snapshot_preview1 tidegate_scratch
func setScratch(area uintptr)

// The result of a write to stderr, which is ignored.
var scratch [2]uint64

func init() {
	setScratch(uintptr(unsafe.Pointer(&scratch)))
	Current = component{}
}

// The host functions of the gateway.
type component struct{}

func (component) Get(key string) ([]byte, bool, *Failure) {
	Close()
	result := lookup.Get(key)
	Open()
	return found(result)
}

func (component) HashGet(key, field string) ([]byte, bool, *Failure) {
	Close()
	result := lookup.HashGet(key, field)
	Open()
	return found(result)
}

func (component) SetContains(key, member string) (bool, *Failure) {
	Close()
	result := lookup.SetContains(key, member)
	Open()
	if result.IsErr() {
		return false, lookupFailure(result.Err())
	}
	return result.Ok(), nil
}

func found(result wit_types.Result[wit_types.Option[[]uint8], lookup.Error]) ([]byte, bool, *Failure) {
	if result.IsErr() {
		return nil, false, lookupFailure(result.Err())
	}
	value := result.Ok()
	return value.SomeOr(nil), value.IsSome(), nil
}

func lookupFailure(err lookup.Error) *Failure {
	if err.Tag() == lookup.ErrorDenied {
		return &Failure{Kind: Denied}
	}
	return &Failure{Unavailable, err.Unavailable()}
}

func (component) Verify(token string) (string, *Failure) {
	Close()
	result := tokens.Verify(token)
	Open()
	return claims(result)
}

func (component) VerifyWith(profile, token string) (string, *Failure) {
	Close()
	result := tokens.VerifyWith(profile, token)
	Open()
	return claims(result)
}

func claims(result wit_types.Result[string, tokens.Error]) (string, *Failure) {
	if !result.IsErr() {
		return result.Ok(), nil
	}
	err := result.Err()
	switch err.Tag() {
	case tokens.ErrorMalformed:
		return "", &Failure{Kind: Malformed}
	case tokens.ErrorUntrusted:
		return "", &Failure{Kind: Untrusted}
	case tokens.ErrorExpired:
		return "", &Failure{Kind: Expired}
	case tokens.ErrorClaims:
		return "", &Failure{Claims, err.Claims()}
	default:
		return "", &Failure{NoKey, err.Unavailable()}
	}
}

func (component) Setting(name string) (string, bool) {
	Close()
	value := settings.Get(name)
	Open()
	return value.SomeOr(""), value.IsSome()
}

func (component) Now() uint64 {
	return context.Now()
}

func (component) RequestID() string {
	Close()
	defer Open()
	return context.RequestId()
}

func (component) Action() string {
	Close()
	defer Open()
	return context.Action()
}

func (component) Log(level uint8, message string) {
	context.Log(level, message)
}

func (component) Reason(text string) {
	answer.Reason(text)
}

func (component) ReplaySince(time uint64) {
	answer.ReplaySince(time)
}

func (component) CacheFor(seconds uint32, vary []string) {
	answer.CacheFor(seconds, vary)
}

func (component) CacheAnyAddress() {
	answer.CacheAnyAddress()
}
