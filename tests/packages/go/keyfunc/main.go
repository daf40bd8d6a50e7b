package main

import (
	"fmt"

	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	keys, err := keyfunc.NewDefault([]string{"https://auth.example/keys"})
	if err != nil {
		return nil, err
	}
	text, _ := r.Bearer()
	claims := jwt.RegisteredClaims{}
	if _, err := jwt.ParseWithClaims(text, &claims, keys.Keyfunc); err != nil {
		return nil, fmt.Errorf("the token: %w", err)
	}
	return policy.Allow(claims.Subject), nil
}
