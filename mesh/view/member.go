package view

import (
	"cmp"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

// State is what the local failure detector says of a member.
type State uint8

const (
	// Alive members answer, directly or through others.
	Alive State = iota + 1
	// Left members announced that they go.
	Left
	// Dead members stopped answering without a word.
	Dead
)

// String returns "alive", "left" or "dead".
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Left:
		return "left"
	case Dead:
		return "dead"
	}
	return "unknown"
}

// Record is what a node says of itself. The caller has verified its signature.
type Record struct {
	ID         anchormesh.NodeID
	Name       string
	Zone       string
	Version    string
	PeerAddrs  []string // multiaddrs, without /p2p
	ClientURLs []string
	Mesh       anchormesh.MeshID // zero: belongs to no mesh yet
	Epoch      uint64            // grows with every record the node makes
	Boot       uint64            // drawn anew by every process
	Left       bool              // the last record of a process: it goes
	Raw        string            // the signed bytes; orders records of one epoch
}

// supersedes orders the records of one node: a total order, so that the larger
// of any set is the same whoever takes it.
func (r *Record) supersedes(old *Record) bool {
	if r.Epoch != old.Epoch {
		return r.Epoch > old.Epoch
	}
	return r.Raw > old.Raw
}

// Member is one node as a View shows it.
type Member struct {
	ID         anchormesh.NodeID
	Name       string
	Zone       string
	Version    string
	PeerAddrs  []string          // multiaddrs, without /p2p; shared, do not modify
	ClientURLs []string          // shared, do not modify
	Mesh       anchormesh.MeshID // zero: the node belongs to no mesh yet
	Epoch      uint64            // of the record shown; higher wins
	Boot       uint64            // of the process the record is from
	State      State
	Since      time.Time // when State became so, by the local clock
}

// View is an immutable snapshot of the members, sorted by node ID. The zero
// View is empty.
type View struct {
	members []Member
	version uint64
}

// Members returns all members, alive or not, sorted by ID. The slice is shared:
// do not modify it.
func (v View) Members() []Member { return v.members }

// Version grows with every View a node makes. It says nothing across nodes.
func (v View) Version() uint64 { return v.version }

// Len returns the number of members, alive or not.
func (v View) Len() int { return len(v.members) }

// Get returns the member with this ID.
func (v View) Get(id anchormesh.NodeID) (Member, bool) {
	i, ok := slices.BinarySearchFunc(v.members, id, func(m Member, id anchormesh.NodeID) int {
		return cmp.Compare(m.ID, id)
	})
	if !ok {
		return Member{}, false
	}
	return v.members[i], true
}

// Alive returns the members that are alive, sorted by ID.
func (v View) Alive() []Member {
	alive := make([]Member, 0, len(v.members))
	for _, m := range v.members {
		if m.State == Alive {
			alive = append(alive, m)
		}
	}
	return alive
}

// New makes a View of any members: it sorts them and, of several with one ID,
// keeps the last. For tests and for meshes that do not gossip.
func New(version uint64, members ...Member) View {
	byID := make(map[anchormesh.NodeID]Member, len(members))
	for _, m := range members {
		byID[m.ID] = m
	}
	out := make([]Member, 0, len(byID))
	for _, m := range byID {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return View{members: out, version: version}
}
