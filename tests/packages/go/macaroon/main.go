package main

import (
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"gopkg.in/macaroon.v2"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	text, _ := r.Bearer()
	bytes, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason("not base64")
	}
	var token macaroon.Macaroon
	if err := token.UnmarshalBinary(bytes); err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason("not a macaroon")
	}
	secret, _ := policy.Setting("SECRET")
	check := func(caveat string) error { return holds(caveat, r.Channels) }
	if err := token.Verify([]byte(secret), check, nil); err != nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason(err.Error())
	}
	return policy.Allow(string(token.Id())), nil
}

func holds(caveat string, channels []string) error {
	if channel, found := strings.CutPrefix(caveat, "channel = "); found {
		if slices.Equal(channels, []string{channel}) {
			return nil
		}
		return errors.New("not for this channel")
	}
	if text, found := strings.CutPrefix(caveat, "time < "); found {
		end, err := time.Parse(time.RFC3339, text)
		if err == nil && time.Now().Before(end) {
			return nil
		}
		return errors.New("expired")
	}
	return errors.New("unknown caveat")
}
