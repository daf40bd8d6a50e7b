package main

import (
	_ "embed"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

//go:embed model.conf
var rules string

func decide(r *policy.Request) (*policy.Answer, error) {
	model, err := model.NewModelFromString(rules)
	if err != nil {
		return nil, err
	}
	enforcer, err := casbin.NewEnforcer(model)
	if err != nil {
		return nil, err
	}
	if _, err := enforcer.AddPolicies([][]string{{"member", "room-*"}, {"admin", "*"}}); err != nil {
		return nil, err
	}
	if _, err := enforcer.AddGroupingPolicies([][]string{{"alice", "member"}, {"root", "admin"}}); err != nil {
		return nil, err
	}
	user := r.Header.Get("x-user")
	for _, channel := range r.Channels {
		allowed, err := enforcer.Enforce(user, channel)
		if err != nil {
			return nil, err
		}
		if !allowed {
			return nil, policy.Reject(403, "Forbidden").WithReason(channel)
		}
	}
	return policy.Allow(user), nil
}
