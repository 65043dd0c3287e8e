package verify

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

// archive is all entries and proofs that the nodes have.
type archive struct {
	entries map[anchormesh.Hash]*lineage.Entry
	proofs  map[anchormesh.Hash][]*lineage.Proof
	oldest  map[anchormesh.SegmentID]uint64 // height of the oldest entry of the segment's own that somebody keeps
	begun   map[anchormesh.SegmentID]bool   // somebody keeps it from its beginning
}

// lineages makes sure that every chain leads to genesis, that no two contradict each
// other, and that every entry is proved.
func (l *look) lineages() *archive {
	a := &archive{
		entries: make(map[anchormesh.Hash]*lineage.Entry), proofs: make(map[anchormesh.Hash][]*lineage.Proof),
		oldest: make(map[anchormesh.SegmentID]uint64), begun: make(map[anchormesh.SegmentID]bool),
	}
	var chains []*lineage.Chain
	for _, id := range l.order {
		for _, h := range l.held[id] {
			l.keepProofs(a, id, h)
			if h.chain != nil {
				chains = append(chains, h.chain)
				a.keep(h.chain)
			}
		}
	}
	_, forks := lineage.Survey(chains)
	for _, f := range forks {
		l.find(Fork, f.One.Segment, "", "segment %s has two histories from height %d on: a %s at index %d, and a %s at index %d",
			f.One.Segment, f.One.Height, f.One.Kind, f.One.Index, f.Other.Kind, f.Other.Index)
	}
	seen := make(map[anchormesh.Hash]bool)
	for _, c := range chains {
		if !seen[c.Head()] {
			seen[c.Head()] = true
			l.toGenesis(a, c)
		}
		l.proved(a, c, seen)
	}
	return a
}

func (l *look) keepProofs(a *archive, id anchormesh.SegmentID, h Held) {
	for _, b := range h.Proofs {
		p, err := lineage.DecodeProof(b)
		if err != nil {
			l.find(Unproven, id, h.Node, "node %s keeps a proof of segment %s that cannot be read: %v", h.Node.Short(), id, err)
			continue
		}
		a.proofs[p.Entry.Hash()] = append(a.proofs[p.Entry.Hash()], p)
	}
}

func (a *archive) keep(c *lineage.Chain) {
	for _, e := range c.Entries() {
		a.entries[e.Hash()] = e
	}
	first := c.Entries()[0]
	if c.Whole() || first.Segment != c.Segment() {
		a.begun[c.Segment()] = true
		return
	}
	if old, ok := a.oldest[c.Segment()]; !ok || first.Height < old {
		a.oldest[c.Segment()] = first.Height
	}
}

// toGenesis follows a chain down. It may end where all who have the segment have
// forgotten what was before; anything else is missing.
func (l *look) toGenesis(a *archive, c *lineage.Chain) {
	e := c.Entries()[0]
	for e.Kind != lineage.Genesis {
		before := a.entries[e.Previous[0]]
		if before != nil {
			e = before
			continue
		}
		oldest, cut := a.oldest[e.Segment]
		switch {
		case cut && !a.begun[e.Segment] && e.Height <= oldest:
			l.note("the lineage of segment %s is kept from height %d of segment %s on", c.Segment(), e.Height, e.Segment)
		case l.held[e.Segment] == nil:
			l.note("the lineage of segment %s leads to segment %s at height %d, which no node that answered has any more", c.Segment(), e.Segment, e.Height)
		default:
			l.find(Lineage, c.Segment(), "", "the lineage of segment %s does not lead to genesis: below height %d of segment %s, %s is missing",
				c.Segment(), e.Height, e.Segment, e.Previous[0])
			l.marked("%s", e.Previous[0])
		}
		return
	}
}

func (l *look) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	for _, n := range l.Notes {
		if n == text {
			return
		}
	}
	l.Notes = append(l.Notes, text)
}

// proved makes sure that each entry has a proof that holds, with whoever.
func (l *look) proved(a *archive, c *lineage.Chain, seen map[anchormesh.Hash]bool) {
	var before *lineage.Entry
	for _, e := range c.Entries() {
		h := e.Hash()
		key := h
		key[0] ^= 0xff // heads are in the same map
		if !seen[key] {
			seen[key] = true
			if err := l.proof(a, before, e, h); err != nil {
				l.find(Unproven, c.Segment(), "", "in the lineage of segment %s the %s at index %d is not proved: %v", c.Segment(), e.Kind, e.Index, err)
				l.marked("%s", h)
			}
		}
		before = e
	}
}

func (l *look) proof(a *archive, before, e *lineage.Entry, h anchormesh.Hash) error {
	err := fmt.Errorf("nobody keeps a proof of it")
	for _, p := range a.proofs[h] {
		if err = l.check(before, p); err == nil {
			return nil
		}
	}
	return err
}
