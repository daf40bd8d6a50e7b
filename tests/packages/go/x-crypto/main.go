package main

import (
	"crypto/subtle"
	"encoding/hex"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

// An API key, of which the store has a hash.
func decide(r *policy.Request) (*policy.Answer, error) {
	key := []byte(r.Header.Get("x-api-key"))
	stored, _, err := policy.HashGet("key:alice", "bcrypt")
	if err != nil {
		return nil, err
	}
	if bcrypt.CompareHashAndPassword(stored, key) != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason("bcrypt")
	}
	stored, _, err = policy.HashGet("key:alice", "argon2id")
	if err != nil {
		return nil, err
	}
	hash := hex.EncodeToString(argon2.IDKey(key, []byte("saltsaltsaltsalt"), 1, 8<<10, 1, 32))
	if subtle.ConstantTimeCompare([]byte(hash), stored) != 1 {
		return nil, policy.Reject(401, "Unauthorized").WithReason("argon2")
	}
	return policy.Allow("alice"), nil
}
