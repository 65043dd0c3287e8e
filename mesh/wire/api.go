package wire

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Class separates one-way messages that must not wait for each other. Every
// class has its own stream and its own queue per peer. What a class carries is
// the user's business; 0 to ClassMax are valid.
type Class uint8

// ClassMax is the highest class.
const ClassMax Class = 7

// ProtocolClients is the libp2p protocol over which the etcd API is served.
const ProtocolClients = "/anchormesh/etcd/1"

var (
	// ErrUnreachable is returned when a request was certainly not delivered:
	// the peer is unknown, or no connection to it could be made in time.
	ErrUnreachable = errors.New("peer is unreachable")
	// ErrUnknownOutcome is returned when a request was handed to a connection
	// that ended before the answer came: the peer may have acted on it.
	ErrUnknownOutcome = errors.New("connection ended before the answer came")
	// ErrOverloaded is returned at once when the queue of requests to a peer
	// is full. The request was not sent.
	ErrOverloaded = errors.New("too many requests wait for this peer")
	// ErrTooLarge is returned for a payload above the limit. It was not sent.
	ErrTooLarge = errors.New("payload exceeds the frame limit")
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("mesh is closed")
	// ErrNoHandler is returned when the peer does not serve the method or
	// protocol asked for.
	ErrNoHandler = errors.New("peer has no handler for this")
	// ErrRefused is returned when the peer answered but will not talk: another
	// protocol version, another mesh.
	ErrRefused = errors.New("peer refused the stream")
)

// RemoteError is the answer of a handler that failed.
type RemoteError struct {
	Code uint16 // what the caller may switch on; meaning is the method's
	Text string
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("remote error %d: %s", e.Code, e.Text)
}

// MessageHandler takes one message. The payload belongs to the handler. It is
// called in the order of sending, from one goroutine per connection and class;
// while it blocks, no other message of that peer and class is taken.
type MessageHandler func(from anchormesh.NodeID, payload []byte)

// CallHandler takes one request. The payload belongs to the handler. It is
// called in the order of sending, from one goroutine per connection, and must
// not block: it answers through r, now or later, from any goroutine.
type CallHandler func(from anchormesh.NodeID, payload []byte, r Responder)

// BulkHandler takes one bulk stream and owns it; it runs in its own goroutine.
type BulkHandler func(from anchormesh.NodeID, s BulkStream)

// BulkStream is a byte stream of its own, for what is large and slow. It shares
// no queue with messages and calls, and no connection either.
type BulkStream interface {
	io.ReadWriteCloser
	// CloseWrite tells the peer that nothing more comes: it reads io.EOF.
	CloseWrite() error
	// Reset ends both directions at once; the peer's reads fail.
	Reset() error
	SetDeadline(t time.Time) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// Answerer is where a Responder puts its answer.
type Answerer interface {
	// Answer sends the answer to request id. code is zero for success.
	Answer(id uint64, code uint16, payload [][]byte)
}

// Responder answers one request, once; a second answer is ignored by the peer.
// Its methods copy what they are given, never block, and may be called from any
// goroutine, also after the connection is gone. A request that is never
// answered costs its caller the deadline, so answer every one.
type Responder struct {
	to       Answerer
	id       uint64
	deadline time.Time
}

// NewResponder makes a Responder for request id that answers through to.
func NewResponder(to Answerer, id uint64, deadline time.Time) Responder {
	return Responder{to: to, id: id, deadline: deadline}
}

// Deadline is when the caller stops waiting, zero if it has none. It was sent
// as a duration, so that clocks need not agree.
func (r Responder) Deadline() time.Time { return r.deadline }

// Reply answers with the concatenation of the parts.
func (r Responder) Reply(parts ...[]byte) { r.to.Answer(r.id, 0, parts) }

// Fail answers with a RemoteError. Code must not be zero; 0xff00 and above are
// the mesh's own.
func (r Responder) Fail(code uint16, text string) {
	if code == 0 {
		panic("wire: a failed answer needs a code")
	}
	r.to.Answer(r.id, code, [][]byte{[]byte(text)})
}
