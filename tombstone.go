package anchormesh

// Tombstone says that a segment is retired and who governs its range now. A
// segment ID is never reused, so a tombstone is true for good; it is kept until
// nobody needs it any more. Like a descriptor learnt from others it is a hint.
type Tombstone struct {
	Segment SegmentID
	// Generation is the last one the segment had. Whoever governs the range now
	// has a higher one.
	Generation Generation
	Range      KeyRange
	// Successors are the segments that took the range over, in key order. They
	// may be retired by now themselves.
	Successors []SegmentID
}
