// Package host is where a policy and its gateway meet: the real one in a component, package policytest in a test.
package host

// What policy.Handle and policy.Prepare were given.
var (
	Decide  func(Request) Answer
	Prepare func()
	// What package policy does ahead of a request for every policy.
	Warm func()
)

// Current is the gateway.
var Current Host

// A Host is what a policy may ask the gateway.
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

// A Failure is why the gateway gave nothing.
type Failure struct {
	Kind Kind
	Text string
}

// The kinds of failure. Package policy has an error for each, in this order.
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

// The levels of the log, as the interface numbers them.
const (
	Debug uint8 = iota
	Info
	Warn
	Error
)

// A Request is the client's.
type Request struct {
	Method, Scheme, Authority, PathWithQuery string
	Headers                                  []Header
	ClientAddress                            string
	Channels                                 []string
}

// A Header is one line of the request's or the answer's.
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
