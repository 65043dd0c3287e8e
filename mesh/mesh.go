package mesh

import (
	"context"
	"net"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/view"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// The words of the mesh, so that most users need only this package.
type (
	Key            = meshkey.Key
	Member         = view.Member
	View           = view.View
	State          = view.State
	Class          = wire.Class
	Responder      = wire.Responder
	RemoteError    = wire.RemoteError
	MessageHandler = wire.MessageHandler
	CallHandler    = wire.CallHandler
	BulkHandler    = wire.BulkHandler
	BulkStream     = wire.BulkStream
)

// States of a member.
const (
	Alive = view.Alive
	Left  = view.Left
	Dead  = view.Dead
)

// What sending may fail with; see package wire.
var (
	ErrUnreachable    = wire.ErrUnreachable
	ErrUnknownOutcome = wire.ErrUnknownOutcome
	ErrOverloaded     = wire.ErrOverloaded
	ErrTooLarge       = wire.ErrTooLarge
	ErrClosed         = wire.ErrClosed
	ErrNoHandler      = wire.ErrNoHandler
	ErrRefused        = wire.ErrRefused
)

// Mesh is this node's place in the mesh.
type Mesh struct{}

// Start loads or makes the node's identity, opens the peer and gossip ports and
// begins to join. It returns when the ports are open, not when others are met.
// ctx bounds only the start.
func Start(ctx context.Context, cfg Config) (*Mesh, error) { panic("todo") }

// Close leaves the mesh and releases everything; it is safe to call twice.
func (m *Mesh) Close() error { panic("todo") }

// Self returns this node as others see it.
func (m *Mesh) Self() Member { panic("todo") }

// View returns the newest published view. It holds this node, too.
func (m *Mesh) View() View { panic("todo") }

// Members returns the members of the newest published view, sorted by ID.
func (m *Mesh) Members() []Member { return m.View().Members() }

// Subscribe returns a channel with the newest view after each change; views
// that were not taken are replaced by newer ones. Close closes it.
func (m *Mesh) Subscribe() <-chan View { panic("todo") }

// MeshIDs returns the mesh IDs that verified records under this key name,
// sorted; more than one is an operator's mistake.
func (m *Mesh) MeshIDs() []anchormesh.MeshID { panic("todo") }

// SetMeshID puts the mesh ID (genesis or adoption) into this node's record.
func (m *Mesh) SetMeshID(id anchormesh.MeshID) error { panic("todo") }

// SetClientURLs changes the client URLs in this node's record.
func (m *Mesh) SetClientURLs(urls ...string) error { panic("todo") }

// Send queues a one-way message, copying the parts, and never blocks. False
// means dropped: the queue is full or the peer cannot be reached now. True
// promises nothing.
func (m *Mesh) Send(to anchormesh.NodeID, class Class, parts ...[]byte) bool { panic("todo") }

// HandleMessages sets the handler of a class.
func (m *Mesh) HandleMessages(class Class, h MessageHandler) { panic("todo") }

// Call sends a request, copying the parts, and waits for the answer, which
// belongs to the caller.
func (m *Mesh) Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error) {
	panic("todo")
}

// HandleCalls sets the handler of a method.
func (m *Mesh) HandleCalls(method uint8, h CallHandler) { panic("todo") }

// OpenBulk opens a byte stream to a peer's handler of protocol.
func (m *Mesh) OpenBulk(ctx context.Context, to anchormesh.NodeID, protocol string) (BulkStream, error) {
	panic("todo")
}

// HandleBulk sets the handler of a bulk protocol.
func (m *Mesh) HandleBulk(protocol string, h BulkHandler) { panic("todo") }

// Connected reports whether a connection to the peer is open now.
func (m *Mesh) Connected(id anchormesh.NodeID) bool { panic("todo") }

// ListenClients returns the listener of the client protocol. There is one.
func (m *Mesh) ListenClients() net.Listener { panic("todo") }

// DialClient opens a connection of the client protocol to another node.
func (m *Mesh) DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error) {
	panic("todo")
}

// Stats returns counters of gossip and wire.
func (m *Mesh) Stats() Stats { panic("todo") }
