package steward

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

var (
	// ErrNotLeader says that this node does not lead the segment.
	ErrNotLeader = errors.New("this node does not lead the segment")
	// ErrNotNow says that nothing optional happens to the segment at the moment.
	ErrNotNow = errors.New("not now")
	// ErrUnknown says that what was proposed may or may not come into force.
	ErrUnknown = errors.New("the outcome is not known: look at the segments")
)

// Split cuts a segment that this node leads in two, at a key and for a reason, if its
// anchors agree, and returns the name of the right one. dry stops before they are asked.
// The errors are ErrNotLeader, ErrNotNow, machine.ErrRefused, ErrUnknown, the context's
// and Config.Agree's.
func (s *Steward) Split(ctx context.Context, segment anchormesh.SegmentID, at []byte, why lineage.Evidence, dry bool) (anchormesh.SegmentID, error) {
	r, ok := s.leads(segment)
	if !ok {
		return 0, ErrNotLeader
	}
	split := &machine.Split{At: at, Right: newSegmentID(), Evidence: why}
	state := r.Machine.State()
	if err := state.Allows(split); err != nil {
		return 0, err
	}
	if degraded := s.degraded(ctx, segment); degraded != "" {
		return 0, fmt.Errorf("%w: %s", ErrNotNow, degraded)
	}
	if dry {
		return split.Right, nil
	}
	command := split.Command()
	if s.cfg.Agree != nil {
		var err error
		if command, err = s.cfg.Agree(ctx, segment, command); err != nil {
			return 0, err
		}
	}
	return split.Right, s.enter(ctx, segment, state, command, why.Reason)
}

// calmWait is how long an order waits for a group to be whole: one that has just begun,
// changed its leader or its anchors is as soon as the steward has looked at it again.
const calmWait = 2 * interval

// degraded is why nothing optional happens to a group, once that is for longer than a moment.
func (s *Steward) degraded(ctx context.Context, segment anchormesh.SegmentID) string {
	ctx, cancel := context.WithTimeout(ctx, calmWait)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		st, known := s.Standing(segment)
		if !known || st.Degraded == "" {
			return ""
		}
		select {
		case <-ctx.Done():
			return st.Degraded
		case <-ticker.C:
		}
	}
}

// SplitBy cuts a segment that this node leads by a decision of a scope's home, which it
// carries; a right child without a name gets one. The errors are Split's.
func (s *Steward) SplitBy(ctx context.Context, segment anchormesh.SegmentID, split *machine.Split, by *machine.Decision) error {
	r, ok := s.leads(segment)
	if !ok {
		return ErrNotLeader
	}
	if split.Right == 0 {
		split.Right = newSegmentID()
	}
	state := r.Machine.State()
	if err := state.Allows(split); err != nil {
		return err
	}
	return s.enter(ctx, segment, state, by.Allow(split.Command()), split.Evidence.Reason)
}

// enter puts a split into the log and waits for it.
func (s *Steward) enter(ctx context.Context, segment anchormesh.SegmentID, state *machine.State, command []byte, reason lineage.Reason) error {
	s.cut(segment, 1)
	done := make(chan error, 1)
	s.engine.Submit(segment, consensus.Proposal{
		Generation: state.Descriptor.Generation, Alone: true, Payload: command,
		Done: func(res consensus.Result) {
			s.cut(segment, -1)
			if res.Err == nil {
				tell(s.cfg.Listener.Split, reasons[reason == lineage.Operator])
			}
			done <- res.Err
		},
	})
	select {
	case err := <-done:
		return outcome(err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknown, ctx.Err())
	}
}

// reasons are the words of metrics for a split that was ordered, or not.
var reasons = map[bool]string{true: "order", false: "load"}

// cut counts the splits of a segment that are under way.
func (s *Steward) cut(segment anchormesh.SegmentID, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.splitting[segment] += n; s.splitting[segment] == 0 {
		delete(s.splitting, segment)
	}
}

// leads returns the replica of a segment that this node leads.
func (s *Steward) leads(segment anchormesh.SegmentID) (*host.Replica, bool) {
	st, ok := s.engine.Status(segment)
	r, here := s.host.Get(segment)
	return r, ok && here && st.Leads()
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
