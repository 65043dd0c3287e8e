package steward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/machine"
)

var (
	// ErrNotLeader says that this node does not lead the segment.
	ErrNotLeader = errors.New("this node does not lead the segment")
	// ErrUnknown says that what was proposed may or may not come into force.
	ErrUnknown = errors.New("the outcome is not known: look at the segments")
)

// Split cuts a segment that this node leads in two, at a key and for a reason, and
// returns the name of the right one. dry stops before proposing. The errors are
// ErrNotLeader, machine.ErrRefused, ErrUnknown and the context's.
func (s *Steward) Split(ctx context.Context, segment anchormesh.SegmentID, at []byte, why lineage.Evidence, dry bool) (anchormesh.SegmentID, error) {
	st, ok := s.engine.Status(segment)
	r, here := s.host.Get(segment)
	if !ok || !here || !st.Leads() {
		return 0, ErrNotLeader
	}
	split := &machine.Split{At: at, Right: newSegmentID(), Evidence: why}
	state := r.Machine.State()
	if err := state.Allows(split); err != nil || dry {
		return split.Right, err
	}
	done := make(chan error, 1)
	s.engine.Submit(segment, consensus.Proposal{
		Generation: state.Descriptor.Generation, Alone: true, Payload: split.Command(),
		Done: func(res consensus.Result) { done <- res.Err },
	})
	select {
	case err := <-done:
		return split.Right, outcome(err)
	case <-ctx.Done():
		return split.Right, fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// outcome words the end of a structural proposal.
func outcome(err error) error {
	switch {
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrDropped), errors.Is(err, consensus.ErrNoGroup):
		return ErrNotLeader
	case errors.Is(err, consensus.ErrUnknown):
		return ErrUnknown
	case errors.Is(err, machine.ErrGeneration):
		return fmt.Errorf("%w: another change of structure came first", machine.ErrRefused)
	}
	return err
}

// newSegmentID draws a name; 63 bits are enough never to meet one twice.
func newSegmentID() anchormesh.SegmentID { return anchormesh.SegmentID(rand.Uint64()>>1 + 1) }
