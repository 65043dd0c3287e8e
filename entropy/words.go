package entropy

// Action is what should be done with a segment.
type Action uint8

const (
	// None: leave it as it is.
	None Action = iota
	// Split: cut it at Decision.At.
	Split
	// Cool: a split would not help; move its leadership to a node that leads less.
	Cool
	// Shed: neither would, the pressure is far too high; refuse a part of the load.
	Shed
	// Sleep: stop its messages until somebody asks.
	Sleep
	// Merge: it is dormant; join it to a neighbour that is, too.
	Merge
)

var actions = [...]string{"none", "split", "cool", "shed", "sleep", "merge"}

// String is the word used in tables and logs.
func (a Action) String() string { return actions[a] }

// Cause is what a decision is about.
type Cause uint8

// What may press on a segment, what may keep a split from helping, and rest.
const (
	ByNothing Cause = iota
	ByWrites
	ByReads
	ByBytes
	ByLatency
	ByQueue
	BySize   // bytes kept
	ByKeys   // keys kept
	ByHotKey // one key takes the load
	ByEdge   // new keys in one place take it
	ByFew    // a few keys take it
	ByRest   // no operation, or little load for long
)

var causes = [...]string{"nothing", "writes", "reads", "bytes", "latency", "queue", "size", "keys", "hot key", "edge", "few keys", "rest"}

// String is the word used in tables and logs.
func (c Cause) String() string { return causes[c] }
