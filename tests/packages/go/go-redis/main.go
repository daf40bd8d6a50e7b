package main

import (
	"context"

	"github.com/redis/go-redis/v9"

	"tidegate/policy"
)

func init() { policy.Handle(decide) }

func main() {}

func decide(r *policy.Request) (*policy.Answer, error) {
	client := redis.NewClient(&redis.Options{Addr: "127.0.0.1:6379"})
	session, _ := r.Cookie("session")
	user, err := client.Get(context.Background(), "session:"+session).Result()
	if err != nil {
		return nil, err
	}
	return policy.Allow(user), nil
}
