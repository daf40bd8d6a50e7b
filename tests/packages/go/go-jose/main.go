package main

import (
	"crypto/sha256"
	"encoding/json"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

// An encrypted session, as Auth.js and others make it.
func decide(r *policy.Request) (*policy.Answer, error) {
	cookie, _ := r.Cookie("session")
	secret, _ := policy.Setting("SECRET")
	key := sha256.Sum256([]byte(secret))
	token, err := jose.ParseEncrypted(cookie, []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	text, err := token.Decrypt(key[:])
	if err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	var claims jwt.Claims
	if err := json.Unmarshal(text, &claims); err != nil {
		return nil, policy.Reject(401, "Unauthorized")
	}
	if err := claims.ValidateWithLeeway(jwt.Expected{Time: time.Now()}, 0); err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	return policy.Allow(claims.Subject), nil
}
