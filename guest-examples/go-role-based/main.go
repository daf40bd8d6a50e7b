// A Tidegate policy with sessions, roles and teams.
package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"tidegate/policy"
)

func init() {
	policy.Handle(decide)
}

func main() {}

type user struct {
	id      string
	isAdmin bool
}

// Checks the session first. Then the first channel that the user may not read determines the rejection.
func decide(r *policy.Request) (*policy.Answer, error) {
	user, err := signIn(r)
	if err != nil {
		return nil, err
	}
	for _, channel := range r.Channels {
		if err := user.check(channel); err != nil {
			return nil, err
		}
	}
	return policy.Allow(user.id).WithReason(fmt.Sprintf("%s: %d channels", user.id, len(r.Channels))), nil
}

// signIn returns the user whose session the cookie names. The reasons do not contain the session's id.
func signIn(r *policy.Request) (*user, error) {
	session, _ := r.Cookie("session")
	if session == "" {
		return nil, policy.Reject(401, "Unauthorized").WithReason("no session")
	}
	record, _, err := policy.Get("session:" + session)
	if err != nil {
		return nil, err
	}
	user := readUser(record)
	if user == nil {
		return nil, policy.Reject(401, "Unauthorized").WithReason("unknown session")
	}
	return user, nil
}

// readUser parses {"id":"alice","role":"member"}. A session without an id is invalid; roles other than admin are ignored.
func readUser(record []byte) *user {
	// Not a struct, because its fields would match names case-insensitively.
	var session map[string]any
	if json.Unmarshal(record, &session) != nil {
		return nil
	}
	id, _ := session["id"].(string)
	if id == "" {
		return nil
	}
	return &user{id, session["role"] == "admin"}
}

// check returns a rejection if the user may not read the channel.
func (u *user) check(channel string) error {
	if channel == "default" {
		return nil
	}
	if strings.HasPrefix(channel, "admin-") {
		if u.isAdmin {
			return nil
		}
		return policy.Reject(403, "Admin access required").WithReason(u.id + " is not an admin")
	}
	if team, found := strings.CutPrefix(channel, "team-"); found {
		isMember, err := policy.SetContains("team:"+team+":members", u.id)
		if err != nil || isMember {
			return err
		}
		return policy.Reject(403, "Not a team member").WithReason(u.id + " is not in team " + team)
	}
	if channel == u.id || strings.HasPrefix(channel, u.id+"-") {
		return nil
	}
	return policy.Reject(403, "You can only access your own channels").WithReason(channel + " is not a channel of " + u.id)
}
