package main

import (
	"time"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	text, _ := r.Bearer()
	setting, _ := policy.Setting("KEYS")
	keys, err := jwk.ParseString(setting)
	if err != nil {
		return nil, err
	}
	for i := range keys.Len() {
		key, _ := keys.Key(i)
		if err := key.Set(jwk.AlgorithmKey, "ES256"); err != nil {
			return nil, err
		}
	}
	token, err := jwt.ParseString(text, jwt.WithKeySet(keys), jwt.WithIssuer("https://auth.example"), jwt.WithAudience("app"),
		jwt.WithClock(jwt.ClockFunc(time.Now)))
	if err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	subject, _ := token.Subject()
	return policy.Allow(subject), nil
}
