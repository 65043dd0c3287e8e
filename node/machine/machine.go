package machine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// ErrGeneration says that a request named another generation of the segment
// than the one in force; it took effect nowhere.
var ErrGeneration = errors.New("the segment is of another generation")

// Machine applies one segment's log. It implements consensus.StateMachine.
type Machine struct {
	segment *mvcc.Segment
	space   *keyspace.Space
	state   atomic.Pointer[State]
	changed func(Change)
	cutting func(left anchormesh.KeyRange) // nil: nobody wants to know
	find    func(anchormesh.SegmentID) *Machine
	refused atomic.Uint64

	approvals approvals

	applying sync.Mutex // held while an entry is applied
	gone     bool       // another segment has absorbed this one

	mu    sync.Mutex
	confs []configuration // those in force from the durable index on, oldest first
}

// configuration is Raft's, from an entry on. It is all that is kept of states which are
// not in force any more: they would be most of what a segment takes.
type configuration struct {
	since uint64
	conf  *raftpb.ConfState
}

// Change is what an entry did to the segment's record of itself.
type Change struct {
	State *State
	Place lineage.Place // the entry
	// Child was cut off by the entry; nil at other changes. Its state is Born.
	Child *mvcc.Segment
	Born  *State
	// Absorbed is what the right neighbour was that the entry took in; nil at others.
	Absorbed *State
	// Thawed: the segment was frozen before the entry, and is no more.
	Thawed bool
	// Ended are proposals of the scope's record that the entry ended or decided.
	Ended []scope.Closed
}

// New returns the machine of an opened segment. changed is called from the
// apply goroutine behind every entry that changes its state; it may be nil. verify checks
// the signatures of votes and reports.
func New(segment *mvcc.Segment, space *keyspace.Space, verify Verify, changed func(Change)) (*Machine, error) {
	meta := segment.Meta()
	state, err := DecodeState(meta.State)
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	state.check()
	if changed == nil {
		changed = func(Change) {}
	}
	m := &Machine{segment: segment, space: space, changed: changed}
	m.approvals.verify = verify
	if err := m.approvals.load(segment); err != nil {
		return nil, fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	m.enter(state)
	return m, nil
}

// OnCut sets who is told of a split before the segment is cut, in apply: what the
// segment holds from now on. It is called before the first entry is applied.
func (m *Machine) OnCut(f func(left anchormesh.KeyRange)) { m.cutting = f }

// Space returns the segment's keys and leases.
func (m *Machine) Space() *keyspace.Space { return m.space }

// Segment returns the stored segment.
func (m *Machine) Segment() *mvcc.Segment { return m.segment }

// State returns the record in force.
func (m *Machine) State() *State { return m.state.Load() }

// Descriptor returns the descriptor in force.
func (m *Machine) Descriptor() *anchormesh.Descriptor { return m.state.Load().Descriptor }

// Refused counts entries that took effect nowhere.
func (m *Machine) Refused() uint64 { return m.refused.Load() }

// Start returns where the machine stood when it was opened: everything it holds
// then is durable.
func (m *Machine) Start() consensus.Point {
	meta := m.segment.Meta()
	return consensus.Point{Index: meta.Applied, Term: meta.Term, Conf: m.state.Load().Conf}
}

// Durable implements consensus.StateMachine.
func (m *Machine) Durable() (uint64, *raftpb.ConfState) {
	index := m.segment.Durable()
	m.mu.Lock()
	defer m.mu.Unlock()
	past := 0
	for past+1 < len(m.confs) && m.confs[past+1].since <= index {
		past++
	}
	m.confs = slices.Delete(m.confs, 0, past)
	return index, m.confs[0].conf
}

// enter puts a state in force.
func (m *Machine) enter(s *State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.confs); n == 0 || m.confs[n-1].conf != s.Conf {
		m.confs = append(m.confs, configuration{s.Descriptor.Changed, s.Conf})
	}
	m.put(s)
	m.space.SetPlace(s.Descriptor.Generation, string(s.Descriptor.Line), s.Counts() && len(s.Descriptor.Line) > 0)
	// Rules that do not compile shut the scope, on every replica alike: nothing to do.
	_ = m.space.Govern(governed(s.Descriptor.Scope, s.Policy))
}

// put replaces the state that others see, and what follows from the one before.
func (m *Machine) put(s *State) {
	m.state.Store(s)
	m.approvals.mu.Lock()
	defer m.approvals.mu.Unlock()
	m.approvals.voters = electorate{}
}

// Apply implements consensus.StateMachine.
func (m *Machine) Apply(e *consensus.Entry, want bool) []consensus.Outcome {
	m.applying.Lock()
	defer m.applying.Unlock()
	if m.gone { // its group is about to be stopped
		return failures(e, ErrFrozen)
	}
	failpoint.Hit("apply/before-entry")
	defer failpoint.Hit("apply/after-entry")
	if e.Conf != nil {
		m.applyConf(e)
		return []consensus.Outcome{{}}
	}
	if e.Refused || len(e.Payloads) == 0 {
		m.skip(e)
		return nil
	}
	if e.Generation != m.Descriptor().Generation {
		m.skip(e)
		return failures(e, ErrGeneration)
	}
	if op := e.Payloads[0]; len(op) > 0 && keyspace.Op(op[0]) >= keyspace.OpStructural {
		if keyspace.Op(op[0]) == OpApproved {
			return []consensus.Outcome{m.applyApproved(e, want)}
		}
		return []consensus.Outcome{{Err: m.applyStructure(e)}}
	}
	if err := m.state.Load().Silent(); err != nil {
		m.skip(e)
		return failures(e, err)
	}
	if _, wanted := m.state.Load().Approvals(); wanted && slices.ContainsFunc(e.Payloads, keyspace.Writes) {
		return m.applyUnapproved(e, want)
	}
	outcomes := m.space.Apply(e.Index, e.Term, e.Payloads, want)
	if !want {
		return nil
	}
	out := make([]consensus.Outcome, len(outcomes))
	for i, o := range outcomes {
		out[i] = consensus.Outcome{Response: o.Response, Err: o.Err}
	}
	return out
}

// skip moves the applied index and nothing else.
func (m *Machine) skip(e *consensus.Entry) {
	if len(e.Payloads) > 0 {
		m.refused.Add(1)
	}
	m.segment.Begin(e.Index, e.Term).End()
}

// failures is the outcome of an entry that changes nothing.
func failures(e *consensus.Entry, err error) []consensus.Outcome {
	out := make([]consensus.Outcome, max(1, len(e.Payloads)))
	for i := range out {
		out[i].Err = err
	}
	return out
}

func (m *Machine) applyConf(e *consensus.Entry) {
	failpoint.Hit("anchors/before-change")
	defer failpoint.Hit("anchors/after-change")
	now := m.state.Load()
	next := now.Descriptor.Clone()
	if len(e.Conf.Context) > 0 { // empty: Raft left a joint configuration by itself
		d, err := meshpb.DecodeDescriptor(e.Conf.Context)
		if err != nil {
			panic("machine: committed change of the anchor group cannot be read: " + err.Error())
		}
		// Only the anchors are the proposer's to say. What else it wrote down may be from
		// before a split that was in the log already.
		next.Anchors, next.NextReplica = d.Anchors, d.NextReplica
	}
	state := now.after(next, e.Conf.State, placeOf(e))
	state.check()
	b := m.segment.Begin(e.Index, e.Term)
	state.store(b)
	b.End()
	m.enter(state)
	m.changed(Change{State: state, Place: placeOf(e)})
}

func placeOf(e *consensus.Entry) lineage.Place { return lineage.Place{Index: e.Index, Term: e.Term} }

// applyStructure applies a structural command, which stands alone in its entry. An
// error is a known outcome: it took effect nowhere.
func (m *Machine) applyStructure(e *consensus.Entry) error {
	invariant.Always(len(e.Payloads) == 1, "machine: segment %s: the structural command of entry %d shares it", m.segment.ID(), e.Index)
	command, err := e.Payloads[0], error(nil)
	switch op := keyspace.Op(command[0]); {
	case op == OpAgreed:
		command, err = m.agreed(e, command[1:])
	case m.approvals.required && optional(command):
		err = fmt.Errorf("%w: %w", ErrRefused, ErrUnagreed)
	}
	if err != nil {
		m.skip(e)
		return err
	}
	op, body := keyspace.Op(command[0]), command[1:]
	failpoint.Hit(phases[op].before)
	switch op {
	case OpSplit:
		err = m.applySplit(e, body)
	case OpWindow:
		err = m.applyWindow(e, body)
	case OpOpen:
		err = m.applyOpen(e, body)
	case OpFreeze:
		err = m.applyFreeze(e, body)
	case OpAbsorb:
		err = m.applyAbsorb(e, body)
	case OpAbort:
		err = m.applyAbort(e, body)
	case OpThaw:
		err = m.applyThaw(e, body)
	case OpTrust:
		err = m.applyTrust(e, body)
	case OpHardened:
		err = m.applyHardened(e, body)
	case OpSeated:
		err = m.applySeated(e, body)
	case OpPropose, OpVote, OpClose, OpAdopt, OpFinish, OpInForce, OpAffirm:
		err = m.applyScope(op, e, body)
	case OpDead, OpChoose, OpBegun, OpUnheard:
		err = m.applyKeeper(op, e, body)
	case OpTurn, OpSwitch, OpBegin, OpSettle:
		err = m.applyTurn(e, op, body)
	case OpLift:
		err = m.applyLift(e, body)
	default:
		panic(fmt.Sprintf("machine: segment %s: entry %d holds the unknown structural command %d: the log was written by a newer program",
			m.segment.ID(), e.Index, op))
	}
	if err != nil {
		m.skip(e)
	}
	failpoint.Hit(phases[op].after)
	return err
}

// phases are the failpoints of structural commands.
var phases = map[keyspace.Op]struct{ before, after string }{
	OpPropose: {"scope/before-propose", "scope/after-propose"},
	OpVote:    {"scope/before-vote", "scope/after-vote"},
	OpAdopt:   {"scope/before-adopt", "scope/after-adopt"},
	OpFinish:  {"scope/before-finish", "scope/after-finish"},
	OpInForce: {"scope/before-in-force", "scope/after-in-force"},
	OpTurn:    {"line/before-turn", "line/after-turn"},
	OpSwitch:  {"line/before-switch", "line/after-switch"},
	OpBegin:   {"line/before-begin", "line/after-begin"},
	OpSettle:  {"line/before-settle", "line/after-settle"},
	OpWindow:  {"line/before-window", "line/after-window"},

	OpSplit:  {"split/before-apply", "split/after-apply"},
	OpOpen:   {"merge/before-open", "merge/after-open"},
	OpFreeze: {"merge/before-freeze", "merge/after-freeze"},
	OpAbsorb: {"merge/before-absorb", "merge/after-absorb"},
	OpAbort:  {"merge/before-abort", "merge/after-abort"},
	OpThaw:   {"merge/before-thaw", "merge/after-thaw"},
}

func (m *Machine) applySplit(e *consensus.Entry, body []byte) error {
	split, err := parseSplit(body)
	if err != nil {
		return err
	}
	now := m.state.Load()
	if err := now.Allows(split); err != nil {
		return err
	}
	at, _ := m.segment.Revision()
	left, right, err := now.split(split, placeOf(e), at)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if m.cutting != nil {
		m.cutting(left.Descriptor.Range)
	}
	b := m.segment.Begin(e.Index, e.Term)
	child := m.space.Cut(b, split.Right, split.At, mvcc.Meta{Applied: BirthIndex, Term: BirthTerm, State: right.Encode()})
	left.store(b)
	b.End()
	m.enter(left)
	m.changed(Change{State: left, Place: placeOf(e), Child: child, Born: right})
	return nil
}

func (m *Machine) applyWindow(e *consensus.Entry, body []byte) error {
	w, n := binary.Uvarint(body)
	if n <= 0 || n != len(body) || w > math.MaxInt64 {
		return errCommand
	}
	now := *m.state.Load()
	if now.Line == 0 || !now.Descriptor.LineHome() {
		return fmt.Errorf("%w: the segment is not the home of a line", ErrRefused)
	}
	if anchormesh.Revision(w) <= now.Window {
		return fmt.Errorf("%w: the window ends at %d already", ErrRefused, now.Window)
	}
	now.Window = anchormesh.Revision(w)
	b := m.segment.Begin(e.Index, e.Term)
	now.store(b)
	b.End()
	m.put(&now) // the configuration is as it was: see Durable
	m.changed(Change{State: &now, Place: placeOf(e)})
	return nil
}

var _ consensus.StateMachine = (*Machine)(nil)
