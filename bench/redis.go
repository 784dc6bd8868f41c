//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
)

// redisServer starts a Redis without persistence.
func (l *lab) redisServer() (*process, string, error) {
	address := l.address()
	_, port, _ := net.SplitHostPort(address)
	p, err := l.start("redis", nil, "redis-server", "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if err != nil {
		return nil, "", err
	}
	return p, address, l.await(10*time.Second, func() error {
		client := redis.NewClient(&redis.Options{Addr: address, DisableIdentity: true})
		defer client.Close()
		return client.Ping(l.ctx).Err()
	})
}

// fillRoom puts visitors where the Lua room looks for them: the first ones inside, the others in the queue.
func (l *lab) fillRoom(address string, active, waiting int) error {
	client := redis.NewClient(&redis.Options{Addr: address, DisableIdentity: true, ReadTimeout: time.Minute, WriteTimeout: time.Minute})
	defer client.Close()
	ctx, cancel := context.WithTimeout(l.ctx, 2*time.Minute)
	defer cancel()
	now := float64(time.Now().Unix())
	const together = 10_000
	for first := 0; first < active; first += together {
		var members []redis.Z
		for i := first; i < min(first+together, active); i++ {
			members = append(members, redis.Z{Score: now, Member: string(visitorToken(i).AppendText(nil))})
		}
		if err := client.ZAdd(ctx, "wr:active", members...).Err(); err != nil {
			return fmt.Errorf("fill the Lua room: %w", err)
		}
	}
	for first := active; first < active+waiting; first += together {
		var members []any
		for i := first; i < min(first+together, active+waiting); i++ {
			members = append(members, visitorToken(i).AppendText(nil))
		}
		if err := client.RPush(ctx, "wr:queue", members...).Err(); err != nil {
			return fmt.Errorf("fill the Lua room: %w", err)
		}
	}
	return nil
}
