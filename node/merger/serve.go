package merger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

var (
	// errRefused says that the answer will be the same for this attempt.
	errRefused = errors.New("the merge is refused")
	// errElsewhere says that the segment is not the one to ask, whatever the route says.
	errElsewhere = errors.New("the segment does not hold that key")
)

// Serve answers another node's question; it does not block.
func (m *Merger) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	q, err := parseQuestion(payload)
	if err != nil {
		to.Fail(codeRefused, err.Error())
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		to.Fail(codeRetry, "the node stops")
		return
	}
	m.wg.Go(func() {
		answer, err := m.answer(m.ctx, &q)
		switch {
		case err == nil:
			to.Reply(answer)
		case errors.Is(err, errRefused), errors.Is(err, machine.ErrRefused):
			to.Fail(codeRefused, err.Error())
		default:
			to.Fail(codeRetry, err.Error())
		}
	})
}

// call asks a node, this one included.
func (m *Merger) call(ctx context.Context, node anchormesh.NodeID, q *question) ([]byte, error) {
	if node == m.self {
		return m.answer(ctx, q)
	}
	answer, err := m.mesh.Call(ctx, node, Method, q.encode())
	var remote *mesh.RemoteError
	if errors.As(err, &remote) && remote.Code == codeRefused {
		return nil, fmt.Errorf("%w: %s", errRefused, remote.Text)
	}
	return answer, err
}

func (m *Merger) answer(ctx context.Context, q *question) ([]byte, error) {
	switch q.kind {
	case askReady:
		return nil, m.ready(ctx, q)
	case askFreeze:
		return m.freeze(ctx, q)
	case askConfirm:
		return nil, m.confirm(ctx, q)
	case askJudge:
		return m.judge(ctx, q)
	case askOwner:
		return m.owner(ctx, q)
	}
	return nil, fmt.Errorf("%w: %w", errRefused, errMalformed)
}

// ready waits until this node's replicas of both sides have applied what was committed
// when the question came, and looks whether they are as the attempt says. What they
// keep is in the store then, so that the freeze will be there soon.
func (m *Merger) ready(ctx context.Context, q *question) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	left, err := m.caughtUp(ctx, q.pair.Left.Segment)
	if err != nil {
		return err
	}
	right, err := m.caughtUp(ctx, q.pair.Right.Segment)
	if err != nil {
		return err
	}
	l, r := left.Machine.State(), right.Machine.State()
	switch {
	case !l.Left.Open || l.Left.Last != q.attempt:
		return fmt.Errorf("%w: the attempt is not open", errRefused)
	case !same(r.Side(), q.pair.Right):
		return fmt.Errorf("%w: segment %s has changed", errRefused, q.pair.Right.Segment)
	}
	if err := r.Settled(); err != nil {
		return err
	}
	return right.Store.Commit()
}

func same(a, b merge.Side) bool {
	return a.Segment == b.Segment && a.Generation == b.Generation && a.Changed == b.Changed && slices.Equal(a.Nodes, b.Nodes)
}

func (m *Merger) caughtUp(ctx context.Context, segment anchormesh.SegmentID) (*host.Replica, error) {
	r, ok := m.host.Get(segment)
	if !ok {
		return nil, fmt.Errorf("%w: node %s has no replica of segment %s", errRefused, m.self.Short(), segment)
	}
	return r, m.readIndex(ctx, segment)
}

func (m *Merger) readIndex(ctx context.Context, segment anchormesh.SegmentID) error {
	done := make(chan error, 1)
	m.engine.ReadIndex(segment, func(_ uint64, err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// freeze puts the freeze into the log of the right, which this node must lead.
func (m *Merger) freeze(ctx context.Context, q *question) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, merge.FreezeMax)
	defer cancel()
	r, ok := m.host.Get(q.pair.Right.Segment)
	st, leads := m.engine.Status(q.pair.Right.Segment)
	if !ok || !leads || !st.Leads() {
		return nil, consensus.ErrNotLeader
	}
	index, err := m.propose(ctx, r.Machine.State(), st.Term, machine.Freeze(q.attempt, &q.pair))
	if err != nil {
		return nil, err
	}
	return binary.AppendUvarint(nil, index), nil
}

// confirm waits for the freeze to be applied here, and in the store.
func (m *Merger) confirm(ctx context.Context, q *question) error {
	ctx, cancel := context.WithTimeout(ctx, merge.FreezeMax)
	defer cancel()
	done := make(chan error, 1)
	m.engine.WhenApplied(q.pair.Right.Segment, q.number, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	return m.host.Confirm(q.pair.Right.Segment, q.attempt)
}

// judge says what became of an attempt, for a segment that this node leads: by what is
// applied behind a read round.
func (m *Merger) judge(ctx context.Context, q *question) ([]byte, error) {
	state, err := m.confirmed(ctx, q.segment())
	if err != nil {
		return nil, err
	}
	verdict, ok := state.Judge(q.key, q.attempt)
	if !ok {
		return nil, errElsewhere
	}
	return []byte{byte(verdict)}, nil
}

// owner says in which generation a segment that this node leads holds a key.
func (m *Merger) owner(ctx context.Context, q *question) ([]byte, error) {
	state, err := m.confirmed(ctx, q.segment())
	if err != nil {
		return nil, err
	}
	if !state.Descriptor.Range.Contains(q.key) {
		return nil, errElsewhere
	}
	return binary.AppendUvarint(nil, uint64(state.Descriptor.Generation)), nil
}

// confirmed is the state of a segment that this node leads, behind a read round.
func (m *Merger) confirmed(ctx context.Context, segment anchormesh.SegmentID) (*machine.State, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, ok := m.host.Get(segment)
	st, leads := m.engine.Status(segment)
	if !ok || !leads || !st.Leads() {
		return nil, consensus.ErrNotLeader
	}
	if err := m.readIndex(ctx, segment); err != nil {
		return nil, err
	}
	return r.Machine.State(), nil
}
