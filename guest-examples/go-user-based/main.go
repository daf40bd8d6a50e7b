// A Tidegate policy: a user reads what everybody reads, and the channels that begin with the user's id.
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

// A reason never holds the session's id.
func decide(r *policy.Request) (*policy.Answer, error) {
	session, _ := r.Cookie("session")
	if session == "" {
		return policy.Reject(401, "Unauthorized").Because("no session"), nil
	}
	record, _, err := policy.Get("session:" + session)
	if err != nil {
		return nil, err
	}
	id := userOf(record)
	if id == "" {
		return policy.Reject(401, "Unauthorized").Because("unknown session"), nil
	}
	for _, channel := range r.Channels {
		if channel != "default" && channel != id && !strings.HasPrefix(channel, id+"-") {
			return policy.Reject(403, "You can only access your own channels").
				Because(channel + " is not a channel of " + id), nil
		}
	}
	return policy.Allow(id).Because(fmt.Sprintf("%s: %d channels", id, len(r.Channels))), nil
}

// userOf reads the id in {"id":"alice"}; without one it is no session.
func userOf(record []byte) string {
	// Not a struct: its fields would match names in any case.
	var session map[string]any
	if json.Unmarshal(record, &session) != nil {
		return ""
	}
	id, _ := session["id"].(string)
	return id
}
