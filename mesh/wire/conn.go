package wire

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"

	"github.com/anchormesh/anchormesh"
)

// conn is one authenticated connection, made by either side.
type conn struct {
	host     *Host
	tc       transport.CapableConn
	id       anchormesh.NodeID // of the peer, proved by TLS
	outbound bool
	made     time.Time
	ended    atomic.Bool
	boot     atomic.Uint64 // of the peer's process; zero until a hello or welcome said it
	streams  atomic.Int64  // bulk and client streams this side opened and still has
	lanes    atomic.Int64  // streams of messages and calls the peer opened and still has
	trunk    atomic.Pointer[trunk]
}

func (c *conn) dead() bool { return c.ended.Load() || c.tc.IsClosed() }

func (c *conn) close() { c.tc.Close() }

// serve accepts the peer's streams until the connection ends.
func (c *conn) serve() {
	for {
		s, err := c.tc.AcceptStream()
		if err != nil {
			break
		}
		if !c.host.spawn(func() { c.serveStream(s) }) {
			s.Reset()
		}
	}
	c.ended.Store(true)
	c.tc.Close()
	c.host.disown(c)
	if t := c.trunk.Load(); t != nil {
		t.remove(c)
	}
}

// serveStream finds out what a stream is for and serves it until it ends.
func (c *conn) serveStream(s network.MuxedStream) {
	s.SetDeadline(time.Now().Add(c.host.limits.Handshake))
	proto, _, err := c.host.protos.Negotiate(s)
	if err != nil {
		c.garbage(s, "protocol selection", err)
		return
	}
	if proto == ProtocolClients {
		s.SetDeadline(time.Time{})
		c.host.clients.offer(newStreamConn(s, c, c.host.clients.addr, nil))
		return
	}
	hi, err := readHello(s)
	if err != nil {
		c.garbage(s, "hello", err)
		return
	}
	w := c.check(proto == protocolBulk, hi)
	if _, err := s.Write(w.append(nil)); err != nil || w.status != statusOK {
		s.Close() // not Reset: the refusal must arrive
		return
	}
	s.SetDeadline(time.Time{})
	c.met(hi.boot)
	if proto == protocolBulk {
		c.host.bulkHandler(hi.name)(c.id, newStreamConn(s, c, c.host.clients.addr, nil))
		return
	}
	c.join(hi.boot)
	c.lanes.Add(1)
	defer c.lanes.Add(-1)
	if proto == protocolMessages {
		err = c.serveMessages(s, hi.class)
	} else {
		err = c.serveCalls(s)
	}
	if errors.Is(err, errFrame) {
		c.garbage(s, string(proto), err)
		return
	}
	s.Reset()
}

// check decides whether this node talks to the opener of a stream.
func (c *conn) check(bulk bool, hi hello) welcome {
	h := c.host
	w := welcome{version: helloVersion, boot: h.cfg.Boot}
	mine := h.cfg.Directory.MeshID()
	switch {
	case hi.version != helloVersion:
		w.status = statusVersion
		w.text = fmt.Sprintf("it speaks version %d of the stream protocol, this node version %d", helloVersion, hi.version)
		h.warn("version "+string(c.id), "refused a peer that speaks another version of the stream protocol",
			"peer", c.id, "theirs", hi.version, "ours", helloVersion)
	case hi.mesh != 0 && mine != 0 && hi.mesh != mine:
		w.status = statusMesh
		w.text = fmt.Sprintf("it belongs to mesh %v, this node to mesh %v, under one mesh key", mine, hi.mesh)
		h.foreign(hi.mesh, c.id)
	case bulk && h.bulkHandler(hi.name) == nil:
		w.status = statusHandler
		w.text = fmt.Sprintf("nothing serves bulk protocol %q there", hi.name)
	default:
		return w
	}
	h.counters.refused.Add(1)
	return w
}

// garbage ends a stream on which the peer broke the protocol. Only bytes that
// make no sense count: a stream that merely ends is no offence.
func (c *conn) garbage(s network.MuxedStream, where string, err error) {
	s.Reset()
	if errors.Is(err, io.EOF) || errors.Is(err, network.ErrReset) || c.dead() {
		return
	}
	c.host.counters.garbage.Add(1)
	c.host.warn("garbage "+string(c.id), "reset a stream on which a peer broke the protocol",
		"peer", c.id, "where", where, "error", err)
}

// join makes a connection the peer made usable for this node's own messages
// and calls: the peer showed that it is a node, not a client.
func (c *conn) join(boot uint64) {
	if c.trunk.Load() != nil {
		return
	}
	p, err := c.host.peer(c.id)
	if err != nil {
		return
	}
	p.main.add(c)
}

// met notes which process of the peer is at the other end.
func (c *conn) met(boot uint64) {
	if c.boot.Swap(boot) == boot {
		return
	}
	if t := c.trunk.Load(); t != nil {
		t.buryOthers(c)
	}
}
