package node

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

const MeshID anchormesh.MeshID = 0xa5c0

// Mesh is the whole simulated world, and what the checkers see of it.
type Mesh struct {
	Cfg       plan.Config
	K         *simkit.Kernel
	Net       *simkit.Network
	Rng       *rand.Rand // of faults and of everything that belongs to no machine
	Computers []*Computer
	Segments  []segment                                     // as they were at genesis, each a scope of its own
	ScopeOf   map[anchormesh.SegmentID]anchormesh.SegmentID // of every segment that ever was: its scope's first
	Parent    map[anchormesh.SegmentID]anchormesh.SegmentID // of every child: what it was cut from
	Live      []anchormesh.SegmentID                        // all segments, in the order of their births
	Names     uint64                                        // given to children
	Born      map[anchormesh.SegmentID]bool                 // created at least once, durably
	Wrong     map[[2]int]time.Duration                      // gossip of one node is wrong about another until then
	Healed    bool
	Probing   bool
	Shells    []func(*Process) Shell    // what each process has above engine and host, lowest first
	At        map[string]func(*Process) // called where a durable act of this name begins; for tests
	Acting    *Process                  // whose event it is; nil: nobody's
	Jumps     int
	Books     Books

	witness.Witness
}

func NewMesh(cfg plan.Config) *Mesh {
	k := simkit.New(cfg.Seed)
	m := &Mesh{Cfg: cfg, K: k, Net: simkit.NewNetwork(k, cfg.Link), Rng: k.Stream("mesh"),
		Born: make(map[anchormesh.SegmentID]bool), Wrong: make(map[[2]int]time.Duration)}
	m.ScopeOf = make(map[anchormesh.SegmentID]anchormesh.SegmentID)
	m.Parent = make(map[anchormesh.SegmentID]anchormesh.SegmentID)
	m.Witness, m.Books = witness.NewWitness(k), newBooks()
	for i := range cfg.Mesh.Groups {
		s := segment{ID: firstSegment + anchormesh.SegmentID(i)}
		if i > 0 {
			s.Rng.Start = []byte{byte('a' + i)}
		}
		if cfg.Mesh.Groups > 1 {
			s.Rng.End = []byte{byte('a' + i + 1)}
		}
		m.Segments = append(m.Segments, s)
		m.ScopeOf[s.ID] = s.ID
		m.Live = append(m.Live, s.ID)
	}
	for i := range cfg.Mesh.Nodes {
		m.Computers = append(m.Computers, NewComputer(m, i))
	}
	return m
}

// Line names the line of any segment.
func (m *Mesh) LineOf(id anchormesh.SegmentID) string { return LineOf(m.ScopeOf[id]) }

// Root reports whether a segment was there at genesis.
func (m *Mesh) Root(id anchormesh.SegmentID) bool { return m.ScopeOf[id] == id }

func (m *Mesh) Find(id anchormesh.NodeID) *Computer {
	for _, n := range m.Computers {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// begins tells a test that a durable act begins.
func (m *Mesh) begins(act string, p *Process) {
	if f := m.At[act]; f != nil {
		f(p)
	}
}

// Running lists the processes that run, in order.
func (m *Mesh) Running() []*Process {
	var out []*Process
	for _, n := range m.Computers {
		if n.Proc != nil {
			out = append(out, n.Proc)
		}
	}
	return out
}

// Gossip is what a node believes of the others: late, and at times wrong.
func (m *Mesh) Gossip(p *Process, now time.Time) []recruit.Member {
	var out []recruit.Member
	for _, n := range m.Computers {
		alive, since := n.life.alive, n.life.since
		if m.K.Now()-since < time.Duration(1+(p.Index+n.Index)%3)*time.Second {
			alive = !alive
		}
		if until := m.Wrong[[2]int{p.Index, n.Index}]; until > m.K.Now() {
			alive = false
		}
		out = append(out, recruit.Member{Node: n.ID, Alive: alive || n == p.Computer, Since: now.Add(since - m.K.Now()), Zone: n.zone, Room: 1})
	}
	return out
}

// connectionsEnd lets others notice that a process ended.
func (m *Mesh) connectionsEnd(n *Computer) {
	for _, p := range m.Running() {
		if m.Rng.IntN(4) > 0 {
			p.After(time.Duration(m.Rng.Int64N(int64(100*time.Millisecond))), func() { p.NodeLost(n.ID) })
		}
	}
}

// Later calls f unless the mesh is healed by then.
func (m *Mesh) Later(d time.Duration, f func()) {
	m.K.After(d, func() {
		if !m.Healed {
			f()
		}
	})
}

func (m *Mesh) Span(mean time.Duration) time.Duration {
	return time.Duration(m.Rng.ExpFloat64() * float64(mean))
}

// electionTimeout is the shortest of the mesh's election timeouts.
func (m *Mesh) electionTimeout() time.Duration {
	return time.Duration(m.Cfg.Mesh.ElectionTicks) * m.Cfg.Mesh.Tick
}

// Timeout is how long a client waits. All nodes are asked for everything at once in the
// end; that may take longer.
func (m *Mesh) Timeout() time.Duration {
	if m.Probing {
		return m.Cfg.Load.Timeout + 5*time.Second
	}
	return m.Cfg.Load.Timeout
}

// recorded sees every change of a segment's record, by the first replica that
// applies it too.
func (m *Mesh) recorded(c machine.Change) {
	e := c.State.Chain.Last()
	m.Decided[e.Hash()] = e
	defer m.governed(c)
	if c.Absorbed != nil {
		m.merged(c.Absorbed.Descriptor.Segment)
	}
	if c.Child == nil {
		return
	}
	id := c.Born.Descriptor.Segment
	if _, known := m.ScopeOf[id]; known {
		return
	}
	root := m.ScopeOf[c.State.Descriptor.Segment]
	m.ScopeOf[id], m.Parent[id] = root, c.State.Descriptor.Segment
	m.Live = append(m.Live, id)
	m.SplitLines[LineOf(root)] = true
	m.Stats.Splits++
}

// NewestOf is the newest revision that a replica of the segment has applied.
func (m *Mesh) NewestOf(segment anchormesh.SegmentID) int64 {
	var newest int64
	for _, p := range m.Running() {
		if r := p.Host.Held[segment]; r != nil {
			current, _ := r.Machine.Segment().Revision()
			newest = max(newest, current)
		}
	}
	return newest
}

// Segment is a part of the keyspace, named by its letter.
type segment struct {
	ID  anchormesh.SegmentID
	Rng anchormesh.KeyRange
}

// Letter begins every key of a scope.
func (s segment) Letter() string { return string(rune('a' + int(s.ID-firstSegment))) }

const firstSegment anchormesh.SegmentID = 0x51

// LineOf names the line of a scope by the scope's first segment.
func LineOf(root anchormesh.SegmentID) string { return fmt.Sprintf("%x", uint64(root)) }

// Segment0 is the first segment of a segment's scope.
func Segment0(m *Mesh, id anchormesh.SegmentID) segment {
	return segment{ID: m.ScopeOf[id]}
}

func ChildID(n uint64) anchormesh.SegmentID { return anchormesh.SegmentID(0x1000 + n) }

// Splits reports whether segments are split in this run.
func (m *Mesh) Splits() bool { return m.Cfg.Mesh.SplitsMax > 0 }

// Tag is a number that no other command of the run has.
func (m *Mesh) Tag() uint64 {
	m.Tags++
	return m.Tags
}

// merged notes that a segment lives no more.
func (m *Mesh) merged(id anchormesh.SegmentID) {
	if i := slices.Index(m.Live, id); i >= 0 {
		m.Live = slices.Delete(slices.Clone(m.Live), i, i+1)
		m.Stats.Merges++
	}
}
