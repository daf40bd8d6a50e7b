package policy

import (
	"net/url"
	"strings"
)

// A Request is a client's HTTP request to read channels.
type Request struct {
	Method string
	// "http" or "https", as the client sees it.
	Scheme    string
	Authority string
	// Path and query as sent.
	Target string
	Header Header
	// The client's IP address; behind a trusted proxy, the one that the proxy names.
	// Empty if it is unknown, because the proxy names none.
	ClientAddress string
	// The requested channels: at least one, without repeats.
	Channels []string
}

// A Header is a list of fields in the order they were sent. Names are in lower case.
type Header []Field

// A Field is one line of a header.
type Field struct {
	Name, Value string
}

// Get returns the first value with that name, or "".
func (h Header) Get(name string) string {
	for _, field := range h {
		if strings.EqualFold(field.Name, name) {
			return field.Value
		}
	}
	return ""
}

// Values returns all values with that name.
func (h Header) Values(name string) []string {
	var values []string
	for _, field := range h {
		if strings.EqualFold(field.Name, name) {
			values = append(values, field.Value)
		}
	}
	return values
}

// Add adds a field.
func (h *Header) Add(name, value string) {
	*h = append(*h, Field{strings.ToLower(name), value})
}

// Set replaces all fields with that name by one.
func (h *Header) Set(name, value string) {
	kept := (*h)[:0]
	for _, field := range *h {
		if !strings.EqualFold(field.Name, name) {
			kept = append(kept, field)
		}
	}
	*h = kept
	h.Add(name, value)
}

// Cookie returns the value of the first cookie with that name, undecoded, and whether there is one. Parts that are not name=value
// are skipped, as browsers' and servers' parsers do.
func (r *Request) Cookie(name string) (string, bool) {
	for _, field := range r.Header {
		if !strings.EqualFold(field.Name, "cookie") {
			continue
		}
		for pair := range strings.SplitSeq(field.Value, ";") {
			key, value, found := strings.Cut(pair, "=")
			if found && trim(key) == name {
				return trim(value), true
			}
		}
	}
	return "", false
}

func trim(text string) string {
	return strings.Trim(text, " \t\r\n\f")
}

// Bearer returns the token of "authorization: Bearer <token>", and whether there is one.
func (r *Request) Bearer() (string, bool) {
	scheme, token, _ := strings.Cut(r.Header.Get("authorization"), " ")
	token = trim(token)
	return token, strings.EqualFold(scheme, "bearer") && token != ""
}

// URL returns the request's URL. If the target is not valid, the URL has only scheme and host.
func (r *Request) URL() *url.URL {
	target, err := url.ParseRequestURI(r.Target)
	if err != nil {
		target = &url.URL{}
	}
	target.Scheme, target.Host = r.Scheme, r.Authority
	return target
}

// Query returns the parameters of the query, without malformed ones.
func (r *Request) Query() url.Values {
	_, query, _ := strings.Cut(r.Target, "?")
	values, _ := url.ParseQuery(query)
	return values
}
