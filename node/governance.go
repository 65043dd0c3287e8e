package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/recruit"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/pairing"
	"github.com/anchormesh/anchormesh/node/pulse"
	"github.com/anchormesh/anchormesh/node/steward"
	"github.com/anchormesh/anchormesh/node/trust"
)

// governance is how meshes govern their structure.
type governance struct {
	judge     entropy.Config
	place     place.Config
	recruit   recruit.Config
	pairing   pairing.Config
	trust     trust.Config
	window    time.Duration // between two judgements of a segment
	asleep    time.Duration // the same while its group sleeps
	planEvery time.Duration // between two looks at the mesh as a whole
}

func defaultGovernance() governance {
	g := governance{
		judge: entropy.DefaultConfig(), place: place.DefaultConfig(), recruit: recruit.DefaultConfig(), trust: trust.DefaultConfig(),
		pairing: pairing.Config{Again: time.Minute, Settle: 10 * time.Second, Backoff: place.MergeBackoff()},
		window:  5 * time.Second, asleep: time.Minute, planEvery: 2 * time.Second,
	}
	g.place.Stale = time.Hour               // package neighbours judges, by the size of the mesh
	g.recruit.SettleAfter = time.Second     // a fresh mesh of three is whole within seconds
	g.recruit.RetryAfter = 20 * time.Second // who takes in two replicas at a time declines often, and not for long
	return g
}

// hastened is the same with waits that are shorter by a factor of at least 1. What is
// as long as changes take, or as messages travel, stays above a floor.
func (g governance) hastened(by time.Duration) governance {
	shorter := func(floor time.Duration, waits ...*time.Duration) {
		for _, w := range waits {
			*w = max(*w/by, min(*w, floor))
		}
	}
	j, p := &g.judge, &g.place
	shorter(250*time.Millisecond, &g.window, &g.planEvery)
	shorter(4*time.Second, &j.Memory) // what is sampled meanwhile says where the load falls
	j.Samples = max(j.Samples/uint64(by), min(j.Samples, 8))
	shorter(time.Second, &j.SplitAfter, &j.MinAge, &j.SleepAfter, &j.MergeAfter, &g.asleep)
	shorter(time.Second, &p.Settle, &p.Stay, &p.DeclinedFor, &g.pairing.Again, &g.pairing.Settle, &g.pairing.Backoff.Base, &g.pairing.Backoff.Max)
	shorter(2*time.Second, &g.recruit.RetryAfter)
	return g
}

func (n *Node) newSteward(a *assembly) *steward.Steward {
	count := a.metrics.Structure()
	return steward.New(steward.Config{
		Self: a.mesh.Self().ID, ReplaceAfter: n.cfg.Recruit.ReplaceDeadAfter, Recruit: n.governance.recruit,
		Place: n.governance.place, PlanEvery: n.governance.planEvery, Logger: n.log,
		Listener: steward.Listener{Split: count.Split, Moved: count.Moved, Transferred: count.Transferred, Invited: count.Invited},
		Load:     func() recruit.Load { return n.load(a) },
		Own: func() place.Node {
			s := n.stands(a)
			return placed(&s, time.Time{})
		},
		Heard: a.heard, Measured: a.measured, Agree: a.approvals.Agree,
	}, a.host, a.engine, a.mesh)
}

// measured returns the load of a segment led here, and about how much it keeps.
func (a *assembly) measured(id anchormesh.SegmentID) (load uint64, bytes int64) {
	r, ok := a.pulse.Last(id)
	if !ok || !r.Led {
		return 0, 0
	}
	return r.Numbers.Load, r.Bytes
}

func (n *Node) newPulse(a *assembly) *pulse.Pulse {
	cfg := pulse.Config{
		Judge: n.governance.judge, Window: n.governance.window, Asleep: n.governance.asleep, Logger: n.log,
		Group: a.group, Alone: a.alone, Birth: birth,
		Gone: func(id anchormesh.SegmentID) {
			a.metrics.GroupStopped(id)
			a.pairing.Forget(id)
		},
	}
	if n.cfg.Recruit.AutoSplit {
		cfg.Split = a.splitByLoad
	}
	if n.cfg.Recruit.AutoMerge {
		cfg.Merge = a.mergeAtRest
	}
	return pulse.New(cfg, a.host, a.engine)
}

// group says whether an anchor is missing or lags, and whether a change is under way.
func (a *assembly) group(id anchormesh.SegmentID) (degraded, changing bool) {
	s, known := a.steward.Standing(id)
	return !known || s.Degraded != "", s.Changing
}

// alone reports whether no other node could lead a part of a segment.
func (a *assembly) alone() bool { return len(a.mesh.View().Alive()) < 2 }

// errNotNow says that a group is not fit for what nobody ordered.
var errNotNow = errors.New("an anchor is missing or lags, or another change has begun")

// splitByLoad cuts a segment because its numbers say so.
func (a *assembly) splitByLoad(ctx context.Context, id anchormesh.SegmentID, d entropy.Decision) error {
	if degraded, changing := a.group(id); degraded || changing {
		return errNotNow
	}
	_, err := a.steward.Split(ctx, id, d.At, evidence(d), false)
	return err
}

func (n *Node) newPairing(a *assembly) *pairing.Pairing {
	cfg := n.governance.pairing
	cfg.Self, cfg.Logger = a.mesh.Self().ID, n.log
	cfg.Side, cfg.Align = a.side, a.steward.Align
	cfg.Hold = a.steward.Hold
	cfg.Merge = func(ctx context.Context, left anchormesh.SegmentID, why lineage.Evidence) error {
		if degraded, changing := a.group(left); degraded || changing {
			return errNotNow
		}
		_, err := a.merger.Merge(ctx, left, why, false)
		return err
	}
	return pairing.New(cfg, a.table, a.mesh)
}

// mergeAtRest does what is due for a dormant segment.
func (a *assembly) mergeAtRest(ctx context.Context, id anchormesh.SegmentID, d entropy.Decision) string {
	return a.pairing.Consider(ctx, time.Now(), id, evidence(d))
}

// side is how a segment led here stands, as one of two that may merge.
func (a *assembly) side(id anchormesh.SegmentID) (place.Side, bool) {
	r, here := a.host.Get(id)
	st, ok := a.engine.Status(id)
	if !here || !ok || !st.Leads() {
		return place.Side{}, false
	}
	state := r.Machine.State()
	out := place.Side{Descriptor: state.Descriptor, Policy: state.Descriptor.Policy, Busy: state.Merging(), Degraded: "it has not been looked at yet"}
	if s, known := a.steward.Standing(id); known {
		out.Degraded, out.Busy = s.Degraded, out.Busy || s.Changing
	}
	if last, ok := a.pulse.Last(id); ok && last.Led {
		out.Dormant = last.Action == entropy.Merge && (state.Policy == nil || !state.Policy.Structure.NoMerge)
		out.Peak, out.Fill, out.Bytes = last.Numbers.Peak, last.Numbers.Fill, last.Bytes
	}
	return out, true
}

// numbersOf is how many numbers of a decision its lineage keeps.
const numbersOf = lineage.NumbersMax

// evidence is a decision as the lineage keeps it, of which the numbers are: action,
// cause, reversals and what presses, a byte each, the action lowest; writes, reads
// and bytes per second; commit latency in microseconds; bytes and keys kept; and the
// thousandths on the left.
func evidence(d entropy.Decision) lineage.Evidence {
	n := &d.Numbers
	words := uint64(d.Action) | uint64(d.Cause)<<8 | uint64(d.Reversals)<<16 | uint64(n.Pressing)<<24
	return lineage.Evidence{
		Reason: lineage.Load, Pressure: n.Pressure, Spread: n.Spread,
		Numbers: []uint64{words, n.WritesPerSec, n.ReadsPerSec, n.BytesPerSec, n.CommitMicros, n.Size, n.Keys, n.Left},
	}
}

// birth is what a segment inherits from the newest change of its range: a new leader
// and a child go on counting reversals where others left off.
func birth(r *host.Replica) entropy.Birth {
	for _, e := range slices.Backward(r.Machine.State().Chain.Entries()) {
		if e.Kind == lineage.Split || e.Kind == lineage.Merge {
			return inherited(e.Kind, e.Evidence)
		}
	}
	return entropy.Birth{}
}

// inherited is what the segments inherit that a split or merge made.
func inherited(kind lineage.Kind, e lineage.Evidence) entropy.Birth {
	out := entropy.Birth{Cause: entropy.Split}
	if kind == lineage.Merge {
		out.Cause = entropy.Merge
	}
	if e.Reason == lineage.Load && len(e.Numbers) == numbersOf {
		out.Reversals = uint8(e.Numbers[0] >> 16)
	}
	return out
}

// judged fills in a segment's rates, what it keeps, and what was decided about it.
func (a *assembly) judged(out *meshpb.SegmentInfo) {
	id := anchormesh.SegmentID(out.GetDescriptor_().GetSegment())
	if s, led := a.steward.Standing(id); led {
		out.Group = s.Status
	}
	r, ok := a.pulse.Last(id)
	if !ok {
		return
	}
	n := &r.Numbers
	out.Rates = &meshpb.Rates{
		WritesPerSecond: float64(n.WritesPerSec), ReadsPerSecond: float64(n.ReadsPerSec), BytesPerSecond: float64(n.BytesPerSec),
	}
	out.Pressure, out.Spread = float64(n.Pressure)/1000, float64(n.Spread)/1000
	out.SizeBytes, out.Keys = r.Bytes, n.Keys
	out.Decision, out.Reason = decision(r)
}

// decision words what a segment's leader decided last.
func decision(r pulse.Reading) (action, reason string) {
	if !r.Led {
		return "", ""
	}
	if r.Note != "" {
		return r.Action.String(), r.Reason + "; " + r.Note
	}
	if r.Advice {
		return r.Action.String(), r.Reason + " (advice: nothing acts on it)"
	}
	return r.Action.String(), r.Reason
}

// announce tells a few peers at once what a log has decided about its segment.
func (a *assembly) announce(c machine.Change) {
	if d := c.State.Descriptor; d.Changed == c.Place.Index {
		ids := []anchormesh.SegmentID{d.Segment}
		if c.Child != nil {
			ids = append(ids, c.Born.Descriptor.Segment)
		}
		a.exchange.Announce(ids...)
	}
}
