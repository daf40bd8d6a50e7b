// Package host has the host functions: those of the gateway in a component, those of package policytest in a test.
package host

// The functions of the policy, set by policy.Handle and policy.Prepare.
var (
	Decide  func(Request) Answer
	Prepare func()
	// Warms up every policy before the request.
	Warm func()
)

// Current is the current host.
var Current Host

// A Host has the functions that a policy imports.
type Host interface {
	Get(key string) (value []byte, found bool, failure *Failure)
	HashGet(key, field string) (value []byte, found bool, failure *Failure)
	SetContains(key, member string) (found bool, failure *Failure)
	Verify(token string) (claims string, failure *Failure)
	VerifyWith(profile, token string) (claims string, failure *Failure)
	Setting(name string) (value string, found bool)

	Now() uint64
	RequestID() string
	Action() string
	Log(level uint8, message string)

	Reason(text string)
	ReplaySince(time uint64)
	CacheFor(seconds uint32, vary []string)
	CacheAnyAddress()
}

// A Failure is the error of a host function.
type Failure struct {
	Kind Kind
	Text string
}

// A Kind is the kind of a failure. Package policy has an error for each, in this order.
type Kind uint8

const (
	Denied Kind = iota
	Unavailable
	Malformed
	Untrusted
	Expired
	Claims
	NoKey
)

// The levels of the log, numbered as in the interface.
const (
	Debug uint8 = iota
	Info
	Warn
	Error
)

// A Request is the client's request.
type Request struct {
	Method, Scheme, Authority, PathWithQuery string
	Headers                                  []Header
	ClientAddress                            string
	Channels                                 []string
}

// A Header is a header of the request or the answer.
type Header struct {
	Name  string
	Value []byte
}

// An Answer is a grant or a rejection.
type Answer struct {
	Allowed bool

	Subject   string
	Channels  []string
	Expires   bool
	ExpiresAt uint64

	Status  uint16
	Headers []Header
	Body    []byte
}
