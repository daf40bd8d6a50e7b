package main

import (
	"net/http"

	"github.com/gorilla/securecookie"
	"github.com/gorilla/sessions"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	secret, _ := policy.Setting("SECRET")
	codec := securecookie.New([]byte(secret), nil)
	codec.SetSerializer(securecookie.JSONEncoder{})
	codec.MaxAge(3600)
	store := sessions.CookieStore{Codecs: []securecookie.Codec{fields{codec}}, Options: &sessions.Options{MaxAge: 3600}}
	request := &http.Request{Header: http.Header{"Cookie": r.Header.Values("cookie")}}
	session, err := store.New(request, "session")
	user, _ := session.Values["user"].(string)
	if err != nil || user == "" {
		return nil, policy.Reject(401, "Unauthorized").WithReason("no session")
	}
	return policy.Allow(user), nil
}

// The app writes sessions as JSON, whose fields have names; the package has values of any type.
type fields struct{ *securecookie.SecureCookie }

func (f fields) Decode(name, value string, to any) error {
	var values map[string]any
	if err := f.SecureCookie.Decode(name, value, &values); err != nil {
		return err
	}
	session := to.(*map[any]any)
	for name, value := range values {
		(*session)[name] = value
	}
	return nil
}
