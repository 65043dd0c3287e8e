package place

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// World is everything Step looks at.
type World struct {
	Self     anchormesh.NodeID
	Nodes    []Node    // all members, this node included, in a fixed order
	Segments []Segment // those that this node leads
	Orders   []Order
}

// Node is a member and what it said of itself. It is a hint, and may be late.
type Node struct {
	recruit.Member
	Leaving  bool      // it is being drained
	Heard    time.Time // when its summary was made; this node's own is made now
	Replicas int       // that it holds
	Leaders  int       // of these it leads
	Load     uint64    // of the segments it leads, in thousandths of a threshold
}

// Segment is one that this node leads.
type Segment struct {
	Descriptor *anchormesh.Descriptor
	// Degraded is recruit's Plan.Degraded.
	Degraded string
	// Busy: a split, a merge or their preparation is under way; only orders are
	// obeyed.
	Busy  bool
	Load  uint64    // thousandths of a threshold
	Since time.Time // led here, its range and anchors unchanged, since
	// Child: it came from a split as the right side and has not moved since.
	Child bool
}

// Order is a move that somebody else decided. It is given with every Step until
// it is done or withdrawn.
type Order struct {
	Segment anchormesh.SegmentID
	Kind    Kind
	From    anchormesh.NodeID // Replace: the anchor's node
	To      anchormesh.NodeID // Replace: empty leaves the choice to this package
	Align   bool              // it aligns the segment with a neighbour, for a merge
}

// Kind says what a Move asks for.
type Kind uint8

const (
	// Transfer hands leadership to the voter Replica.
	Transfer Kind = iota + 1
	// Replace gives the place of the voter Replica to the node To.
	Replace
)

var kinds = [...]string{"", "transfer", "replace"}

// String is the word used in tables and logs.
func (k Kind) String() string { return kinds[k] }

// Cause is why.
type Cause uint8

// The causes, most urgent first.
const (
	ByOrder Cause = iota + 1
	ByDrain
	ByZone
	BySplit
	ByLoad
	ByRoom
)

var causes = [...]string{"", "order", "drain", "zone", "split", "load", "room"}

// String is the word used in tables and logs.
func (c Cause) String() string { return causes[c] }

// Move is one wish.
type Move struct {
	Segment anchormesh.SegmentID
	Kind    Kind
	Cause   Cause
	Replica anchormesh.ReplicaID
	To      anchormesh.NodeID // of Transfer, too
	Why     string            // one sentence
}

// Wish is a Replace as recruit takes it.
func (m Move) Wish() *recruit.Move {
	return &recruit.Move{Replica: m.Replica, To: m.To, Balance: m.Cause >= BySplit, Why: m.Why}
}

// Plan is the outcome of a Step. A Replace is repeated in every plan, those of
// degraded groups left out, until it is done or given up; a Transfer is named once.
type Plan struct {
	Moves []Move
	Notes []string // what is wanted and cannot be, one sentence each
}
