package meshtest

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/view"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// Node is one node of a Network. It has the methods of *mesh.Mesh.
type Node struct {
	net *Network
	id  anchormesh.NodeID

	mu       sync.Mutex
	closed   bool
	member   mesh.Member
	table    *view.Table
	subs     []chan mesh.View
	messages map[mesh.Class]mesh.MessageHandler
	calls    map[uint8]mesh.CallHandler
	bulk     map[string]mesh.BulkHandler
	news     mesh.NewsHandler
	pending  map[uint64]*pending
	nextCall uint64
	streams  map[*duplex]anchormesh.NodeID
	events   mesh.Events
	down     map[anchormesh.NodeID]bool
	clients  *listener
	handlers sync.WaitGroup // of bulk
}

type pending struct {
	to   anchormesh.NodeID
	done chan outcome
}

type outcome struct {
	payload []byte
	err     error
}

func newNode(n *Network, self mesh.Member) *Node {
	node := &Node{
		net: n, id: self.ID, member: self,
		table:    view.NewTable(self.Mesh, view.DefaultLimits()),
		messages: make(map[mesh.Class]mesh.MessageHandler),
		calls:    make(map[uint8]mesh.CallHandler),
		bulk:     make(map[string]mesh.BulkHandler),
		pending:  make(map[uint64]*pending),
		streams:  make(map[*duplex]anchormesh.NodeID),
		down:     make(map[anchormesh.NodeID]bool),
	}
	node.clients = newListener(wire.Addr{ID: self.ID, Multiaddr: "/memory/0"})
	return node
}

// SetEvents sets what is told to the owner.
func (n *Node) SetEvents(e mesh.Events) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.events = e
}

func (n *Node) self() mesh.Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

// ID returns the node's ID.
func (n *Node) ID() anchormesh.NodeID { return n.id }

// Self returns this node as others see it.
func (n *Node) Self() mesh.Member { return n.self() }

// View returns the newest view. Changes are seen at once: nothing is coalesced.
func (n *Node) View() mesh.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table.View()
}

// Members returns the members of the newest view.
func (n *Node) Members() []mesh.Member { return n.View().Members() }

// Subscribe is as the mesh's.
func (n *Node) Subscribe() <-chan mesh.View {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := make(chan mesh.View, 1)
	if n.closed {
		close(s)
		return s
	}
	s <- n.table.View()
	n.subs = append(n.subs, s)
	return s
}

// MeshIDs is as the mesh's.
func (n *Node) MeshIDs() []anchormesh.MeshID {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.table.Meshes()
}

// MeshID is as the mesh's.
func (n *Node) MeshID() anchormesh.MeshID { return n.self().Mesh }

// SetMeshID is as the mesh's.
func (n *Node) SetMeshID(id anchormesh.MeshID) error {
	if was := n.MeshID(); was != 0 && was != id {
		return mesh.ErrMeshID
	}
	n.change(func(m *mesh.Member) { m.Mesh = id })
	return nil
}

// SetClientURLs is as the mesh's.
func (n *Node) SetClientURLs(urls ...string) error {
	n.change(func(m *mesh.Member) { m.ClientURLs = urls })
	return nil
}

// change makes a new record and tells every node.
func (n *Node) change(f func(*mesh.Member)) {
	n.mu.Lock()
	f(&n.member)
	n.member.Epoch++
	m := n.member
	n.table.SetMesh(m.Mesh)
	n.mu.Unlock()
	n.learn(m)
	n.net.mu.Lock()
	others := n.net.othersLocked(n.id)
	n.net.mu.Unlock()
	for _, o := range others {
		o.learn(m)
	}
}

// learn takes a record.
func (n *Node) learn(m mesh.Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return
	}
	n.table.Merge(time.Now(), view.Record{
		ID: m.ID, Name: m.Name, Zone: m.Zone, Version: m.Version, PeerAddrs: m.PeerAddrs, ClientURLs: m.ClientURLs,
		Mesh: m.Mesh, Epoch: m.Epoch, Boot: m.Boot, Left: m.State == mesh.Left,
	})
	n.publishLocked()
}

func (n *Node) observe(subject anchormesh.NodeID, s mesh.State) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if m, ok := n.table.View().Get(subject); ok && !n.closed {
		n.table.Observe(time.Now(), subject, m.Boot, s)
		n.publishLocked()
	}
}

func (n *Node) publishLocked() {
	if !n.table.Dirty() {
		return
	}
	v := n.table.View()
	for _, s := range n.subs {
		select {
		case <-s:
		default:
		}
		s <- v
	}
}

// Connected reports whether a connection to the peer can be.
func (n *Node) Connected(id anchormesh.NodeID) bool {
	return n.knows(id) && n.net.connected(n.id, id)
}

func (n *Node) knows(id anchormesh.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	m, ok := n.table.View().Get(id)
	return ok && !n.closed && m.State != mesh.Left && id != n.id
}

// reachable ends what needs a connection to a peer that cannot be, and tells
// the owner when that changes.
func (n *Node) reachable(peer anchormesh.NodeID, network *Network) {
	up := network.connected(n.id, peer)
	n.mu.Lock()
	changed := n.down[peer] == up
	n.down[peer] = !up
	tell := n.events.PeerDown
	if up {
		tell = n.events.PeerUp
	}
	var streams []*duplex
	if !up {
		n.failLocked(peer)
		for s, to := range n.streams {
			if to == peer {
				streams = append(streams, s)
			}
		}
	}
	n.mu.Unlock()
	for _, s := range streams {
		s.Reset()
	}
	if changed && tell != nil {
		tell(peer)
	}
}

// failLocked ends the calls to a peer, or to all if it is empty.
func (n *Node) failLocked(peer anchormesh.NodeID) {
	for id, p := range n.pending {
		if peer == "" || p.to == peer {
			delete(n.pending, id)
			p.done <- outcome{err: fmt.Errorf("%w: %s", mesh.ErrUnknownOutcome, p.to)}
		}
	}
}

// Close leaves the network: others see that it left.
func (n *Node) Close() error {
	n.mu.Lock()
	closed := n.closed
	n.mu.Unlock()
	if closed {
		return nil
	}
	n.change(func(m *mesh.Member) { m.State = mesh.Left })
	n.net.mu.Lock()
	if n.net.nodes[n.id] == n {
		delete(n.net.nodes, n.id)
	}
	n.net.mu.Unlock()
	n.stop()
	return nil
}

// stop ends everything of this node.
func (n *Node) stop() {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return
	}
	n.closed = true
	n.failLocked("")
	streams := make([]*duplex, 0, len(n.streams))
	for s := range n.streams {
		streams = append(streams, s)
	}
	for _, s := range n.subs {
		close(s)
	}
	n.subs = nil
	n.mu.Unlock()
	n.clients.Close()
	for _, s := range streams {
		s.Reset()
	}
	n.net.mu.Lock()
	others := n.net.othersLocked(n.id)
	n.net.mu.Unlock()
	for _, o := range others {
		o.reachable(n.id, n.net)
	}
	n.handlers.Wait()
}

// HandleMessages is as the mesh's.
func (n *Node) HandleMessages(class mesh.Class, h mesh.MessageHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.messages[class] = h
}

// HandleCalls is as the mesh's.
func (n *Node) HandleCalls(method uint8, h mesh.CallHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls[method] = h
}

// HandleBulk is as the mesh's.
func (n *Node) HandleBulk(protocol string, h mesh.BulkHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bulk[protocol] = h
}

// HandleNews is as the mesh's.
func (n *Node) HandleNews(h mesh.NewsHandler) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.news = h
}

// ListenClients is as the mesh's.
func (n *Node) ListenClients() net.Listener { return n.clients }
