package node

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/rules"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/torture/audit"
)

var (
	// ErrUnruled: an entry was judged by other rules than those of the version that its
	// segment had adopted.
	ErrUnruled = errors.New("a write was judged by another version than its segment adopted")
	// ErrUnapproved: a write took effect without votes, where the policy wants them.
	ErrUnapproved = errors.New("a write without approvals took effect")
	// ErrInForce: a version was said to be in force that some segment had not adopted.
	ErrInForce = errors.New("a version is not in force everywhere")
)

// Books are what the mesh was governed by: every entry of every log as it was first
// applied, and the newest state of every segment that any replica reached.
type Books struct {
	logs   map[anchormesh.SegmentID]*audit.Log
	newest map[anchormesh.SegmentID]*machine.State
	puts   map[audit.Put]bool            // that took effect with approvals
	gifts  map[anchormesh.SegmentID]bool // given back by a scope inside, perhaps at an older version
}

func newBooks() Books {
	return Books{logs: make(map[anchormesh.SegmentID]*audit.Log), newest: make(map[anchormesh.SegmentID]*machine.State),
		gifts: make(map[anchormesh.SegmentID]bool), puts: make(map[audit.Put]bool)}
}

// Newest returns the newest state of a segment that any replica has applied; nil: none.
func (m *Mesh) Newest(id anchormesh.SegmentID) *machine.State { return m.Books.newest[id] }

// Audit returns what package audit judges a run by. The logs are whole: nothing of them
// is forgotten here.
func (m *Mesh) Audit(asked []audit.Asked) *audit.Case {
	b := &audit.Books{Logs: m.Books.logs}
	for _, e := range m.Decided {
		b.Lineage = append(b.Lineage, e)
	}
	for _, id := range slices.Sorted(maps.Keys(m.Books.newest)) {
		b.States = append(b.States, m.Books.newest[id])
	}
	c := &audit.Case{Books: b, Asked: asked, Verify: Signed}
	for put := range m.Books.puts {
		c.Puts = append(c.Puts, put)
	}
	return c
}

// judge sees every entry that a replica applies, with the state that it met.
func (m *Mesh) judge(segment anchormesh.SegmentID, was *machine.State, e *replica.Entry, out []consensus.Outcome) {
	m.book(segment, was, e, out)
	if len(out) > 0 && errors.Is(out[0].Err, approval.ErrForged) {
		m.Stats.Forged++
	}
	if e.Refused || e.Conf != nil || e.Generation != was.Descriptor.Generation {
		return
	}
	if len(out) == 1 && len(e.Payloads) == 1 && keyspace.Op(e.Payloads[0][0]) == machine.OpApproved {
		m.approved(segment, was, e, &out[0])
		return
	}
	_, wanted := was.Approvals()
	for i, payload := range e.Payloads {
		if i >= len(out) {
			break
		}
		if wanted && keyspace.Writes(payload) && out[i].Err == nil {
			m.Fail(fmt.Errorf("segment %s, index %d: %w", segment, e.Index, ErrUnapproved))
		}
		var refusal *rules.Refusal
		refused := errors.As(out[i].Err, &refusal)
		if refused {
			m.Stats.Ruled++
		}
		if long, is := longPut(was, payload); is && (long && out[i].Err == nil || !long && refused) {
			m.Fail(fmt.Errorf("segment %s, index %d: %w: version %d, %v", segment, e.Index, ErrUnruled, was.Descriptor.Policy, out[i].Err))
		}
	}
}

// approved sees a batch of writes that came with votes. What took effect is kept for the
// audit, which counts the votes again.
func (m *Mesh) approved(segment anchormesh.SegmentID, was *machine.State, e *replica.Entry, out *consensus.Outcome) {
	batch, err := approval.Parse(e.Payloads[0][1:])
	if err != nil || out.Err != nil {
		return
	}
	for i := range out.Parts {
		command := batch.Slots[i].Request()
		if command == nil || out.Parts[i].Err != nil {
			continue
		}
		m.Stats.Approved++
		if long, is := longPut(was, command); is && long {
			m.Fail(fmt.Errorf("segment %s, index %d: %w: version %d", segment, e.Index, ErrUnruled, was.Descriptor.Policy))
		}
		var put etcdserverpb.PutRequest
		if keyspace.Op(command[0]) == keyspace.OpPut && proto.Unmarshal(command[1:], &put) == nil {
			m.Books.puts[audit.Put{Key: string(put.Key), Value: string(put.Value)}] = true
		}
	}
}

// longPut reports whether a command is a put, and whether its value is longer than the
// policy in force lets it be.
func longPut(s *machine.State, command []byte) (long, is bool) {
	if _, inner, stamped := keyspace.CutStamp(command); stamped {
		command = inner
	}
	if keyspace.Op(command[0]) != keyspace.OpPut {
		return false, false
	}
	var put etcdserverpb.PutRequest
	if proto.Unmarshal(command[1:], &put) != nil {
		return false, false
	}
	limit := 0
	if s.Policy != nil {
		limit = s.Policy.Writes.ValueBytesMax
	}
	return limit > 0 && len(put.Value) > limit, true
}

// book keeps an entry that nobody applied before. What is not structural, or took effect
// nowhere, is kept without its text.
func (m *Mesh) book(segment anchormesh.SegmentID, was *machine.State, e *replica.Entry, out []consensus.Outcome) {
	log := m.Books.logs[segment]
	if log == nil {
		log = &audit.Log{Whole: true}
		m.Books.logs[segment] = log
	}
	last := uint64(genesisIndex)
	if n := len(log.Entries); n > 0 {
		last = log.Entries[n-1].Index
	}
	if e.Index <= last {
		return
	}
	log.Whole = log.Whole && e.Index == last+1
	entry := audit.Entry{Index: e.Index, Term: e.Term, Generation: e.Generation}
	void := e.Refused || e.Conf != nil || e.Generation != was.Descriptor.Generation || len(out) > 0 && out[0].Err != nil
	if len(e.Payloads) > 0 && !void && keyspace.Op(e.Payloads[0][0]) >= keyspace.OpStructural {
		for _, p := range e.Payloads {
			entry.Payloads = append(entry.Payloads, bytes.Clone(p))
		}
	}
	log.Entries = append(log.Entries, entry)
}

// governed follows the states of segments, by the first replica that reaches each.
func (m *Mesh) governed(c machine.Change) {
	for _, s := range []*machine.State{c.State, c.Born} {
		if s != nil {
			m.reached(s)
		}
	}
}

func (m *Mesh) reached(s *machine.State) {
	id := s.Descriptor.Segment
	old := m.Books.newest[id]
	if old != nil && !s.Descriptor.Newer(old.Descriptor) && !(s.Descriptor.Changed == old.Descriptor.Changed && later(old.Scope, s.Scope)) {
		return
	}
	m.Books.newest[id] = s
	if old != nil && s.Chain.Head() != old.Chain.Head() {
		if r := s.Chain.Last().Rule; s.Chain.Last().Kind == lineage.Policy && bytes.Equal(r.Scope, s.Descriptor.Scope) {
			m.Stats.Adopted++
			m.Books.gifts[id] = len(r.From) > len(r.Scope)
		}
	} else if old == nil && m.Books.newest[id] != nil {
		m.Books.gifts[id] = m.Books.gifts[m.Parent[id]]
	}
	if s.Scope != nil && (old == nil || old.Scope == nil || s.Scope.InForce > old.Scope.InForce) {
		m.inForce(s)
	}
}

// later reports whether a record follows from another: numbers only grow.
func later(old, now *scope.Record) bool {
	return now != nil && (old == nil || now.Next > old.Next || now.InForce > old.InForce || len(now.Closed) > 0 && sum(now) > sum(old))
}

func sum(r *scope.Record) uint64 {
	if n := len(r.Closed); n > 0 {
		return r.Closed[n-1].Index
	}
	return 0
}

// inForce makes sure that all segments of a scope have adopted what its home says to be
// in force.
func (m *Mesh) inForce(home *machine.State) {
	prefix, version := home.Descriptor.Scope, home.Scope.InForce
	for _, id := range m.Live {
		s := m.Books.newest[id]
		if s == nil || m.Books.gifts[id] {
			continue
		}
		d := s.Descriptor
		mine := bytes.Equal(d.Scope, prefix) && m.ScopeOf[id] == m.ScopeOf[home.Descriptor.Segment]
		astray := len(d.Scope) < len(prefix) && len(prefix) > 1 && anchormesh.PrefixRange(prefix).Covers(d.Range)
		if version > 0 && (mine && d.Policy < version || astray) {
			m.Fail(fmt.Errorf("segment %s %s: %w: version %d of scope %q, and it is at version %d of %q",
				id, d.Range, ErrInForce, version, prefix, d.Policy, d.Scope))
		}
	}
}

// KeysOf is the range of a scope: the outermost ones hold what their first segment held.
func (m *Mesh) KeysOf(home anchormesh.SegmentID, prefix []byte) anchormesh.KeyRange {
	for _, s := range m.Segments {
		if s.ID == m.ScopeOf[home] && bytes.Equal(s.Rng.Start, prefix) {
			return s.Rng
		}
	}
	return anchormesh.PrefixRange(prefix)
}

// Sign signs as a node would: nobody else can, as long as nobody else asks.
func (n *Computer) Sign(statement []byte) []byte { return signature(n.ID, statement) }

func signature(node anchormesh.NodeID, statement []byte) []byte {
	h := sha256.New()
	fmt.Fprintf(h, "the key of %s\n", node)
	h.Write(statement)
	return h.Sum(nil)
}

// Signed checks what Sign made.
func Signed(node anchormesh.NodeID, statement, bytes []byte) bool {
	return string(signature(node, statement)) == string(bytes)
}

// believes is how the mesh's machines check signatures.
func (m *Mesh) believes() machine.Verify {
	switch m.Cfg.Plant {
	case plan.PlantForgedVotes, plan.PlantUnapproved, plan.PlantForgedAct:
		return func(anchormesh.NodeID, []byte, []byte) bool { return true }
	}
	return Signed
}
