// A Tidegate policy that allows users their own channels.
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

// The reasons do not contain the session's id.
func decide(r *policy.Request) (*policy.Answer, error) {
	session, _ := r.Cookie("session")
	if session == "" {
		return policy.Reject(401, "Unauthorized").WithReason("no session"), nil
	}
	record, _, err := policy.Get("session:" + session)
	if err != nil {
		return nil, err
	}
	id := userOf(record)
	if id == "" {
		return policy.Reject(401, "Unauthorized").WithReason("unknown session"), nil
	}
	for _, channel := range r.Channels {
		if channel != "default" && channel != id && !strings.HasPrefix(channel, id+"-") {
			return policy.Reject(403, "You can only access your own channels").
				WithReason(channel + " is not a channel of " + id), nil
		}
	}
	return policy.Allow(id).WithReason(fmt.Sprintf("%s: %d channels", id, len(r.Channels))), nil
}

// userOf parses the id in {"id":"alice"}. A session without an id is invalid.
func userOf(record []byte) string {
	// Not a struct, because its fields would match names case-insensitively.
	var session map[string]any
	if json.Unmarshal(record, &session) != nil {
		return ""
	}
	id, _ := session["id"].(string)
	return id
}
