package merger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/machine"
)

// ErrNotLeader says that this node does not lead the left segment.
var ErrNotLeader = errors.New("this node does not lead the segment")

// ErrUnknown says that the merge may or may not happen.
var ErrUnknown = errors.New("the outcome is not known: look at the segments")

// Merge joins a segment that this node leads with its right neighbour, and returns that
// one's descriptor. dry stops before anything is proposed. The errors are ErrNotLeader,
// machine.ErrRefused, ErrAborted, ErrUnknown, the context's and Config.Agree's.
func (m *Merger) Merge(ctx context.Context, left anchormesh.SegmentID, why lineage.Evidence, dry bool) (*anchormesh.Descriptor, error) {
	return m.merge(ctx, left, why, dry, func(command []byte) ([]byte, error) {
		if m.agree == nil {
			return command, nil
		}
		return m.agree(ctx, left, command)
	})
}

// MergeBy is Merge by a decision of the scope's home, which the left's log carries.
func (m *Merger) MergeBy(ctx context.Context, left anchormesh.SegmentID, by *machine.Decision) (*anchormesh.Descriptor, error) {
	why := lineage.Evidence{Reason: lineage.Operator, Operator: by.Order.Operator}
	return m.merge(ctx, left, why, false, func(command []byte) ([]byte, error) { return by.Allow(command), nil })
}

func (m *Merger) merge(ctx context.Context, left anchormesh.SegmentID, why lineage.Evidence, dry bool, allow func([]byte) ([]byte, error)) (*anchormesh.Descriptor, error) {
	r, here := m.host.Get(left)
	st, ok := m.engine.Status(left)
	if !here || !ok || !st.Leads() {
		return nil, ErrNotLeader
	}
	state := r.Machine.State()
	right, err := m.neighbour(state)
	if err != nil || dry {
		return right, err
	}
	pair := merge.Pair{Left: state.Side(), Right: machine.SideOf(right)}
	core, fx := merge.NewDriver(0, state.Left.Next(state.Descriptor.Generation), pair)
	opening, err := allow(machine.Open(core.Attempt, &pair))
	if err != nil {
		return right, err
	}
	done := make(chan error, 1)
	began := m.run(m.drives, left, func() {
		d := m.newDrive(core, r, st.Term, why)
		d.opening = opening
		done <- d.run(fx)
	})
	if !began {
		return right, fmt.Errorf("%w: %w", machine.ErrForNow, merge.ErrBusy)
	}
	select {
	case err := <-done:
		return right, outcome(err)
	case <-ctx.Done():
		return right, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

func outcome(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrAborted), errors.Is(err, machine.ErrRefused), errors.Is(err, approval.ErrStale):
		return err
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrDropped), errors.Is(err, consensus.ErrNoGroup):
		return ErrNotLeader
	case errors.Is(err, machine.ErrGeneration):
		return fmt.Errorf("%w: another change of structure came first", machine.ErrRefused)
	}
	return fmt.Errorf("%w: %w", ErrUnknown, err)
}

// neighbour finds the right neighbour of a segment and says why the two cannot merge
// now, if they cannot.
func (m *Merger) neighbour(left *machine.State) (*anchormesh.Descriptor, error) {
	d := left.Descriptor
	refused := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", machine.ErrRefused, fmt.Sprintf(format, args...))
	}
	forNow := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", machine.ErrForNow, fmt.Sprintf(format, args...))
	}
	if len(d.Range.End) == 0 {
		return nil, refused("segment %s has no right neighbour", d.Segment)
	}
	right, ok := m.table.Lookup(d.Range.End)
	if !ok || !bytes.Equal(right.Range.Start, d.Range.End) {
		return nil, forNow("this node does not know yet who holds the keys behind segment %s", d.Segment)
	}
	if err := left.Settled(); err != nil {
		return right, err
	}
	if !bytes.Equal(right.Line, d.Line) {
		return right, refused("segments %s and %s are on different lines of revisions", d.Segment, right.Segment)
	}
	if right.Joint {
		return right, forNow("the anchor group of segment %s is changing", right.Segment)
	}
	verdict := place.Pair(place.Side{Descriptor: d, Policy: d.Policy, Dormant: true}, place.Side{Descriptor: right, Policy: right.Policy, Dormant: true}, nil, nil)
	if !verdict.Ready {
		return right, refused("%s%s", verdict.Reason, moves(verdict.Orders))
	}
	for _, a := range d.Anchors {
		if a.Node != m.self && !m.mesh.Connected(a.Node) {
			return right, forNow("node %s, which holds both, cannot be reached", a.Node.Short())
		}
	}
	return right, nil
}

// moves words the moves that would align two segments.
func moves(orders []place.Order) string {
	var out strings.Builder
	for _, o := range orders {
		fmt.Fprintf(&out, "; anchormesh move %s %s %s", o.Segment, o.From, o.To)
	}
	return out.String()
}
