package weave

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// Event is what happens to a Weave: one of the types below.
type Event interface{ event() }

type (
	// Create asks for a watch. Its ID is one that Pick returned, its range holds a
	// key and its start is not negative.
	Create struct {
		watch.Request
		RequireLeader bool
		// Resumed says that the client was shown everything below StartRevision by
		// whoever served the watch before, so that progress may be claimed there.
		Resumed bool
	}
	// Cancel ends a watch, if there is one.
	Cancel struct{ ID int64 }
	// Progress asks for one response that speaks for all watches of the stream.
	Progress struct{}
	// Located answers Locate: the segments that hold the thread's keys now, in the
	// order of their keys, without a hole.
	Located struct {
		Thread int64
		Parts  []Part
	}
	// Came is what a thread's flow brought; Response.ID is the thread.
	Came struct{ watch.Response }
	// Broke says that a thread's flow ended without a word.
	Broke struct{ Thread int64 }
	// Told answers Ask: Revision was given out by the home after it was asked, and
	// Ranges cover all keys for which a stamp above Since and up to Revision was given
	// out. The bare number of a transaction's commit is for no key.
	Told struct {
		Seq      uint64
		Revision int64
		Since    int64
		Ranges   []anchormesh.KeyRange
	}
	// Leaderless says that keys of the range have had no leader for too long.
	Leaderless struct{ Range anchormesh.KeyRange }
	// Tick says that Effects.Next has come.
	Tick struct{}
)

func (Create) event()     {}
func (Cancel) event()     {}
func (Progress) event()   {}
func (Located) event()    {}
func (Came) event()       {}
func (Broke) event()      {}
func (Told) event()       {}
func (Leaderless) event() {}
func (Tick) event()       {}

// Part is a segment and what it holds.
type Part struct {
	Segment anchormesh.SegmentID
	Range   anchormesh.KeyRange
}

// Effects is what follows from an event, to be done in the order of the fields.
type Effects struct {
	Send    []watch.Response // to the client, in this order
	Close   []int64          // threads whose watches at their hubs end
	Locate  []Locate
	Open    []Open
	Barrier []Barrier
	Ask     *Ask
	Next    time.Time // when to send Tick; zero: never
}

type (
	// Locate asks which segments hold the keys of a thread. The answer is Located, at
	// once or when the route is known again; a thread that broke is not to come back to
	// where it broke without a pause.
	Locate struct {
		Thread int64
		Range  anchormesh.KeyRange
	}
	// Open asks for a watch at the segment's hub, here or on another node; its ID there
	// is the thread. What it brings comes back as Came.
	Open struct {
		Segment anchormesh.SegmentID
		Request watch.Request
	}
	// Barrier asks for a barrier at the segment's leader and then, when all that the
	// leader had applied on answering is applied and published where the threads' hub
	// is, for a mark on each thread (Stream.Mark), or for the end of the thread.
	Barrier struct {
		Segment  anchormesh.SegmentID
		Revision int64
		Threads  []int64
	}
	// Ask is a question to the scope's home, to be repeated until it is answered with
	// Told.
	Ask struct {
		Seq   uint64
		Since int64
	}
)
