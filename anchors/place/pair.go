package place

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// Side is what is known of one of two neighbours. The leader of either gathers
// both, its own first hand.
type Side struct {
	Descriptor *anchormesh.Descriptor
	Policy     uint64 // version of the scope's policy that the segment adopted
	Dormant    bool   // entropy says so: its decision is Merge
	Peak, Fill uint64 // entropy's numbers, in thousandths
	Bytes      int64
	Degraded   string // recruit's Plan.Degraded
	Busy       bool   // a split, a merge or an order is under way
}

// Verdict is what Pair says.
type Verdict struct {
	// Ready: the left side may open an attempt.
	Ready bool
	// Orders align the sides' anchors first. All are the same side's: its leader
	// carries them out, one after the other.
	Orders []Order
	Reason string // one sentence
}

// sumMax is how much two sides may have together, in thousandths: half of what a
// segment is split at.
const sumMax = 500

// Pair decides whether two neighbours may merge. Both leaders come to the same
// verdict if they know the same. before and after are the neighbours of the two,
// nil if they are unknown or there are none: of two pairs that share a segment,
// one goes first.
func Pair(left, right Side, before, after *Side) Verdict {
	if why := unfit(&left, &right); why != "" {
		return Verdict{Reason: why}
	}
	l, r := left.Descriptor, right.Descriptor
	if before != nil && before.Degraded == "" && unfit(before, &left) == "" && first(before, &left, &right) {
		return Verdict{Reason: fmt.Sprintf("segment %v merges with %v first", l.Segment, before.Descriptor.Segment)}
	}
	if after != nil && after.Degraded == "" && unfit(&right, after) == "" && !first(&left, &right, after) {
		return Verdict{Reason: fmt.Sprintf("segment %v merges with %v first", r.Segment, after.Descriptor.Segment)}
	}
	for _, s := range []*Side{&left, &right} {
		switch {
		case s.Degraded != "":
			return Verdict{Reason: fmt.Sprintf("segment %v is not whole: %s", s.Descriptor.Segment, s.Degraded)}
		case s.Busy:
			return Verdict{Reason: fmt.Sprintf("segment %v is changing", s.Descriptor.Segment)}
		}
	}
	orders, why := align(&left, &right)
	if why != "" {
		return Verdict{Orders: orders, Reason: why}
	}
	return Verdict{Ready: true, Reason: "both are dormant, whole and on the same nodes"}
}

// unfit says why two segments may not become one; it looks at nothing that passes.
func unfit(left, right *Side) string {
	l, r := left.Descriptor, right.Descriptor
	switch {
	case l.Mesh != r.Mesh || len(l.Range.End) == 0 || !bytes.Equal(l.Range.End, r.Range.Start):
		return fmt.Sprintf("segments %v and %v are no neighbours", l.Segment, r.Segment)
	case !bytes.Equal(l.Scope, r.Scope) || !bytes.Equal(l.Line, r.Line):
		return "they are of two scopes"
	case left.Policy != right.Policy:
		return fmt.Sprintf("one is at version %d of the policy, the other at %d", left.Policy, right.Policy)
	case !left.Dormant || !right.Dormant:
		return "not both are dormant"
	case left.Peak+right.Peak > sumMax:
		return fmt.Sprintf("together their load was up to %d ‰ of what splits them, at most %d may be", left.Peak+right.Peak, sumMax)
	case left.Fill+right.Fill > sumMax:
		return fmt.Sprintf("together they keep %d ‰ of what splits them, at most %d may be", left.Fill+right.Fill, sumMax)
	}
	return ""
}

// first reports whether of the pairs (a, b) and (b, c) the first goes first: the
// one whose boundary hashes higher. In a row of dormant segments the highest
// around go at once, and none waits for all.
func first(a, b, c *Side) bool {
	h := func(s *Side) uint64 { return recruit.Hash(s.Descriptor.Segment, "", uint64(s.Descriptor.Generation)) }
	ab, bc := h(a)^h(b), h(b)^h(c)
	return cmp.Or(cmp.Compare(ab, bc), bytes.Compare(c.Descriptor.Range.Start, b.Descriptor.Range.Start)) > 0
}

// align lists the moves after which both sides are on the same nodes: those of
// the right side, unless it is more than twice as large.
func align(left, right *Side) ([]Order, string) {
	stays, goes := left, right
	if right.Bytes > 2*left.Bytes {
		stays, goes = right, left
	}
	s, g := stays.Descriptor, goes.Descriptor
	for _, d := range []*anchormesh.Descriptor{s, g} {
		if len(d.Voters()) != len(d.Anchors) {
			return nil, fmt.Sprintf("segment %v has a learner", d.Segment)
		}
	}
	if len(s.Anchors) != len(g.Anchors) {
		return nil, fmt.Sprintf("they have %d and %d anchors", len(s.Anchors), len(g.Anchors))
	}
	from, to := missing(g, s), missing(s, g)
	if len(from) == 0 {
		return nil, ""
	}
	var out []Order
	for i := range from {
		out = append(out, Order{Segment: g.Segment, Kind: Replace, From: from[i], To: to[i], Align: true})
	}
	return out, fmt.Sprintf("segment %v has to move %d anchors to the nodes of %v first", g.Segment, len(from), s.Segment)
}

// missing lists the nodes that have an anchor of a and none of b, in order.
func missing(a, b *anchormesh.Descriptor) (out []anchormesh.NodeID) {
	for _, x := range a.Anchors {
		if _, has := b.AnchorOn(x.Node); !has {
			out = append(out, x.Node)
		}
	}
	slices.Sort(out)
	return out
}

// Backoff spaces attempts at something that failed: it doubles from Base to Max.
// Its zero value with both set is ready.
type Backoff struct {
	Base, Max time.Duration
	failures  uint
	until     time.Time
}

// Failed notes a failure.
func (b *Backoff) Failed(now time.Time) {
	wait := b.Max
	if b.failures < 32 && b.Base<<b.failures < b.Max {
		wait = b.Base << b.failures
		b.failures++
	}
	b.until = now.Add(wait)
}

// Ready reports whether the next attempt may be made.
func (b *Backoff) Ready(now time.Time) bool { return !now.Before(b.until) }

// Succeeded forgets the failures.
func (b *Backoff) Succeeded() { b.failures, b.until = 0, time.Time{} }

// MergeBackoff spaces attempts to merge: a freeze may have cost a second of
// writes.
func MergeBackoff() Backoff { return Backoff{Base: time.Minute, Max: 2 * time.Hour} }
