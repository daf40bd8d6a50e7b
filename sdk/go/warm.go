//go:build wasip1

package policy

import (
	"encoding/json"
	"fmt"

	"tidegate/policy/internal/host"
)

// Every instance is asked once, so whatever runs for the first time runs while a client waits. This has what most policies do run
// ahead of the request: it fills the allocator's size classes, grows a stack, and touches the code and the tables that will be used.
func init() {
	host.Warm = func() {
		request := host.Request{
			Method: "GET", Scheme: "https", Authority: "a", PathWithQuery: "/?channel=a",
			Channels: []string{"a"},
			Headers:  make([]host.Header, 16),
		}
		for i := range request.Headers {
			request.Headers[i] = host.Header{Name: "cookie", Value: []byte("a=b; c=d")}
		}
		answer(func(r *Request) (*Answer, error) {
			id, _ := r.Cookie("none")
			var session map[string]any
			_ = json.Unmarshal([]byte(`{"id":"a","role":"b","n":[1]}`), &session)
			return Allow(fmt.Sprintf("%s%v: %d", id, session["id"], len(r.Channels))), nil
		}, request)
	}
}
