package line

import (
	"math/rand/v2"
	"time"

	"github.com/anchormesh/anchormesh"
)

// The world of the model: three nodes, some segments with one replica on each, and
// a Raft that is reduced to what matters here. Terms, majorities, logs whose
// uncommitted tails get lost, commits that are learnt late, apply that lags,
// leaders that do not know that they are replaced, rounds that are forwarded.
// Everything runs in one goroutine on one seed.

const (
	nodeCount = 3
	keyCount  = 16
)

// fault is what a world does wrong on purpose.
type fault int

const (
	none fault = iota
	noHomeRound
	noBarrierRound
	forwardedRounds
	uncommittedWindow
	windowAsGiven
	foreignWindow
	earlyLead
	pooledStamps
	lateGrants
	forgottenBars
	openStamps
	lateProposals
	hastySince
	matchedIDs
	noRangeMemory
	ignoredHolds
	faultCount
)

var faultNames = [...]string{
	"none", "no round before stamps", "no round before barriers", "another leader's round", "window not applied", "window counted as free", "the successor's window",
	"leading before an entry of the own term", "stamps pooled over terms", "grants for later writes", "bars forgotten", "stamped entries not waited for",
	"proposed in another term", "since the last question, not the last barrier", "ranges matched by segment", "home forgets where stamps went",
	"prepared transactions not waited for",
}

type version struct {
	rev anchormesh.Revision
	id  int // of the write
}

type entry struct {
	term   uint64
	kind   string // noop, write, window, split, prepare, commit
	gen    anchormesh.Generation
	stamp  anchormesh.Revision
	key    int
	op     *op
	window anchormesh.Revision
	child  *group
}

// state is what applying the log of a segment gives.
type state struct {
	gen    anchormesh.Generation
	lo, hi int
	last   anchormesh.Revision
	window anchormesh.Revision
	keys   [keyCount][]version
	held   [keyCount]anchormesh.Revision // prepared stamp, 0: none
}

type group struct {
	id       anchormesh.SegmentID
	replicas [nodeCount]*replica
}

type outgoing struct {
	term uint64
	e    *entry
}

type replica struct {
	w      *world
	g      *group
	node   int
	exists bool
	term   uint64
	leader bool
	log    []*entry
	match  [nodeCount]int
	commit int
	done   int // applied
	rounds []*round
	wait   []*round // confirmed, waiting for apply
	outbox []outgoing
	open   map[int]*entry // proposed here in this term, by index

	state
	home   *Home
	holder *Holder[*op]
	calls  map[uint64]func(error, *replica) // barriers
}

type round struct {
	for_  *replica
	term  uint64
	index int
	acks  [nodeCount]bool
	ready func(term uint64)
	lost  func()
}

type node struct {
	id   int
	coll *Collector[*op]
}

type message struct {
	due int // not before this step
	f   func()
}

type world struct {
	rng    *rand.Rand
	fault  fault
	cfg    Config
	clock  int64 // counts starts and ends of operations
	step   int
	calm   bool
	nodes  [nodeCount]*node
	groups []*group
	cut    [nodeCount]bool // cut off from the other nodes' Raft
	net    []message
	deaf   int // percent: how long a core may not hear that it is deposed
	slow   int // percent of messages that take long
	tardy  int // percent of grants that take long, so that barriers overtake them
	unrest int // turns between two tries to elect, about
	lazy   int // turns until what was stamped is proposed, about
	token  uint64
	homes  map[uint64]func(Answer)
	ops    []*op
	txns   []*txn
	reads  []*read
	askers []*asker
	tally
}

// tally counts what happened, so that a world in which nothing happens is noticed.
type tally struct{ writes, reads, txns, splits, homes, thrown, claims int }

func newWorld(seed uint64, f fault) *world {
	w := &world{rng: rand.New(rand.NewPCG(seed, 7)), fault: f, cfg: DefaultConfig(), homes: make(map[uint64]func(Answer))}
	w.cfg.Window = anchormesh.Revision(4 + w.rng.IntN([]int{4, 40}[w.rng.IntN(2)]))
	w.cfg.Patience = time.Duration(1+w.rng.IntN(40)) * time.Millisecond
	w.cfg.Retry = time.Duration(20+w.rng.IntN(120)) * time.Millisecond
	w.cfg.SpotsMax = 1 + w.rng.IntN(12)
	w.cfg.RangesMax = 1 + w.rng.IntN(12)
	w.deaf = []int{0, 90, 99}[w.rng.IntN(3)]
	w.slow = []int{0, 10, 50}[w.rng.IntN(3)]
	w.tardy = []int{0, 60}[w.rng.IntN(2)]
	w.unrest = []int{100, 30, 10}[w.rng.IntN(3)]
	w.lazy = []int{2, 2, 30}[w.rng.IntN(3)]
	for i := range w.nodes {
		w.nodes[i] = &node{id: i, coll: NewCollector[*op](w.cfg)}
	}
	cuts := []int{0}
	for n := 2 + w.rng.IntN(3); n > 0; n-- {
		cuts = append(cuts, min(cuts[len(cuts)-1]+1+w.rng.IntN(5), keyCount-n))
	}
	for i, lo := range cuts {
		hi := keyCount
		if i+1 < len(cuts) {
			hi = cuts[i+1]
		}
		g := w.newGroup()
		for _, r := range g.replicas {
			r.exists = true
			r.state = state{gen: 1, lo: lo, hi: hi}
		}
	}
	return w
}

func (w *world) newGroup() *group {
	g := &group{id: anchormesh.SegmentID(len(w.groups) + 1)}
	for n := range g.replicas {
		r := &replica{w: w, g: g, node: n, open: make(map[int]*entry), calls: make(map[uint64]func(error, *replica))}
		r.home, r.holder = NewHome(w.cfg), NewHolder[*op](w.cfg)
		w.nodes[n].coll.Add(g.id, r.holder)
		g.replicas[n] = r
	}
	w.groups = append(w.groups, g)
	return g
}

func (w *world) now() time.Time { return time.UnixMilli(int64(w.step)) }

func (w *world) tick() int64 { w.clock++; return w.clock }

// send puts a message on its way: late, lost, twice.
func (w *world) send(f func()) {
	if w.calm {
		w.sure(f)
		return
	}
	p := w.rng.IntN(100)
	if p >= 4 {
		w.net = append(w.net, message{w.delay(), f})
	}
	if p >= 94 {
		w.net = append(w.net, message{w.delay(), f})
	}
}

func (w *world) delay() int {
	if w.rng.IntN(100) < w.slow {
		return w.step + w.rng.IntN(60)
	}
	return w.step
}

// sure is for what happens inside a node: soon, and once.
func (w *world) sure(f func()) { w.net = append(w.net, message{w.step, f}) }

// sometime is for what a core may learn very late.
func (w *world) sometime(f func()) {
	w.sure(func() {
		if !w.calm && w.rng.IntN(100) < w.deaf {
			w.sometime(f)
			return
		}
		f()
	})
}

func (w *world) linked(a, b int) bool { return a == b || !w.cut[a] && !w.cut[b] }
