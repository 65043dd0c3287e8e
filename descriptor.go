package anchormesh

import (
	"bytes"
	"fmt"
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

// Class says what an acknowledged write of a scope survives. The policy of the
// scope decides it.
type Class uint8

const (
	// Normal is etcd's contract: a majority has it on disk.
	Normal Class = iota
	// Light: a majority has it in memory; the disks follow.
	Light
	// Strong is Normal, with more acknowledgements and with approvals.
	Strong
)

// String is the word used in policies, tables and metrics.
func (c Class) String() string {
	switch c {
	case Normal:
		return "normal"
	case Light:
		return "light"
	case Strong:
		return "strong"
	}
	return "unknown"
}

// MarshalText implements encoding.TextMarshaler: a class is written as its word.
func (c Class) MarshalText() ([]byte, error) {
	if c > Strong {
		return nil, fmt.Errorf("class %d has no word", uint8(c))
	}
	return []byte(c.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Class) UnmarshalText(word []byte) error {
	for _, known := range []Class{Light, Normal, Strong} {
		if string(word) == known.String() {
			*c = known
			return nil
		}
	}
	return fmt.Errorf("%q is no class: want light, normal or strong", word)
}

// Descriptor says what a segment is and who holds it. The segment's own log
// decides it; a descriptor learnt from anywhere else is a hint. Two descriptors
// of one range are ordered by (Generation, Changed).
type Descriptor struct {
	Mesh    MeshID
	Segment SegmentID
	Range   KeyRange
	Scope   []byte // the scope's key prefix; empty is the root scope
	// Line is the prefix of the scope that keeps the line of revisions on which this
	// segment's writes are: Scope itself, or a scope around it.
	Line       []byte
	Policy     uint64 // version of the scope's policy that the segment has adopted; 0: the mesh's default
	Class      Class
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
	// Joint says that a change of voters is not over: some that are not named
	// here any more may still count.
	Joint bool
}

// LineHome reports whether this is its line's home: the segment whose range begins
// at the prefix of the line's scope, whether or not it holds a key. The line of
// revisions is kept there. To find the home of a line, look up its prefix.
func (d *Descriptor) LineHome() bool { return bytes.Equal(d.Range.Start, d.Line) }

// Home reports whether this is its scope's home: the segment whose range begins at
// the scope's prefix. The policy and its history are kept there.
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
