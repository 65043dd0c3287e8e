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

// ---- Raft, reduced

func (r *replica) lastTerm() uint64 {
	if len(r.log) == 0 {
		return 0
	}
	return r.log[len(r.log)-1].term
}

func (r *replica) upToDate(o *replica) bool {
	return r.lastTerm() > o.lastTerm() || r.lastTerm() == o.lastTerm() && len(r.log) >= len(o.log)
}

func (r *replica) elect(o *replica) {
	if r == o || !r.exists || !o.exists || !r.w.linked(r.node, o.node) || !r.upToDate(o) {
		return
	}
	term := max(r.term, o.term) + 1
	o.hear(term)
	r.hear(term)
	r.leader = true
	r.match = [nodeCount]int{}
	r.log = append(r.log, &entry{term: term, kind: "noop", gen: r.gen})
	if r.w.fault == earlyLead {
		r.lead()
	}
}

// hear notes a term and steps down if it is a later one.
func (r *replica) hear(term uint64) {
	if term <= r.term {
		return
	}
	was := r.term
	r.term = term
	if !r.leader {
		return
	}
	r.leader = false
	for _, x := range r.rounds {
		r.w.redo(x)
	}
	r.rounds = nil
	clear(r.open) // their outcome is unknown
	r.w.sometime(func() { r.deposed(was) })
}

// redo gives a round up, or lets another leader win it, as Raft does for
// followers.
func (w *world) redo(x *round) {
	if w.rng.IntN(3) == 0 {
		w.sure(x.lost)
		return
	}
	w.start(x)
}

// start begins a round at whoever leads, seen from the replica that wants it.
func (w *world) start(x *round) {
	at := x.for_
	if !at.leader {
		for _, o := range at.g.replicas {
			if o.leader && o.term >= at.term && w.linked(o.node, at.node) {
				at = o
			}
		}
	}
	if !at.leader || at.commit == 0 || at.log[at.commit-1].term != at.term {
		w.sure(x.lost)
		return
	}
	x.term, x.index, x.acks = at.term, at.commit, [nodeCount]bool{}
	x.acks[at.node] = true
	at.rounds = append(at.rounds, x)
}

// reach is one exchange from a leader to a follower: entries and heartbeat.
func (r *replica) reach(o *replica) {
	w := r.w
	if !r.leader || r == o || !o.exists || !w.linked(r.node, o.node) {
		return
	}
	if o.term > r.term {
		r.hear(o.term)
		return
	}
	o.hear(r.term)
	if n := len(o.log); n <= len(r.log) && (n == 0 || r.log[n-1] == o.log[n-1]) {
		o.log = append(o.log, r.log[n:]...) // equal at one place, equal before it
	} else {
		o.log = append([]*entry(nil), r.log...)
	}
	o.commit = max(o.commit, min(r.commit, len(o.log)))
	term, n, rounds := r.term, len(o.log), append([]*round(nil), r.rounds...)
	w.send(func() { r.acked(o.node, term, n, rounds) })
}

func (r *replica) acked(from int, term uint64, n int, rounds []*round) {
	if !r.leader || r.term != term {
		return
	}
	r.match[from] = max(r.match[from], n)
	if n := r.match[from]; n > r.commit && r.log[n-1].term == r.term {
		r.commit = n
	}
	for _, x := range rounds {
		if x.term == term && !x.acks[from] {
			x.acks[from] = true
			r.confirm(x)
		}
	}
}

// confirm ends a round: two of three are a majority.
func (r *replica) confirm(x *round) {
	for i, o := range r.rounds {
		if o == x {
			r.rounds = append(r.rounds[:i], r.rounds[i+1:]...)
			if x.for_ != r {
				x.term = 0
			}
			x.for_.wait = append(x.for_.wait, x)
			x.for_.settleRounds()
			return
		}
	}
}

// settleRounds ends the rounds whose index is applied.
func (r *replica) settleRounds() {
	kept := r.wait[:0]
	for _, x := range r.wait {
		if r.done < x.index {
			kept = append(kept, x)
			continue
		}
		ready, term := x.ready, x.term
		if r.w.fault == forwardedRounds && term == 0 {
			term = r.holder.Seat().Term
		}
		r.w.sure(func() { ready(term) })
	}
	r.wait = kept
}

// flush proposes what was stamped. An entry of another term than the stamp's is
// never made.
func (r *replica) flush() {
	for _, x := range r.outbox {
		if !r.leader || x.term != r.term && r.w.fault != lateProposals {
			r.ended(x.e, false)
			continue
		}
		r.propose(x.e)
	}
	r.outbox = r.outbox[:0]
}

func (r *replica) propose(e *entry) {
	e.term = r.term
	r.log = append(r.log, e)
	r.open[len(r.log)-1] = e
}

// ---- Applying

func (r *replica) apply() {
	if r.done >= r.commit {
		return
	}
	i := r.done
	e := r.log[i]
	r.done++
	ok := e.gen == r.gen || e.kind == "noop"
	switch {
	case !ok:
	case e.kind == "write" || e.kind == "prepare":
		ok = e.stamp > r.last && r.held[e.key] == 0
		if ok {
			r.last = e.stamp
			r.applyWrite(e)
		}
	case e.kind == "commit":
		r.applyCommit(e)
	case e.kind == "window":
		r.window = max(r.window, e.window)
	case e.kind == "split":
		r.split(e)
	}
	if r.leader && r.holder.Seat().Term != r.term && e.term == r.term {
		r.lead()
	}
	mine := r.open[i] == e
	delete(r.open, i)
	if mine {
		r.ended(e, ok)
	}
	if ok && e.kind == "window" && r.home.seat.Term != 0 {
		r.home.Windowed(r.told(e), r.window)
		r.drive()
	}
	r.settleRounds()
}

func (r *replica) applyWrite(e *entry) {
	if e.kind == "write" {
		r.keys[e.key] = append(r.keys[e.key], version{e.stamp, e.op.id})
		return
	}
	r.held[e.key] = e.stamp
	if r.w.fault != ignoredHolds {
		r.holder.Hold(e.stamp)
	}
}

// applyCommit applies a decision, once: it is for the prepared stamp that it names.
func (r *replica) applyCommit(e *entry) {
	if p := r.held[e.key]; p == 0 || p != e.op.stamp {
		return
	}
	if e.stamp != 0 {
		r.keys[e.key] = append(r.keys[e.key], version{e.stamp, e.op.id})
		r.last = max(r.last, e.stamp)
	}
	r.holder.Release(r.held[e.key])
	r.held[e.key] = 0
	r.drive()
}

func (r *replica) heldStamps() (out []anchormesh.Revision) {
	for _, p := range r.held {
		if p != 0 && r.w.fault != ignoredHolds {
			out = append(out, p)
		}
	}
	return out
}

// ended tells what became of a proposal made here.
func (r *replica) ended(e *entry, ok bool) {
	if e.kind == "window" {
		if !ok {
			r.home.WindowFailed()
		}
		return
	}
	if e.op == nil {
		return
	}
	if e.kind != "commit" {
		r.holder.Ended(e.stamp)
	}
	e.op.outcome(r.w, e, ok)
	r.drive()
}

func (r *replica) split(e *entry) {
	r.w.splits++
	c := e.child.replicas[r.node]
	c.exists = true
	c.state = r.state
	c.gen, c.lo = r.gen+1, e.key
	r.gen, r.hi = r.gen+1, e.key
	for k := range r.keys {
		if k < r.lo || k >= r.hi {
			r.keys[k], r.held[k] = nil, 0
		}
		if k < c.lo || k >= c.hi {
			c.keys[k], c.held[k] = nil, 0
		}
		c.keys[k] = append([]version(nil), c.keys[k]...)
	}
	if r.holder.Seat().Term != 0 {
		r.holder.Structure(r.told(e), r.gen, r.keyRange(), r.heldStamps())
		r.home.Structure(r.told(e), r.gen, r.keyRange(), r.window)
		r.drive()
	}
}

// told is the term that the cores are told of an entry's.
func (r *replica) told(e *entry) uint64 {
	if now := r.holder.Seat().Term; r.w.fault == foreignWindow || r.w.fault == earlyLead && e.term < now {
		return now
	}
	return e.term
}

func (r *replica) keyRange() anchormesh.KeyRange {
	var k anchormesh.KeyRange
	if r.lo > 0 {
		k.Start = []byte{byte(r.lo)}
	}
	if r.hi < keyCount {
		k.End = []byte{byte(r.hi)}
	}
	return k
}

// mask is a set of keys, one bit each.
func mask(k anchormesh.KeyRange) (m uint32) {
	for i := range keyCount {
		if k.Contains([]byte{byte(i)}) {
			m |= 1 << i
		}
	}
	return m
}

// ---- Driving the cores, as a node does

func (r *replica) isHome() bool { return r.lo == 0 }

func (r *replica) seat() Seat { return Seat{Line: 1, Segment: r.g.id, Generation: r.gen, Term: r.term} }

func (r *replica) lead() {
	r.holder.Lead(r.seat(), r.keyRange(), r.heldStamps())
	if r.isHome() {
		r.w.tally.homes++
		l := Lead{Seat: r.seat(), Range: r.keyRange(), Window: r.window, Last: r.last}
		if r.w.fault == windowAsGiven {
			l.Window = r.last
		}
		r.home.Lead(l)
		if r.w.fault == windowAsGiven {
			r.home.window = max(r.window, r.last)
		}
		if r.w.fault == noRangeMemory {
			r.home.spots.floor = 0
		}
		r.w.nodes[r.node].coll.SetHome(r.g.id)
	}
	r.drive()
}

func (r *replica) deposed(term uint64) {
	if r.holder.Seat().Term != term {
		return
	}
	r.holder.Deposed()
	if r.isHome() {
		r.home.Deposed()
		r.w.nodes[r.node].coll.SetHome(0)
	}
	r.drive()
}

// drive carries out what the cores of a replica want.
func (r *replica) drive() {
	r.driveHome()
	fx := r.holder.Take()
	for _, s := range fx.Stamped {
		s.Write.stamp = s.Stamp
		if s.Write.dead {
			r.holder.Ended(s.Stamp)
			continue
		}
		r.outbox = append(r.outbox, outgoing{fx.Seat.Term, &entry{kind: s.Write.kind, gen: fx.Seat.Generation, stamp: s.Stamp, key: s.Write.key, op: s.Write}})
		if r.w.fault == openStamps {
			r.holder.Ended(s.Stamp)
		}
	}
	for _, o := range fx.Back {
		o.fail(r.w)
	}
	if fx.Round != 0 {
		n, term := fx.Round, fx.Seat.Term
		done := func(term uint64) { r.holder.RoundDone(n, term); r.drive() }
		if r.w.fault == noBarrierRound {
			r.w.sure(func() { done(term) })
		} else {
			r.w.start(&round{for_: r, ready: done, lost: func() { r.holder.RoundFailed(n); r.drive() }})
		}
	}
	for _, p := range fx.Passed {
		if call := r.calls[p.Token]; call != nil {
			delete(r.calls, p.Token)
			call(p.Err, r)
		}
	}
	if r.w.fault == forgottenBars {
		r.holder.bars.barred = 0
	}
}

func (r *replica) driveHome() {
	w := r.w
	fx := r.home.Take()
	if fx.Own {
		w.own(r)
	}
	if fx.Window != 0 {
		r.outbox = append(r.outbox, outgoing{r.home.seat.Term, &entry{kind: "window", gen: r.home.seat.Generation, window: fx.Window}})
		if w.fault == uncommittedWindow {
			r.home.Windowed(r.home.seat.Term, fx.Window)
		}
	}
	if fx.Round != 0 {
		n, term := fx.Round, r.home.seat.Term
		done := func(term uint64) { r.home.RoundDone(n, term); r.drive() }
		if w.fault == noHomeRound {
			w.sure(func() { done(term) })
		} else {
			w.start(&round{for_: r, ready: done, lost: func() { r.home.RoundFailed(n); r.drive() }})
		}
	}
	for _, a := range fx.Answers {
		if call := w.homes[a.Token]; call != nil {
			if len(a.Grants) > 0 && w.rng.IntN(100) < w.tardy && !w.calm {
				w.net = append(w.net, message{w.step + w.rng.IntN(40), func() { call(a) }})
				continue
			}
			w.send(func() { call(a) })
		}
	}
}

// own lets the home's own writes take numbers.
func (w *world) own(r *replica) {
	c := w.nodes[r.node].coll
	if c.own != r.g.id {
		return
	}
	for a, ok := c.OwnAsk(); ok; a, ok = c.OwnAsk() {
		g, err := r.home.Own(a)
		c.OwnGrant(a, g, err)
		if err != nil {
			return
		}
	}
}

// ask sends a request to somebody who leads the home, or thinks so.
func (w *world) ask(from int, asks []Ask, since []anchormesh.Revision, then func(Answer)) {
	home := w.groups[0]
	know := home.replicas[from]
	var to *replica
	for i, start := 0, w.rng.IntN(nodeCount); i < nodeCount; i++ {
		if r := home.replicas[(start+i)%nodeCount]; r.home.seat.Term != 0 {
			to = r
		}
	}
	if to == nil {
		w.sure(func() { then(Answer{Err: ErrNotLeader}) })
		return
	}
	req := Request{Line: 1, Segment: home.id, Generation: know.gen, Asks: append([]Ask(nil), asks...), Since: since}
	w.token++
	token := w.token
	w.homes[token] = then
	w.send(func() {
		to.home.Request(token, req)
		to.drive()
	})
}

// collect sends a node's next request for stamps.
func (w *world) collect(n *node) {
	if own := w.groups[0].replicas[n.id]; n.coll.own == own.g.id {
		w.own(own)
		own.drive()
	}
	seq, asks, ok := n.coll.Collect(w.now())
	if !ok {
		return
	}
	w.ask(n.id, asks, nil, func(a Answer) {
		if a.Err != nil {
			n.coll.Failed(seq)
			return
		}
		w.granted(n, seq, a.Grants)
	})
}

func (w *world) granted(n *node, seq uint64, grants []Grant) {
	if w.fault == pooledStamps || w.fault == lateGrants {
		seq, grants = w.forge(n, seq, grants)
	}
	for _, g := range grants {
		if h := n.coll.Holder(g.Segment); h.asked > 0 && g.Seq == h.seq && g.First <= h.bars.barred {
			w.thrown++
		}
	}
	n.coll.Granted(seq, grants)
	for _, g := range grants {
		w.groups[g.Segment-1].replicas[n.id].drive()
	}
}

// forge makes old grants look new.
func (w *world) forge(n *node, seq uint64, grants []Grant) (uint64, []Grant) {
	grants = append([]Grant(nil), grants...)
	for i := range grants {
		g, h := &grants[i], n.coll.Holder(grants[i].Segment)
		same := g.Term == h.seat.Term && g.Generation == h.seat.Generation
		if same && w.fault == lateGrants || !same && w.fault == pooledStamps {
			g.Term, g.Generation, g.Seq, seq = h.seat.Term, h.seat.Generation, h.seq, n.coll.seq
		}
	}
	return seq, grants
}
