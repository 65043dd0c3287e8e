package wire

import (
	"errors"
	"io"
	"runtime"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
)

var errConnEnded = errors.New("the connection ended")

// lane is this side's end of one long-lived stream to one peer: an outbox whose
// owner opens the stream when there is something to write, and again after it
// broke. The owner goroutine exists from the first frame on.
//
// What a broken stream means for the frames, written or not, differs between
// messages and calls, so each has its own type around it.
type lane struct {
	outbox
	peer  *peerState
	proto protocol.ID
	class Class

	// Guarded by outbox.mu.
	running   bool
	conn      *conn // of the open stream, nil without one
	stream    network.MuxedStream
	opened    time.Time
	used      time.Time // last seen with something queued, written or awaited
	failures  int
	downUntil time.Time // no stream is opened before
	downErr   error
}

// startLocked makes sure that the owner runs. False after the peer was given
// up: nobody would ever take what is queued.
func (l *lane) startLocked(owner interface{ run() }) bool {
	if l.peer.ctx.Err() != nil {
		return false
	}
	if !l.running {
		l.running = l.peer.host.spawn(owner.run)
	}
	return l.running
}

// openLocked reports whether there is a stream on a live connection.
func (l *lane) openLocked() bool { return l.stream != nil && !l.conn.dead() }

// down reports whether frames queued now would have nowhere to go for a while.
func (l *lane) downLocked() bool { return l.stream == nil && time.Now().Before(l.downUntil) }

// wait blocks until there is work. False means the peer was given up.
func (l *lane) wait() bool {
	select {
	case <-l.wake:
		// Let those who are about to queue something do so first: the more
		// frames in one write the cheaper each.
		runtime.Gosched()
		return true
	case <-l.peer.ctx.Done():
		return false
	}
}

// ensure opens the stream if there is none. A stream on a dead connection is
// ended first, through broke, so that what it carried is settled before
// anything goes over the next one.
func (l *lane) ensure(broke func(io.Writer, error), opened func(network.MuxedStream)) error {
	l.mu.Lock()
	open, stale := l.openLocked(), l.w
	down, err := l.downLocked(), l.downErr
	l.mu.Unlock()
	switch {
	case open:
		return nil
	case stale != nil:
		broke(stale, errConnEnded)
	case down:
		return err
	}
	c, s, err := l.peer.open(l.peer.ctx, &l.peer.main, l.proto, hello{class: l.class})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.pauseLocked(err)
		return err
	}
	l.conn, l.stream, l.w = c, s, s
	l.opened = time.Now()
	l.downUntil, l.downErr = time.Time{}, nil
	opened(s)
	return nil
}

// closedLocked forgets the stream w, if it is still the lane's. A stream that
// ends soon after it began was refused in its way: the next one waits.
func (l *lane) closedLocked(w io.Writer, err error) bool {
	if l.w != w || w == nil {
		return false
	}
	if time.Since(l.opened) < time.Second && !l.conn.dead() {
		l.pauseLocked(err)
	} else {
		l.failures = 0
	}
	l.stream.Reset()
	l.conn, l.stream, l.w = nil, nil, nil
	return true
}

// pauseLocked puts off the next attempt to open the stream.
func (l *lane) pauseLocked(err error) {
	l.downUntil, l.downErr = time.Now().Add(backoff(l.peer.host.limits, l.failures)), err
	l.failures++
}

// on reports whether the lane's stream is on c.
func (l *lane) on(c *conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn == c
}

// calmLocked reports whether the lane may change its connection to best: there
// is a better one, and it has been idle for long enough.
func (l *lane) calmLocked(best *conn, now time.Time, awaited bool) bool {
	if l.busy || l.count > 0 || awaited {
		l.used = now
	}
	if best == nil || l.conn == nil || l.conn == best {
		return false
	}
	calm := l.peer.host.limits.Calm
	return now.Sub(l.used) >= calm && now.Sub(l.opened) >= calm
}
