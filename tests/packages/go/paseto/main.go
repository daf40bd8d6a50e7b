package main

import (
	"crypto/sha256"
	"time"

	"github.com/o1egl/paseto"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	text, _ := r.Bearer()
	secret, _ := policy.Setting("SECRET")
	key := sha256.Sum256([]byte(secret))
	var token paseto.JSONToken
	if err := paseto.NewV2().Decrypt(text, key[:], &token, nil); err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	if err := token.Validate(paseto.ForAudience("app"), paseto.ValidAt(time.Now())); err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	answer := policy.Allow(token.Subject)
	answer.Expires = token.Expiration
	return answer, nil
}
