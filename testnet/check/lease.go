package check

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrLeaseEarly: a lease ended before the time that a client was promised.
	ErrLeaseEarly = errors.New("lease ended before its promise")
	// ErrLeaseUndead: a keep-alive sent after the end of a lease was answered as if
	// it lived.
	ErrLeaseUndead = errors.New("lease was renewed after its end")
	// ErrLeaseForever: a lease that nobody renewed did not end.
	ErrLeaseForever = errors.New("lease does not end")
)

// LeaseBounds says how exact clocks were.
type LeaseBounds struct {
	// Early is how much before its promise a lease may end: what the leader's
	// clock gains on the clients' in the longest TTL, plus what it jumped.
	Early time.Duration
	// Late is how long after its promise a lease may live: the time without a
	// leader, and a whole TTL more for each new one.
	Late time.Duration
}

// life is what is known of one lease.
type life struct {
	promise time.Duration // not to end before
	ended   time.Duration // 0: not yet
}

// Leases judges what happened to leases, in the order of At. A promise counts from
// the moment in which the request was sent: no client may rely on more. Until is
// the end of the run.
func Leases(list []Lease, until time.Duration, bounds LeaseBounds) error {
	lives := make(map[int64]*life)
	var order []int64
	for _, l := range list {
		at, sent := time.Duration(l.At), time.Duration(l.Sent)
		v := lives[l.ID]
		if v == nil {
			v = &life{}
			lives[l.ID] = v
			order = append(order, l.ID)
		}
		switch l.What {
		case Grant, Renew:
			if v.ended != 0 && sent > v.ended {
				return fmt.Errorf("%w: %x ended at %v, asked at %v, answered at %v with a TTL of %d s", ErrLeaseUndead, l.ID, v.ended, sent, at, l.TTL)
			}
			v.promise = max(v.promise, sent+time.Duration(l.TTL)*time.Second)
		case Revoke:
			v.ended = at
		case Expire:
			if at+bounds.Early < v.promise {
				return fmt.Errorf("%w: %x ended at %v, was promised until %v", ErrLeaseEarly, l.ID, at, v.promise)
			}
			v.ended = at
		}
	}
	for _, id := range order {
		if v := lives[id]; v.ended == 0 && v.promise != 0 && v.promise+bounds.Late < until {
			return fmt.Errorf("%w: %x was promised until %v, and lives at %v", ErrLeaseForever, id, v.promise, until)
		}
	}
	return nil
}
