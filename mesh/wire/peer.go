package wire

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/anchormesh/anchormesh"
)

// peerState is what is kept of one peer: the connections to it and this node's
// own streams on them.
type peerState struct {
	host *Host
	id   anchormesh.NodeID
	pid  peer.ID
	main trunk // messages and calls
	bulk trunk // bulk and client streams, so that they hold nothing up

	ctx    context.Context // ends with the host or when the peer is forgotten
	cancel context.CancelFunc

	calls    *callLane
	messages [ClassMax + 1]atomic.Pointer[messageLane]
	makeMu   sync.Mutex // guards the making of message lanes

	up       atomic.Bool
	reportMu sync.Mutex // orders the reports of up
}

func newPeerState(h *Host, id anchormesh.NodeID, pid peer.ID) *peerState {
	p := &peerState{host: h, id: id, pid: pid}
	p.ctx, p.cancel = context.WithCancel(h.ctx)
	p.main = trunk{peer: p, keep: true}
	p.bulk = trunk{peer: p}
	p.calls = newCallLane(p)
	return p
}

func (p *peerState) stop() {
	p.cancel()
	p.main.closeAll()
	p.bulk.closeAll()
}

// idle reports whether nothing would be lost by forgetting the peer.
func (p *peerState) idle() bool {
	return !p.main.used() && !p.bulk.used() && p.calls.waiting() == 0
}

// messageLane returns the lane of a class, making it at first use.
func (p *peerState) messageLane(class Class) *messageLane {
	if l := p.messages[class].Load(); l != nil {
		return l
	}
	p.makeMu.Lock()
	defer p.makeMu.Unlock()
	if l := p.messages[class].Load(); l != nil {
		return l
	}
	l := newMessageLane(p, class)
	p.messages[class].Store(l)
	return l
}

// report tells the owner whether there is a connection, once per change.
func (p *peerState) report() {
	p.reportMu.Lock()
	defer p.reportMu.Unlock()
	up := p.main.used()
	if p.up.Swap(up) == up {
		return
	}
	f := p.host.cfg.Events.PeerDown
	if up {
		f = p.host.cfg.Events.PeerUp
	}
	if f != nil {
		f(p.id)
	}
}

// open opens a stream to the peer over t, connecting first if need be. Every
// error says that nothing was sent.
func (p *peerState) open(ctx context.Context, t *trunk, proto protocol.ID, hi hello) (*conn, network.MuxedStream, error) {
	c, err := t.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.host.limits.Handshake)
	defer cancel()
	s, err := c.tc.OpenStream(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: no stream to %s: %w", ErrUnreachable, p.id.Short(), err)
	}
	deadline, _ := ctx.Deadline()
	s.SetDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { s.SetDeadline(time.Unix(1, 0)) })
	hi.version, hi.boot, hi.mesh = helloVersion, p.host.cfg.Boot, p.host.cfg.Directory.MeshID()
	w, err := greet(s, proto, hi)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		s.Reset()
		return nil, nil, p.refused(err)
	}
	s.SetDeadline(time.Time{})
	c.met(w.boot)
	return c, s, nil
}

// refused names the peer in the error of a stream that did not open.
func (p *peerState) refused(err error) error {
	switch {
	case errors.Is(err, ErrRefused):
		p.host.counters.refused.Add(1)
		p.host.warn("refused "+string(p.id), "a peer refused our streams", "peer", p.id, "error", err)
		return fmt.Errorf("%s: %w", p.id.Short(), err)
	case errors.Is(err, ErrNoHandler):
		return fmt.Errorf("%s: %w", p.id.Short(), err)
	}
	return fmt.Errorf("%w: no stream to %s: %w", ErrUnreachable, p.id.Short(), err)
}

// sweep closes what is spare: see trunk.spare.
func (p *peerState) sweep(now time.Time) {
	best := p.main.best()
	p.calls.moveTo(best, now)
	for i := range p.messages {
		if l := p.messages[i].Load(); l != nil {
			l.moveTo(best, now)
		}
	}
	p.main.closeSpare(now, func(c *conn) bool {
		return c != best && c.lanes.Load() == 0 && !p.uses(c)
	})
	p.bulk.closeSpare(now, func(c *conn) bool { return c.streams.Load() == 0 })
}

// uses reports whether one of this side's lanes is on c.
func (p *peerState) uses(c *conn) bool {
	if p.calls.on(c) {
		return true
	}
	for i := range p.messages {
		if l := p.messages[i].Load(); l != nil && l.on(c) {
			return true
		}
	}
	return false
}
