package sim

import (
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/internal/simkit"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/testnet/check"
)

const meshID anchormesh.MeshID = 0xa5c0

// mesh is the whole simulated world, and what the checkers see of it.
type mesh struct {
	cfg       Config
	k         *simkit.Kernel
	net       *simkit.Network
	rng       *rand.Rand // of faults and of everything that belongs to no machine
	computers []*computer
	segments  []segment                                     // as they were at genesis, each a scope of its own
	scopeOf   map[anchormesh.SegmentID]anchormesh.SegmentID // of every segment that ever was: its scope's first
	live      []anchormesh.SegmentID                        // all segments, in the order of their births
	names     uint64                                        // given to children
	born      map[anchormesh.SegmentID]bool                 // created at least once, durably
	wrong     map[[2]int]time.Duration                      // gossip of one node is wrong about another until then
	clients   []*client
	watchers  []*watcher
	healed    bool
	probing   bool
	at        map[string]func(*process) // called where a durable act of this name begins; for tests
	jumps     int
	err       error

	witness
	stats Stats
}

// witness is what the checkers are fed with.
type witness struct {
	leaders    check.Leaders
	log        check.Log
	states     check.States
	history    check.History
	events     map[string][]check.Event // by line, as first applied
	acked      map[anchormesh.SegmentID]uint64
	tags       uint64
	splitLines map[string]bool                    // lines of scopes that were split
	decided    map[anchormesh.Hash]*lineage.Entry // every structural decision that was applied
	newest     map[string]int64                   // by line and key: revision of its last event
	before     int64                              // revision before the entry that is being applied
	unknown    map[int]string                     // place of an operation of unknown outcome in the history -> its command
	applies    map[string]command                 // clients' commands, by their bytes, that took effect
	ends       map[int64]time.Duration            // leases: first proposal to end it; negative: ended
}

// command is where a client's command was applied first, and when.
type command struct {
	segment anchormesh.SegmentID
	index   uint64
	at      time.Duration
	before  int64 // revisions around its entry
	after   int64
}

// segment is a part of the keyspace, named by its letter.
type segment struct {
	id  anchormesh.SegmentID
	rng anchormesh.KeyRange
}

// Stats counts what a run did.
type Stats struct {
	Acked, Reads, Unknown, Dropped                                     uint64
	Crashes, Elections, Snapshots, ConfChanges, Retired, Wiped, Faults uint64
	Renewed, Expired, WatchEvents                                      uint64
	// Splits in force; groups that fell asleep; writes that got a stamp; barriers asked
	// for; ranges over several segments.
	Splits, Slept, Stamped, Barriers, Wide uint64
}

func newMesh(cfg Config) *mesh {
	k := simkit.New(cfg.Seed)
	m := &mesh{cfg: cfg, k: k, net: simkit.NewNetwork(k, cfg.Link), rng: k.Stream("mesh"),
		born: make(map[anchormesh.SegmentID]bool), wrong: make(map[[2]int]time.Duration)}
	m.scopeOf = make(map[anchormesh.SegmentID]anchormesh.SegmentID)
	m.witness = witness{splitLines: make(map[string]bool), decided: make(map[anchormesh.Hash]*lineage.Entry), newest: make(map[string]int64), events: make(map[string][]check.Event), acked: make(map[anchormesh.SegmentID]uint64), ends: make(map[int64]time.Duration),
		applies: make(map[string]command), unknown: make(map[int]string)}
	for i := range cfg.Mesh.Groups {
		s := segment{id: firstSegment + anchormesh.SegmentID(i)}
		if i > 0 {
			s.rng.Start = []byte{byte('a' + i)}
		}
		if cfg.Mesh.Groups > 1 {
			s.rng.End = []byte{byte('a' + i + 1)}
		}
		m.segments = append(m.segments, s)
		m.scopeOf[s.id] = s.id
		m.live = append(m.live, s.id)
	}
	for i := range cfg.Mesh.Nodes {
		m.computers = append(m.computers, newComputer(m, i))
	}
	return m
}

// lineOf names the line of a scope by the scope's first segment.
func lineOf(root anchormesh.SegmentID) string { return fmt.Sprintf("%x", uint64(root)) }

// line names the line of any segment.
func (m *mesh) lineOf(id anchormesh.SegmentID) string { return lineOf(m.scopeOf[id]) }

// root reports whether a segment was there at genesis.
func (m *mesh) root(id anchormesh.SegmentID) bool { return m.scopeOf[id] == id }

// letter begins every key of a scope.
func (s segment) letter() string { return string(rune('a' + int(s.id-firstSegment))) }

const firstSegment anchormesh.SegmentID = 0x51

// fail ends the run with the first error.
func (m *mesh) fail(err error) {
	if err != nil && m.err == nil {
		m.err = err
	}
}

func (m *mesh) find(id anchormesh.NodeID) *computer {
	for _, n := range m.computers {
		if n.id == id {
			return n
		}
	}
	return nil
}

// begins tells a test that a durable act begins.
func (m *mesh) begins(act string, p *process) {
	if f := m.at[act]; f != nil {
		f(p)
	}
}

// running lists the processes that run, in order.
func (m *mesh) running() []*process {
	var out []*process
	for _, n := range m.computers {
		if n.proc != nil {
			out = append(out, n.proc)
		}
	}
	return out
}

// gossip is what a node believes of the others: late, and at times wrong.
func (m *mesh) gossip(p *process, now time.Time) []recruit.Member {
	var out []recruit.Member
	for _, n := range m.computers {
		alive, since := n.alive, n.since
		if m.k.Now()-since < time.Duration(1+(p.idx+n.idx)%3)*time.Second {
			alive = !alive
		}
		if until := m.wrong[[2]int{p.idx, n.idx}]; until > m.k.Now() {
			alive = false
		}
		out = append(out, recruit.Member{Node: n.id, Alive: alive || n == p.computer, Since: now.Add(since - m.k.Now()), Zone: n.zone, Room: 1})
	}
	return out
}

// connectionsEnd lets others notice that a process ended.
func (m *mesh) connectionsEnd(n *computer) {
	for _, p := range m.running() {
		if m.rng.IntN(4) > 0 {
			p.after(time.Duration(m.rng.Int64N(int64(100*time.Millisecond))), func() { p.nodeLost(n.id) })
		}
	}
}

// applied sees every entry that a replica applies.
func (m *mesh) applied(p *process, g *group, e *replica.Entry, generation anchormesh.Generation, out []consensus.Outcome) {
	h := fnv.New64a()
	fmt.Fprint(h, e.Term, e.Refused, e.Generation, e.Conf != nil)
	for i, payload := range e.Payloads {
		h.Write(payload)
		if !e.Refused && e.Conf == nil && e.Generation == generation && (len(out) <= i || tookEffect(out[i].Err)) {
			m.once(g, e.Index, payload)
		}
	}
	m.fail(m.log.Applied(uint64(g.segment), e.Index, h.Sum64(), string(p.id)))
	m.k.Note("apply", p.idx, uint64(g.segment), e.Index, e.Term, h.Sum64()&0xffff)
}

// tookEffect tells known outcomes of a command that say that it is to be tried again
// from all others.
func tookEffect(err error) bool {
	return !errors.Is(err, keyspace.ErrStampOrder) && !errors.Is(err, keyspace.ErrWrongSegment)
}

// once makes sure that a client's command is in the log at one place only: what is
// tried again must not have taken effect.
func (m *mesh) once(g *group, index uint64, payload []byte) {
	rev, inner, stamped := keyspace.CutStamp(payload)
	if stamped {
		payload = inner
	}
	if op := keyspace.Op(payload[0]); op == keyspace.OpLeaseExpire || op == keyspace.OpLeaseCheckpoint || op == keyspace.OpCompact || op >= keyspace.OpStructural {
		return
	}
	old, known := m.applies[string(payload)]
	switch {
	case !known:
		after, _ := g.machine.Space().Revision()
		before := m.before
		if stamped {
			before, after = rev-1, rev
		}
		m.applies[string(payload)] = command{g.segment, index, m.k.Now(), before, after}
	case old.segment != g.segment || old.index != index:
		m.fail(fmt.Errorf("segment %s: %w: %q at %d and at %d", g.segment, errTwice, payload, old.index, index))
	}
}

// errTwice: a request that was said to have had no effect, and was tried again, had
// one.
var errTwice = errors.New("one request is in the log twice")

// acknowledged sees every write that a client was told of.
func (m *mesh) acknowledged(segment anchormesh.SegmentID, index uint64) {
	m.stats.Acked++
	m.acked[segment] = max(m.acked[segment], index)
}

// published sees every event of every replica; all must agree.
func (m *mesh) published(line string, ev *mvcc.Event) {
	e := check.Event{Line: line, Rev: ev.Main, Delete: ev.Delete, KV: check.KV{Key: string(ev.KV.Key), Mod: ev.Main}}
	if !ev.Delete {
		e.KV = check.KV{Key: string(ev.KV.Key), Value: string(ev.KV.Value()), Create: ev.KV.Create, Mod: ev.KV.Mod, Version: ev.KV.Version, Lease: ev.KV.Lease}
	}
	list := m.events[line]
	// Segments of one line publish one beside the other; of each key events come in
	// order.
	if id := line + e.KV.Key; e.Rev > m.newest[id] {
		m.newest[id] = e.Rev
		m.events[line] = slices.Insert(list, from(list, e.Rev+1), e)
		return
	}
	for _, o := range list[from(list, e.Rev):] {
		if o.Rev == e.Rev && o.KV == e.KV && o.Delete == e.Delete {
			return
		}
		if o.Rev > e.Rev {
			break
		}
	}
	m.fail(fmt.Errorf("line %s: %w: a replica published %+v, another did not", line, check.ErrDiverged, e))
}

// from returns the first event at or above a revision.
func from(list []check.Event, rev int64) int {
	return sort.Search(len(list), func(i int) bool { return list[i].Rev >= rev })
}

// expiring sees a leader decide that a lease has run out.
func (m *mesh) expiring(id int64) {
	if _, known := m.ends[id]; !known {
		m.ends[id] = m.k.Now()
	}
}

// leaseEvents sees the ends of leases as the first replica applies them.
func (m *mesh) leaseEvents(segment anchormesh.SegmentID, events []lease.Event) {
	for _, ev := range events {
		end, ok := ev.(lease.Revoked)
		if !ok || m.ends[end.ID] < 0 || eternal(end.ID) {
			continue
		}
		first := m.ends[end.ID]
		m.ends[end.ID] = -1
		m.stats.Expired++
		after := m.before
		for _, p := range m.running() {
			if r := p.host.held[segment]; r != nil {
				current, _ := r.machine.Segment().Revision()
				after = max(after, current)
			}
		}
		m.k.Note("lease ends", -1, uint64(end.ID), 0, 0, 0)
		m.history.Leases = append(m.history.Leases, check.Lease{What: check.Expire, ID: end.ID, At: int64(m.k.Now())})
		m.history.Ops = append(m.history.Ops, check.Op{
			Client: -1, Line: m.lineOf(segment), Request: check.Request{Kind: check.Expire, Lease: end.ID},
			Call: int64(first), Return: int64(m.k.Now()), Result: &check.Result{}, RevMin: m.before, RevMax: after,
		})
	}
}

// compareStates hashes the replicas that stand at the same index.
func (m *mesh) compareStates() {
	for _, p := range m.running() {
		for _, id := range slices.Sorted(maps.Keys(p.host.held)) {
			r := p.host.held[id]
			g := r.machine.Segment()
			index, _ := g.Applied()
			sum, compacted, rev, err := g.Hash(0)
			if err != nil {
				m.fail(fmt.Errorf("node %d: hash of segment %s: %w", p.idx, id, err))
				return
			}
			h := fnv.New64a()
			fmt.Fprint(h, sum, compacted, rev, r.machine.Space().Leases(), r.machine.State().Descriptor, r.machine.State().Conf)
			m.fail(m.states.At(uint64(id), index, h.Sum64(), string(p.id)))
		}
	}
}
