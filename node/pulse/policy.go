package pulse

import (
	"time"

	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/entropy"
)

// tuned is the node's way to judge with what a scope's policy says instead.
func tuned(c entropy.Config, p *policy.Policy) entropy.Config {
	if p == nil {
		return c
	}
	s, t := &p.Structure, &c.Thresholds
	if s.SplitWrites > 0 {
		t.WritesPerSec = uint64(s.SplitWrites)
	}
	if s.SplitReads > 0 {
		t.ReadsPerSec = uint64(s.SplitReads)
	}
	if s.SplitBytes > 0 {
		t.Size = uint64(s.SplitBytes)
	}
	if s.SplitKeys > 0 {
		t.Keys = uint64(s.SplitKeys)
	}
	if s.DormantSeconds > 0 {
		c.MergeAfter = time.Duration(s.DormantSeconds) * time.Second
		c.SleepAfter = min(c.SleepAfter, c.MergeAfter)
	}
	return c
}

// allowed is a decision as far as the scope's policy lets it happen.
func allowed(d entropy.Decision, p *policy.Policy) entropy.Decision {
	switch {
	case p == nil:
	case d.Action == entropy.Split && p.Structure.NoSplit:
		d.Action, d.Reason = entropy.None, "the scope's policy forbids splits; else: "+d.Reason
	case d.Action == entropy.Merge && p.Structure.NoMerge:
		d.Action, d.Reason = entropy.None, "the scope's policy forbids merges; else: "+d.Reason
	case p.Amend.Manual && d.Action != entropy.None:
		d.Reason += "; here operators vote: order it, and it is put to the vote"
	}
	return d
}
