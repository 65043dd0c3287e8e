package machine

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
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
	changed func(*State)
	refused atomic.Uint64

	mu     sync.Mutex
	states []*State // those in force from the durable index on, oldest first
}

// New returns the machine of an opened segment. changed is called from the
// apply goroutine whenever descriptor or configuration change; it may be nil.
func New(segment *mvcc.Segment, space *keyspace.Space, changed func(*State)) (*Machine, error) {
	meta := segment.Meta()
	state, err := DecodeState(meta.State)
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	state.check()
	if changed == nil {
		changed = func(*State) {}
	}
	m := &Machine{segment: segment, space: space, changed: changed}
	m.enter(state)
	return m, nil
}

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
	for len(m.states) > 1 && m.states[1].Descriptor.Changed <= index {
		m.states = m.states[1:]
	}
	return index, m.states[0].Conf
}

// enter puts a state in force.
func (m *Machine) enter(s *State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = append(m.states, s)
	m.state.Store(s)
}

// Apply implements consensus.StateMachine.
func (m *Machine) Apply(e *consensus.Entry, want bool) []consensus.Outcome {
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
		return refusals(len(e.Payloads))
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

func refusals(n int) []consensus.Outcome {
	out := make([]consensus.Outcome, n)
	for i := range out {
		out[i].Err = ErrGeneration
	}
	return out
}

func (m *Machine) applyConf(e *consensus.Entry) {
	now := m.state.Load()
	next := now.Descriptor
	if len(e.Conf.Context) > 0 { // empty: Raft left a joint configuration by itself
		d, err := meshpb.DecodeDescriptor(e.Conf.Context)
		if err != nil {
			panic("machine: committed change of the anchor group cannot be read: " + err.Error())
		}
		next = d.Clone()
	} else {
		next = next.Clone()
	}
	next.Changed = e.Index
	state := now.after(next, e.Conf.State)
	state.check()
	b := m.segment.Begin(e.Index, e.Term)
	b.SetState(state.Encode())
	b.End()
	m.enter(state)
	m.changed(state)
}

var _ consensus.StateMachine = (*Machine)(nil)
