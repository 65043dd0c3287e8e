package line

import (
	"errors"

	"github.com/anchormesh/anchormesh"
)

// Errors. All mean: nothing took effect, and it may be tried again.
var (
	// ErrNotLeader: this node does not lead the segment, or leads it no longer.
	ErrNotLeader = errors.New("this node does not lead the segment")
	// ErrGeneration: the segment is another one or of another generation.
	ErrGeneration = errors.New("the segment is of another generation")
	// ErrLine: the segment's numbers come from another line.
	ErrLine = errors.New("the scope counts on another line")
	// ErrRound: no majority confirmed the leader in time.
	ErrRound = errors.New("the leader was not confirmed by a majority")
	// ErrWindow: the window has no numbers left until its extension is applied.
	ErrWindow = errors.New("the window has no numbers left")
	// ErrOverloaded: too much waits already.
	ErrOverloaded = errors.New("too many requests wait for the scope's line")
)

// ID names a line. Numbers of two lines have nothing to do with each other.
type ID uint64

// Seat is where a leader sits. Whatever is asked for or answered in a seat is
// good in that seat only.
type Seat struct {
	Line       ID
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	Term       uint64
}

// Ask wants Count numbers for writes that have arrived at a segment's leader.
type Ask struct {
	Segment    anchormesh.SegmentID // 0: one bare number, the commit revision of a transaction
	Generation anchormesh.Generation
	Term       uint64
	Seq        uint64 // the Holder's; never used twice in a run of its node
	Range      anchormesh.KeyRange
	Count      int
}

// Grant answers an Ask with the numbers First up to First+Count-1.
type Grant struct {
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	Term       uint64
	Seq        uint64
	First      anchormesh.Revision
	Count      int
}

// Spread says where an asker needs barriers at the answer's T: where Ranges are,
// whoever owns them now, or everywhere.
type Spread struct {
	All    bool
	Ranges []anchormesh.KeyRange // may overlap
}

// Request is what one node wants of the home in one exchange. It may ask for
// nothing: then the answer's T is what it wants.
type Request struct {
	Line       ID
	Segment    anchormesh.SegmentID // the home's, as the sender knows it
	Generation anchormesh.Generation
	Asks       []Ask
	// Since has an entry for each asker on the node that needs to know where a
	// barrier at T is needed: the T of its last barrier that all had answered whom
	// it had to ask; 0 if there was none.
	Since []anchormesh.Revision
	// Raise lifts the line: T and every later number are at or above it, those of later
	// leaders too, for W at or above it is applied before. It is a number that another
	// line gave out, never one that a client named. 0: nothing.
	Raise anchormesh.Revision
	// Claim takes exactly this number, which is nobody's then. If the line was there
	// already the answer is not Claimed, and the line stays. 0: nothing.
	Claim anchormesh.Revision
}

// Answer ends one request. T is at or above all numbers that were given out when
// the request came, and below its own grants.
type Answer struct {
	Token   uint64
	Err     error // if set, nothing else is
	T       anchormesh.Revision
	Grants  []Grant  // one for each ask, in order
	Spreads []Spread // one for each of Since, in order
	Claimed bool     // the number was new, and is the asker's
}

// Barrier asks a segment's leader to promise that nothing at or below T appears in
// it any more.
type Barrier struct {
	Token      uint64 // comes back in the Passed
	Line       ID
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	T          anchormesh.Revision
}

// Passed ends one barrier. Without an error the promise is given, and all at or
// below T is applied here, now.
type Passed struct {
	Token uint64
	Err   error
}
