package node

import (
	"context"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/pulse"
)

// governance is how meshes govern their structure.
type governance struct {
	judge  entropy.Config
	window time.Duration // between two judgements of a segment
}

func defaultGovernance() governance {
	return governance{judge: entropy.DefaultConfig(), window: 5 * time.Second}
}

func (n *Node) newPulse(a *assembly) *pulse.Pulse {
	return pulse.New(pulse.Config{
		Judge: n.governance.judge, Window: n.governance.window, Logger: n.log,
		Group: a.group, Alone: a.alone, Birth: birth, Split: a.splitByLoad,
	}, a.host, a.engine)
}

// group says whether an anchor is missing or lags, and whether a change is under way.
func (a *assembly) group(id anchormesh.SegmentID) (degraded, changing bool) {
	return false, false
}

// alone reports whether no other node could lead a part of a segment.
func (a *assembly) alone() bool { return len(a.mesh.View().Alive()) < 2 }

// splitByLoad cuts a segment because its numbers say so.
func (a *assembly) splitByLoad(ctx context.Context, id anchormesh.SegmentID, d entropy.Decision) error {
	_, err := a.steward.Split(ctx, id, d.At, evidence(d), false)
	return err
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
	entries := r.Machine.State().Chain.Entries()
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		out := entropy.Birth{}
		switch e.Kind {
		case lineage.Split:
			out.Cause = entropy.Split
		case lineage.Merge:
			out.Cause = entropy.Merge
		default:
			continue
		}
		if numbers := e.Evidence.Numbers; e.Evidence.Reason == lineage.Load && len(numbers) == numbersOf {
			out.Reversals = uint8(numbers[0] >> 16)
		}
		return out
	}
	return entropy.Birth{}
}

// decision words what a segment's leader decided last.
func decision(r pulse.Reading) (action, reason string) {
	if !r.Led {
		return "", ""
	}
	switch r.Action {
	case entropy.Cool, entropy.Shed, entropy.Sleep, entropy.Merge:
		return r.Action.String(), fmt.Sprintf("%s (advice: nothing acts on it)", r.Reason)
	}
	return r.Action.String(), r.Reason
}
