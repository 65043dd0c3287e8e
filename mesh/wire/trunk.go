package wire

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// trunk is the set of connections to one peer for one use, and the making of
// them: one dial at a time, with a pause that doubles after every failure.
//
// Two nodes that dial each other at once end up with two connections. Both
// serve. Each side then moves its own idle streams to the one that the node
// with the smaller ID made, and the other is closed by its maker when no stream
// is left on it; nothing in flight is touched.
type trunk struct {
	peer *peerState
	keep bool // dial again by itself when the last connection ended

	mu       sync.Mutex
	conns    []*conn // oldest first
	dialing  *dialing
	failures int
	retryAt  time.Time
	lastErr  error
	redial   *time.Timer

	spareAt time.Time // when a connection was first seen spare; only the sweeper's
}

// dialing is one dial and those who wait for it.
type dialing struct {
	done chan struct{}
	conn *conn
	err  error
}

// connect returns a connection, made by either side, dialling if there is none.
// While a failed dial's pause lasts it fails at once.
func (t *trunk) connect(ctx context.Context) (*conn, error) {
	t.mu.Lock()
	if c := t.bestLocked(); c != nil {
		t.mu.Unlock()
		return c, nil
	}
	d := t.dialing
	if d == nil {
		var err error
		if d, err = t.dialLocked(); err != nil {
			t.mu.Unlock()
			return nil, err
		}
	}
	t.mu.Unlock()
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, t.peer.id.Short(), ctx.Err())
	}
}

// dialLocked begins a dial, if one may begin now.
func (t *trunk) dialLocked() (*dialing, error) {
	p := t.peer
	if now := time.Now(); now.Before(t.retryAt) {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, p.id.Short(), t.lastErr)
	}
	addrs, ok := p.host.cfg.Directory.PeerAddrs(p.id)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not in the view", ErrUnreachable, p.id.Short())
	}
	d := &dialing{done: make(chan struct{})}
	if !p.host.spawn(func() { t.dial(d, addrs) }) {
		return nil, ErrClosed
	}
	t.dialing = d
	return d, nil
}

func (t *trunk) dial(d *dialing, addrs []string) {
	p := t.peer
	tc, err := p.host.end.dial(p.ctx, p.pid, addrs)
	var c *conn
	if err == nil {
		p.host.counters.dialled.Add(1)
		c = &conn{host: p.host, tc: tc, id: p.id, outbound: true, made: time.Now()}
		c.trunk.Store(t)
		if !p.host.adopt(c) {
			tc.Close()
			c, err = nil, ErrClosed
		}
	}
	if c != nil {
		t.add(c)
		d.conn = c
	} else {
		d.err = fmt.Errorf("%w: %s: %w", ErrUnreachable, p.id.Short(), err)
	}
	t.mu.Lock()
	t.dialing = nil
	if err != nil {
		t.failedLocked(err)
	}
	t.mu.Unlock()
	close(d.done)
}

// quietFailures in a row, about three seconds, are not spoken of: a peer that
// stops in order closes its port before the news that it left has come round.
const quietFailures = 5

// failedLocked begins the pause after a failed dial.
func (t *trunk) failedLocked(err error) {
	h := t.peer.host
	h.counters.dialFailed.Add(1)
	if t.failures >= quietFailures && !errors.Is(err, context.Canceled) {
		h.warn("dial "+string(t.peer.id), "cannot reach a peer", "peer", t.peer.id, "error", err)
	}
	pause := backoff(h.limits, t.failures)
	t.failures++
	t.retryAt, t.lastErr = time.Now().Add(pause), err
	t.redialLocked(pause)
}

// backoff is the pause after the n-th failure in a row (from zero), with a
// quarter of jitter so that a mesh does not dial in step.
func backoff(l Limits, n int) time.Duration {
	pause := l.BackoffMax
	if n < 20 {
		pause = min(l.Backoff<<n, l.BackoffMax)
	}
	return pause - rand.N(pause/4+1)
}

// redialLocked arranges for a dial without being asked.
func (t *trunk) redialLocked(pause time.Duration) {
	if !t.keep || len(t.conns) > 0 {
		return
	}
	p := t.peer
	if p.id < p.host.cfg.Identity.id {
		pause += p.host.limits.Backoff // the smaller ID's connection is the one to stay
	}
	if t.redial != nil {
		t.redial.Stop()
	}
	t.redial = time.AfterFunc(pause, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if p.ctx.Err() == nil && t.bestLocked() == nil && t.dialing == nil {
			t.dialLocked() // if it may not begin, the next use or Refresh begins it
		}
	})
}

// refresh ends the pause: there is news of the peer.
func (t *trunk) refresh() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failures, t.retryAt = 0, time.Time{}
	if t.keep && t.lastErr != nil && t.dialing == nil && t.bestLocked() == nil {
		t.dialLocked()
	}
}

// add takes a connection in. A peer that makes a second connection has lost the
// first one it made, whether or not we noticed.
func (t *trunk) add(c *conn) {
	var lost []*conn
	t.mu.Lock()
	if c.outbound || c.trunk.CompareAndSwap(nil, t) {
		for _, old := range t.conns {
			if !c.outbound && !old.outbound && old.made.Before(c.made) {
				lost = append(lost, old)
			}
		}
		t.conns = append(t.conns, c)
		t.failures, t.retryAt, t.lastErr = 0, time.Time{}, nil
	}
	ended := c.ended.Load()
	t.mu.Unlock()
	closeConns(lost)
	if ended { // before it was added, so that nobody removes it
		t.remove(c)
		return
	}
	t.buryOthers(c)
	t.peer.report()
}

func (t *trunk) remove(c *conn) {
	t.mu.Lock()
	t.conns = slices.DeleteFunc(t.conns, func(o *conn) bool { return o == c })
	if t.peer.ctx.Err() == nil {
		t.redialLocked(0)
	}
	t.mu.Unlock()
	t.peer.report()
}

// buryOthers closes older connections to another process of the same peer: it
// was restarted, and its old connections may look alive until they time out.
func (t *trunk) buryOthers(c *conn) {
	boot := c.boot.Load()
	if boot == 0 {
		return
	}
	var old []*conn
	t.mu.Lock()
	for _, o := range t.conns {
		if b := o.boot.Load(); b != 0 && b != boot && o.made.Before(c.made) {
			old = append(old, o)
		}
	}
	t.mu.Unlock()
	closeConns(old)
}

// bestLocked chooses the connection to use: one made by the node with the
// smaller ID before one made by the other, then the newest.
func (t *trunk) bestLocked() *conn {
	var best *conn
	for _, c := range t.conns {
		if !c.dead() && (best == nil || t.favoured(c) || !t.favoured(best)) {
			best = c
		}
	}
	return best
}

func (t *trunk) favoured(c *conn) bool {
	return c.outbound == (t.peer.host.cfg.Identity.id < t.peer.id)
}

func (t *trunk) best() *conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bestLocked()
}

// used reports whether there is a connection.
func (t *trunk) used() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.conns) > 0
}

// closeSpare closes a connection this side made that spare says is not needed,
// when that was so for a while.
func (t *trunk) closeSpare(now time.Time, spare func(*conn) bool) {
	t.mu.Lock()
	conns := slices.Clone(t.conns)
	t.mu.Unlock()
	i := slices.IndexFunc(conns, func(c *conn) bool { return c.outbound && spare(c) })
	switch {
	case i < 0:
		t.spareAt = time.Time{}
	case t.spareAt.IsZero():
		t.spareAt = now
	case now.Sub(t.spareAt) >= t.peer.host.limits.Idle:
		conns[i].close()
		t.spareAt = time.Time{}
	}
}

func (t *trunk) closeAll() {
	t.mu.Lock()
	if t.redial != nil {
		t.redial.Stop()
	}
	conns := slices.Clone(t.conns)
	t.mu.Unlock()
	closeConns(conns)
}

// closeConns is called without locks: closing waits for what is being written.
func closeConns(conns []*conn) {
	for _, c := range conns {
		c.close()
	}
}
