// Follows a stream with r3labs/sse, which reconnects by itself, and prints the data of each message as a JSON string on a line.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/r3labs/sse/v2"
)

func main() {
	client := sse.NewClient(os.Args[1])
	err := client.SubscribeRaw(func(message *sse.Event) {
		line, err := json.Marshal(string(message.Data))
		if err != nil {
			panic(err)
		}
		fmt.Println(string(line))
	})
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
