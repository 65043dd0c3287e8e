package meshtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/gossip"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// Send is as the mesh's. A message lost or cut off is taken, as by a network.
func (n *Node) Send(to anchormesh.NodeID, class mesh.Class, parts ...[]byte) bool {
	if !n.knows(to) || n.net.node(to) == nil {
		return false
	}
	f := n.net.fate(n.id, to)
	if f.lost {
		return true
	}
	payload := bytes.Join(parts, nil)
	boot := n.self().Boot
	return n.net.pipe(n.id, to).put(f.delay, func() {
		if peer := n.net.node(to); peer != nil && !n.net.Link(n.id, to).Cut && n.lives(boot) {
			peer.takeMessage(n.id, class, payload)
		}
	})
}

// Tell is as the mesh's. News take the way of messages, and who finds them new
// tells them on.
func (n *Node) Tell(news []byte) error {
	if len(news) > gossip.NewsBytesMax {
		return mesh.ErrNewsTooLarge
	}
	n.passOn(bytes.Clone(news))
	return nil
}

func (n *Node) passOn(news []byte) {
	n.net.mu.Lock()
	others := n.net.othersLocked(n.id)
	n.net.mu.Unlock()
	boot := n.self().Boot
	for _, o := range others {
		f := n.net.fate(n.id, o.id)
		if f.lost {
			continue
		}
		n.net.pipe(n.id, o.id).put(f.delay, func() {
			if peer := n.net.node(o.id); peer != nil && !n.net.Link(n.id, o.id).Cut && n.lives(boot) {
				peer.takeNews(news)
			}
		})
	}
}

func (n *Node) takeNews(news []byte) {
	n.mu.Lock()
	h := n.news
	if n.closed {
		h = nil
	}
	n.mu.Unlock()
	if h == nil {
		return
	}
	if _, newer := h(bytes.Clone(news)); newer {
		n.passOn(news)
	}
}

// lives reports whether the process that sent something still runs: what it
// had under way ends with it.
func (n *Node) lives(boot uint64) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.closed && n.member.Boot == boot
}

func (n *Node) takeMessage(from anchormesh.NodeID, class mesh.Class, payload []byte) {
	n.mu.Lock()
	h := n.messages[class]
	if n.closed {
		h = nil
	}
	n.mu.Unlock()
	if h != nil {
		h(from, payload)
	}
}

// Call is as the mesh's.
func (n *Node) Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if !n.knows(to) || !n.net.connected(n.id, to) {
		return nil, fmt.Errorf("%w: %s", mesh.ErrUnreachable, to)
	}
	payload := bytes.Join(parts, nil)
	p := &pending{to: to, done: make(chan outcome, 1)}
	n.mu.Lock()
	n.nextCall++
	id := n.nextCall
	n.pending[id] = p
	n.mu.Unlock()
	deadline, _ := ctx.Deadline()
	n.request(to, id, method, payload, deadline)
	select {
	case out := <-p.done:
		return out.payload, out.err
	case <-ctx.Done():
		n.mu.Lock()
		delete(n.pending, id)
		n.mu.Unlock()
		return nil, ctx.Err()
	}
}

// request sends a request and arranges for its answer.
func (n *Node) request(to anchormesh.NodeID, id uint64, method uint8, payload []byte, deadline time.Time) {
	f := n.net.fate(n.id, to)
	if f.early {
		n.finish(id, outcome{err: fmt.Errorf("%w: %s", mesh.ErrUnknownOutcome, to)})
		return
	}
	back := &answerer{caller: n, from: to, id: id, broken: f.late}
	ok := n.net.pipe(n.id, to).put(f.delay, func() {
		if peer := n.net.node(to); peer != nil && n.net.connected(n.id, to) {
			peer.takeCall(n.id, method, payload, wire.NewResponder(back, id, deadline))
		}
	})
	if !ok {
		n.finish(id, outcome{err: fmt.Errorf("%w: %s", mesh.ErrOverloaded, to)})
	}
}

func (n *Node) takeCall(from anchormesh.NodeID, method uint8, payload []byte, r mesh.Responder) {
	n.mu.Lock()
	h := n.calls[method]
	closed := n.closed
	n.mu.Unlock()
	switch {
	case closed:
	case h == nil:
		r.Fail(codeNoHandler, "no handler")
	default:
		h(from, payload, r)
	}
}

const codeNoHandler = 0xff01

// answerer carries one answer back.
type answerer struct {
	caller *Node
	from   anchormesh.NodeID
	id     uint64
	broken bool
}

// Answer implements wire.Answerer.
func (a *answerer) Answer(id uint64, code uint16, parts [][]byte) {
	n := a.caller
	payload := bytes.Join(parts, nil)
	if a.broken {
		n.finish(id, outcome{err: fmt.Errorf("%w: %s", mesh.ErrUnknownOutcome, a.from)})
		return
	}
	f := n.net.fate(a.from, n.id)
	n.net.pipe(a.from, n.id).put(f.delay, func() {
		if !n.net.connected(n.id, a.from) {
			return // whoever cut the link ended the call
		}
		switch code {
		case 0:
			n.finish(id, outcome{payload: payload})
		case codeNoHandler:
			n.finish(id, outcome{err: fmt.Errorf("%w: %s", mesh.ErrNoHandler, a.from)})
		default:
			n.finish(id, outcome{err: &mesh.RemoteError{Code: code, Text: string(payload)}})
		}
	})
}

func (n *Node) finish(id uint64, out outcome) {
	n.mu.Lock()
	p := n.pending[id]
	delete(n.pending, id)
	n.mu.Unlock()
	if p != nil {
		p.done <- out
	}
}

// OpenBulk is as the mesh's.
func (n *Node) OpenBulk(ctx context.Context, to anchormesh.NodeID, protocol string) (mesh.BulkStream, error) {
	mine, theirs, peer, err := n.stream(ctx, to)
	if err != nil {
		return nil, err
	}
	peer.mu.Lock()
	h := peer.bulk[protocol]
	if h != nil && !peer.closed {
		peer.handlers.Go(func() { h(n.id, theirs) })
	}
	peer.mu.Unlock()
	if h == nil {
		mine.Reset()
		theirs.Reset()
		return nil, fmt.Errorf("%w: %s", mesh.ErrNoHandler, protocol)
	}
	return mine, nil
}

// DialClient is as the mesh's.
func (n *Node) DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error) {
	mine, theirs, peer, err := n.stream(ctx, to)
	if err != nil {
		return nil, err
	}
	if !peer.clients.offer(theirs) {
		mine.Reset()
		theirs.Reset()
		return nil, fmt.Errorf("%w: %s", mesh.ErrUnreachable, to)
	}
	return mine, nil
}

// stream makes both ends of a stream.
func (n *Node) stream(ctx context.Context, to anchormesh.NodeID) (mine, theirs *duplex, peer *Node, err error) {
	peer = n.net.node(to)
	if err := ctx.Err(); err != nil {
		return nil, nil, nil, err
	}
	if peer == nil || !n.knows(to) || !n.net.connected(n.id, to) {
		return nil, nil, nil, fmt.Errorf("%w: %s", mesh.ErrUnreachable, to)
	}
	mine, theirs = newDuplex(n, peer)
	n.track(mine, to)
	peer.track(theirs, n.id)
	return mine, theirs, peer, nil
}

func (n *Node) track(s *duplex, to anchormesh.NodeID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.streams[s] = to
}

func (n *Node) untrack(s *duplex) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.streams, s)
}
