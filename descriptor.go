package anchormesh

import (
	"bytes"
	"slices"
)

// Role says whether an anchor counts in its group's majorities.
type Role uint8

const (
	// Voter counts in majorities.
	Voter Role = iota + 1
	// Learner receives the log and counts in nothing.
	Learner
)

// String is the word used in tables and logs.
func (r Role) String() string {
	switch r {
	case Voter:
		return "voter"
	case Learner:
		return "learner"
	}
	return "unknown"
}

// Anchor is a node's replica of a segment.
type Anchor struct {
	Node    NodeID
	Replica ReplicaID
	Role    Role
	Zone    string
}

// Descriptor says what a segment is and who holds it. The segment's own log
// decides it; a descriptor learnt from anywhere else is a hint. Two descriptors
// of one range are ordered by (Generation, Changed).
type Descriptor struct {
	Mesh       MeshID
	Segment    SegmentID
	Range      KeyRange
	Scope      []byte // the scope's key prefix; empty is the root scope
	Generation Generation
	Changed    uint64   // log index of the entry that last changed this descriptor
	Anchors    []Anchor // sorted by Replica
	// NextReplica is the replica ID that the next new anchor gets.
	NextReplica ReplicaID
	// Lineage is the head of the segment's hash chain of structural decisions,
	// the one behind this descriptor. Zero: made before segments kept one.
	Lineage Hash
	// Stamped says that the scope has been split: its home's leader hands out
	// the revisions, for good.
	Stamped bool
	// Joint says that a change of voters is half way: some that are not named
	// here any more may still count.
	Joint bool
}

// Home reports whether this is its scope's home: the segment whose range begins
// at the scope's prefix, whether or not it holds a key. The scope's line of
// revisions is kept there. To find the home of a scope, look up its prefix.
func (d *Descriptor) Home() bool { return bytes.Equal(d.Range.Start, d.Scope) }

// Newer reports whether d replaces o as knowledge about the same segment.
func (d *Descriptor) Newer(o *Descriptor) bool {
	if d.Generation != o.Generation {
		return d.Generation > o.Generation
	}
	return d.Changed > o.Changed
}

// AnchorOn returns the anchor that node holds, if it holds one.
func (d *Descriptor) AnchorOn(node NodeID) (Anchor, bool) {
	for _, a := range d.Anchors {
		if a.Node == node {
			return a, true
		}
	}
	return Anchor{}, false
}

// Replica returns the anchor with the given replica ID.
func (d *Descriptor) Replica(id ReplicaID) (Anchor, bool) {
	for _, a := range d.Anchors {
		if a.Replica == id {
			return a, true
		}
	}
	return Anchor{}, false
}

// Voters returns the voting anchors in order of their replica IDs.
func (d *Descriptor) Voters() []Anchor {
	var out []Anchor
	for _, a := range d.Anchors {
		if a.Role == Voter {
			out = append(out, a)
		}
	}
	return out
}

// Clone returns a copy that shares nothing that may be changed.
func (d *Descriptor) Clone() *Descriptor {
	c := *d
	c.Anchors = slices.Clone(d.Anchors)
	return &c
}
