package main

import (
	"context"

	"github.com/coreos/go-oidc/v3/oidc"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	provider, err := oidc.NewProvider(context.Background(), "https://auth.example")
	if err != nil {
		return nil, err
	}
	text, _ := r.Bearer()
	token, err := provider.Verifier(&oidc.Config{ClientID: "app"}).Verify(context.Background(), text)
	if err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	return policy.Allow(token.Subject), nil
}
