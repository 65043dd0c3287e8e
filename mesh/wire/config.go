package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

// ErrConfig is returned for a configuration that cannot work.
var ErrConfig = errors.New("wire configuration")

// Directory knows where peers are. A peer it does not know is not dialled.
type Directory interface {
	// PeerAddrs returns the multiaddrs of a peer, without /p2p, and whether the
	// peer may be dialled at all. It must not block.
	PeerAddrs(id anchormesh.NodeID) ([]string, bool)
	// MeshID returns the mesh this node belongs to, zero if none yet.
	MeshID() anchormesh.MeshID
}

// Events report what happened; any field may be nil. The functions must not
// block and must not call Close.
type Events struct {
	PeerUp      func(id anchormesh.NodeID) // a connection, after there was none
	PeerDown    func(id anchormesh.NodeID) // the last connection ended
	ForeignMesh func(other anchormesh.MeshID, from anchormesh.NodeID)
}

// Config is what a Host needs.
type Config struct {
	Identity  Identity
	Key       meshkey.Key
	Boot      uint64    // drawn anew by every process; tells a restarted peer's connections from its old ones
	Listen    string    // multiaddr, TCP only
	Directory Directory // usually the gossip view
	Logger    *slog.Logger
	Events    Events
	Limits    Limits
}

// Limits are the bounds of everything that queues, waits or grows.
type Limits struct {
	FrameBytes int // a payload, in either direction; larger ones are refused (sending) or reset the stream (receiving)

	MessageBytes int // queued to one peer in one class; above it messages are dropped
	MessageCount int // likewise, in messages
	CallBytes    int // requests queued to one peer; above it ErrOverloaded
	CallCount    int // requests to one peer that wait for an answer; above it ErrOverloaded
	AnswerBytes  int // answers queued to one peer; above it the stream is reset, its callers see ErrUnknownOutcome

	Peers          int   // peers for which state is kept
	ConnsInbound   int   // open connections others made; further ones are closed at once
	ConnsOutbound  int   // open connections this node made
	ConnsPerPeer   int   // of either kind
	Handshakes     int   // connections not yet authenticated; further ones are closed at once
	StreamsPerConn int   // streams others opened; further ones are reset
	ClientBacklog  int   // client streams not yet accepted; further ones are reset
	WindowBytes    int   // receive window of a stream at its start, at least 256 KiB
	WindowBytesMax int   // to which it grows
	BufferBytes    int64 // receive windows of all connections together (reserved, not allocated)

	Pace
}

// Pace is how long things may take and when they are tried again.
type Pace struct {
	Handshake   time.Duration // from TCP connect to an authenticated connection, and from a new stream to its hello
	Dial        time.Duration // one attempt to reach a peer at all its addresses
	DialStagger time.Duration // after which the next address is tried beside the first
	Backoff     time.Duration // first pause after a failed dial; doubles
	BackoffMax  time.Duration
	KeepAlive   time.Duration // an idle connection is pinged this often and given up when one ping takes as long
	Idle        time.Duration // a spare connection without streams is closed after this
	Calm        time.Duration // a stream idle for so long may move to another connection: nothing of it is under way any more
}

// DefaultLimits suit machines of a few cores and meshes of up to a thousand
// nodes.
func DefaultLimits() Limits {
	return Limits{
		FrameBytes:     16 << 20, // a Raft append of the largest etcd request (1.5 MiB), batched
		MessageBytes:   16 << 20,
		MessageCount:   8192,
		CallBytes:      16 << 20,
		CallCount:      16384,
		AnswerBytes:    64 << 20,
		Peers:          4096, // the view's limit
		ConnsInbound:   4096,
		ConnsOutbound:  4096,
		ConnsPerPeer:   16, // two for messages and calls, one for bulk each way, and as many that are just dying
		Handshakes:     256,
		StreamsPerConn: 256,
		ClientBacklog:  64,
		WindowBytes:    1 << 20, // 1 Gbit/s at 8 ms
		WindowBytesMax: 16 << 20,
		BufferBytes:    64 << 30,
		Pace: Pace{
			Handshake:   5 * time.Second,
			Dial:        6 * time.Second,
			DialStagger: 250 * time.Millisecond,
			Backoff:     100 * time.Millisecond,
			BackoffMax:  5 * time.Second,
			KeepAlive:   4 * time.Second,
			Idle:        time.Minute,
			Calm:        5 * time.Second,
		},
	}
}

// Validate refuses limits that cannot work.
func (l Limits) Validate() error {
	for _, n := range []struct {
		name string
		v    int64
	}{
		{"FrameBytes", int64(l.FrameBytes)}, {"MessageBytes", int64(l.MessageBytes)},
		{"MessageCount", int64(l.MessageCount)}, {"CallBytes", int64(l.CallBytes)},
		{"CallCount", int64(l.CallCount)}, {"AnswerBytes", int64(l.AnswerBytes)},
		{"Peers", int64(l.Peers)}, {"ConnsInbound", int64(l.ConnsInbound)},
		{"ConnsOutbound", int64(l.ConnsOutbound)}, {"ConnsPerPeer", int64(l.ConnsPerPeer)},
		{"Handshakes", int64(l.Handshakes)}, {"StreamsPerConn", int64(l.StreamsPerConn)},
		{"ClientBacklog", int64(l.ClientBacklog)}, {"BufferBytes", l.BufferBytes},
		{"Handshake", int64(l.Handshake)}, {"Dial", int64(l.Dial)}, {"DialStagger", int64(l.DialStagger)},
		{"Backoff", int64(l.Backoff)}, {"KeepAlive", int64(l.KeepAlive)}, {"Idle", int64(l.Idle)}, {"Calm", int64(l.Calm)},
	} {
		if n.v <= 0 {
			return fmt.Errorf("%w: %s must be positive", ErrConfig, n.name)
		}
	}
	switch {
	case l.FrameBytes > 1<<30:
		return fmt.Errorf("%w: FrameBytes must be at most 1 GiB", ErrConfig)
	case l.WindowBytes < 256<<10:
		return fmt.Errorf("%w: WindowBytes must be at least 256 KiB", ErrConfig)
	case l.WindowBytesMax < l.WindowBytes:
		return fmt.Errorf("%w: WindowBytesMax is below WindowBytes", ErrConfig)
	case l.BackoffMax < l.Backoff:
		return fmt.Errorf("%w: BackoffMax is below Backoff", ErrConfig)
	}
	return nil
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Identity.key == nil:
		return fmt.Errorf("%w: no identity", ErrConfig)
	case c.Directory == nil:
		return fmt.Errorf("%w: no directory of peers", ErrConfig)
	}
	if err := c.Key.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if _, err := parseTCP(c.Listen); err != nil {
		return fmt.Errorf("%w: listen address: %w", ErrConfig, err)
	}
	return c.Limits.Validate()
}
