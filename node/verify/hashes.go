package verify

import (
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

// Question asks a node for its replica's hash.
type Question struct {
	Node       anchormesh.NodeID
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	// At is the revision up to which it is taken; Floor that of a compaction: of what
	// lies at or below it only what is alive counts.
	At, Floor anchormesh.Revision
}

// Answer is a replica's hash, or why there is none.
type Answer struct {
	Question
	Sum uint64
	// Stands is where in its log the replica stood; zero where it was asked behind a
	// barrier.
	Stands lineage.Place
	Err    error
}

// Questions returns what to ask to compare the replicas of all owners, at a revision
// or, with 0, at the newest that a replica is at. That one was given out for sure.
func Questions(owners []Owner, at anchormesh.Revision) (out []Question) {
	if at == 0 {
		at = newestRevision(owners)
	}
	for _, o := range owners {
		q := Question{Segment: o.Descriptor.Segment, Generation: o.Descriptor.Generation, At: at, Floor: -1}
		for _, h := range o.Replicas {
			q.Floor = max(q.Floor, h.Compacted)
		}
		for _, h := range o.Replicas {
			if _, anchor := o.Descriptor.AnchorOn(h.Node); anchor {
				q.Node = h.Node
				out = append(out, q)
			}
		}
	}
	return out
}

// newestRevision is the newest that a replica is at.
func newestRevision(owners []Owner) (at anchormesh.Revision) {
	for _, o := range owners {
		for _, h := range o.Replicas {
			at = max(at, h.Revision)
		}
	}
	return at
}

// Apart returns which of the answers of replicas as they stand, one to each of Questions, say
// nothing yet: they are to be asked again, behind a barrier.
//
// Where all anchors of a segment stand at one place of its log they have applied the same
// entries, so their hashes are equal or one has gone wrong. And nothing is missing: what was
// acknowledged before they were asked had been applied by an anchor, and so was by all. With
// thousands of segments that nobody writes to, that spares waking every group. A revision
// that nobody is at may never have been given out, and only a barrier finds out.
func Apart(owners []Owner, answers []Answer) (out []int) {
	known := newestRevision(owners)
	anchors := make(map[anchormesh.SegmentID]int, len(owners))
	for _, o := range owners {
		anchors[o.Descriptor.Segment] = len(o.Descriptor.Anchors)
	}
	for first := 0; first < len(answers); {
		a, end := &answers[first], first
		together := a.At <= known && a.Stands != lineage.Place{}
		for ; end < len(answers) && answers[end].Segment == a.Segment; end++ {
			o := &answers[end]
			together = together && o.Err == nil && o.Stands == a.Stands && o.Floor == a.Floor
		}
		if together = together && end-first == anchors[a.Segment]; !together {
			for i := first; i < end; i++ {
				out = append(out, i)
			}
		}
		first = end
	}
	return out
}

// Raise returns what to ask again: of segments that were compacted meanwhile, at the
// highest floor that an answer names.
func Raise(answers []Answer) (again []Question) {
	floors := make(map[anchormesh.SegmentID]anchormesh.Revision)
	for _, a := range answers {
		if a.Err == nil {
			floors[a.Segment] = max(floors[a.Segment], a.Floor)
		}
	}
	for _, a := range answers {
		if a.Err == nil && a.Floor < floors[a.Segment] {
			a.Floor = floors[a.Segment]
			again = append(again, a.Question)
		}
	}
	return again
}

// Differing judges the answers. Each replica is compared with the one that the most
// others agree with.
func Differing(answers []Answer) (out []Finding) {
	bySegment := make(map[anchormesh.SegmentID][]Answer)
	var order []anchormesh.SegmentID
	for _, a := range answers {
		if bySegment[a.Segment] == nil {
			order = append(order, a.Segment)
		}
		bySegment[a.Segment] = append(bySegment[a.Segment], a)
	}
	slices.Sort(order)
	for _, id := range order {
		usual, ok := most(bySegment[id])
		for _, a := range bySegment[id] {
			switch {
			case a.Err != nil:
				out = append(out, Finding{Kind: Hash, Segment: id, Node: a.Node, Text: fmt.Sprintf("the replica of segment %s on node %s cannot be hashed at revision %d: %v",
					id, a.Node.Short(), a.At, a.Err)})
			case ok && a.Sum != usual.Sum:
				out = append(out, Finding{Kind: Hash, Segment: id, Node: a.Node, Text: fmt.Sprintf("at revision %d segment %s has hash %016x on node %s, %016x on node %s",
					a.At, id, a.Sum, a.Node.Short(), usual.Sum, usual.Node.Short())})
			}
		}
	}
	return out
}

// most returns an answer that most agree with; the first of them in doubt.
func most(answers []Answer) (best Answer, ok bool) {
	count := 0
	for _, a := range answers {
		n := 0
		for _, o := range answers {
			if a.Err == nil && o.Err == nil && o.Sum == a.Sum && o.Floor == a.Floor {
				n++
			}
		}
		if n > count {
			best, count, ok = a, n, true
		}
	}
	return best, ok
}
