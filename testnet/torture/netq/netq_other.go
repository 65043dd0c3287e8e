//go:build !linux

package netq

import (
	"errors"
	"time"
)

// Quality is how bad a network is, for each packet.
type Quality struct {
	Delay   time.Duration
	Jitter  time.Duration // on top of Delay, 0 to Jitter
	Percent int           // lost
}

// Queue exists on Linux only.
type Queue struct{}

// Rules are none.
func Rules() [][]string { return nil }

// Open fails: there is no such queue here.
func Open(int, Quality, uint64) (*Queue, error) {
	return nil, errors.New("netq: packet queues are Linux's")
}

// Close does nothing.
func (q *Queue) Close() {}
