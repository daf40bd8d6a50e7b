package main

import (
	"github.com/golang-jwt/jwt/v5"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	text, _ := r.Bearer()
	claims := jwt.RegisteredClaims{}
	_, err := jwt.ParseWithClaims(text, &claims, key,
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithAudience("app"), jwt.WithExpirationRequired())
	if err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	answer := policy.Allow(claims.Subject)
	answer.Expires = claims.ExpiresAt.Time
	return answer, nil
}

func key(*jwt.Token) (any, error) {
	secret, _ := policy.Setting("SECRET")
	return []byte(secret), nil
}
