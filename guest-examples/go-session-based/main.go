// A Tidegate policy: whoever has a session may read everything.
package main

import (
	"encoding/json"
	"fmt"

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
