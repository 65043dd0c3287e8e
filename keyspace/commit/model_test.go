package commit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/explore"
	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// The model: segments with a log, a leader and its lock table; a home that is one
// counter; coordinators and recoverers on any node; messages in any order. The
// cores are the real ones, every command goes through its encoding.
//
// A leader that was cut off is modelled by what it can still do: nothing that
// counts. Its proposals are the entries that a change of leaders drops.

// budget is what may happen in a run.
type budget struct {
	leaders [3]int // changes of leader per segment
	crashes int    // of coordinators
	early   int    // calls given up though an answer may still come
	dups    int    // requests delivered twice; never a Decide
	splits  int    // of the first segment, at its key
}

// plant is a defect that the model must find.
type plant struct {
	growth, barrier, lateRefusal, amnesia, byID, wait, anyTerm, earlyC, blindDecide, blindTell bool
}

type config struct {
	budget budget
	plant  plant
	txns   []*codec.TxnRequest
	put    string // a plain write to this key, if any
	lease  bool   // the plain command ends lease 5 instead
	reader bool
	order  bool // lock in key order
	calm   bool // nobody recovers while the coordinator is at it
	most   int
}

const (
	keyA = "a"
	keyN = "n"
)

type version struct {
	key string
	rev int64
	txn int // -1: the plain write
}

type entry struct {
	term   uint64
	gen    anchormesh.Generation
	from   int // driver
	call   string
	effect Effect
	raw    []byte
	stamp  int64
}

type waiting struct {
	from, part, ahead int
	call              string
	grant             Grant
	reads             []Read
	txn               TxnID
}

type seg struct {
	rng       anchormesh.KeyRange
	gen       anchormesh.Generation
	term      uint64
	log       []entry
	inherited int
	part      *Participant
	locks     *Locks
	reading   []waiting
	versions  []version
	cur       int64
	barred    int64
	revoked   bool
}

func (s *seg) place() Place { return Place{Term: s.term, Generation: s.gen} }

type driver struct {
	txn   int
	coord *Coordinator
	recov *Recoverer
	calls []string // unanswered
	early int64    // a number taken before the prepares, for a plant
}

type message struct {
	from int
	call string
	req  Effect
}

// ghost is what the checks remember of one transaction.
type ghost struct {
	outcome    Outcome
	c          int64
	committed  bool // somewhere
	aborted    bool // somewhere, though prepared
	seen       map[string]int64
	beforeRead bool // answered before the reader began
	writes     []string
}

type world struct {
	cfg     *config
	left    budget
	clock   int64
	segs    []*seg
	drivers []*driver // nil: ended or crashed
	net     []message
	ghosts  []ghost
	putDone bool
	reader  reading
	bad     string
}

type reading struct {
	t    int64
	done []string // keys read, in order
	sees map[string]map[int]bool
}

func txnID(i int) TxnID { return TxnID{0: byte(i + 1)} }

func newWorld(cfg *config) *world {
	w := &world{cfg: cfg, left: cfg.budget, clock: 1}
	for i, r := range []anchormesh.KeyRange{{End: []byte("m")}, {Start: []byte("m")}} {
		s := &seg{rng: r, gen: 1, term: 1, part: &Participant{}, cur: 1}
		s.locks = NewLocks(s.place())
		w.segs = append(w.segs, s)
		_ = i
	}
	for i, txn := range cfg.txns {
		d, err := Divide(txn, []Segment{{Range: w.segs[0].rng}, {Range: w.segs[1].rng}})
		if err != nil {
			panic(err)
		}
		w.ghosts = append(w.ghosts, ghost{seen: map[string]int64{}})
		dr := &driver{txn: i, coord: NewCoordinator(txnID(i), d, cfg.order)}
		w.drivers = append(w.drivers, dr)
		if cfg.plant.earlyC {
			w.clock++
			dr.early = w.clock
		}
		w.effects(i, dr.coord.Start())
	}
	return w
}

func (w *world) clone() *world {
	n := *w
	n.segs = make([]*seg, len(w.segs))
	for i, s := range w.segs {
		c := *s
		c.log, c.reading, c.versions = slices.Clone(s.log), slices.Clone(s.reading), slices.Clone(s.versions)
		p, l := *s.part, *s.locks
		p.changes = nil
		l.held = slices.Clone(l.held)
		c.part, c.locks = &p, &l
		n.segs[i] = &c
	}
	n.drivers = make([]*driver, len(w.drivers))
	for i, d := range w.drivers {
		if d == nil {
			continue
		}
		c := *d
		c.calls = slices.Clone(d.calls)
		if d.coord != nil {
			x := *d.coord
			x.parts = slices.Clone(x.parts)
			c.coord = &x
		} else {
			x := *d.recov
			c.recov = &x
		}
		n.drivers[i] = &c
	}
	n.net = slices.Clone(w.net)
	n.ghosts = slices.Clone(w.ghosts)
	n.reader.done = slices.Clone(w.reader.done)
	return &n
}

func (w *world) find(key []byte) *seg {
	for _, s := range w.segs {
		if s.rng.Contains(key) {
			return s
		}
	}
	panic("no segment")
}

func (w *world) broken(format string, args ...any) {
	if w.bad == "" {
		w.bad = fmt.Sprintf(format, args...)
	}
}

// effects carries out what driver i wants.
func (w *world) effects(i int, effects []Effect) {
	for _, e := range effects {
		call := ""
		switch e := e.(type) {
		case Answer:
			w.answer(w.drivers[i].txn, e)
			continue
		case Acquire:
			call = fmt.Sprintf("acquire %d", e.Part)
		case PrepareAt:
			call = fmt.Sprintf("prepare %d", e.Part)
		case AskRevision: // at once: only the decision's delay counts
			w.number(i)
			continue
		case DecideAt:
			call = fmt.Sprintf("decide %v", e.Command.Commit)
			if e.Command.Commit {
				w.remember(w.drivers[i].txn, w.drivers[i].coord.plan)
			}
		case TellAt:
			call = fmt.Sprintf("tell %s %v", e.Span.Start, e.Command.Commit)
		case ForgetAt:
			call = "forget"
		case ReleaseAt:
			call = fmt.Sprintf("release %s", e.Key)
		}
		if _, ok := e.(ReleaseAt); !ok {
			w.drivers[i].calls = append(w.drivers[i].calls, call)
			slices.Sort(w.drivers[i].calls)
		}
		w.send(message{from: i, call: call, req: e})
	}
	if d := w.drivers[i]; d == nil {
		return
	} else if d.coord != nil && d.coord.Ended() || d.recov != nil && d.recov.Ended() {
		w.drivers[i] = nil
	}
}

func (w *world) number(i int) {
	w.clock++
	c := w.clock
	if w.cfg.plant.earlyC {
		c = w.drivers[i].early
	}
	w.effects(i, w.drivers[i].coord.Step(Numbered{c}))
}

func (w *world) send(m message) {
	i, _ := slices.BinarySearchFunc(w.net, m, func(a, b message) int {
		return cmp.Or(a.from-b.from, cmp.Compare(a.call, b.call))
	})
	w.net = slices.Insert(w.net, i, m)
}

// reply hands an answer over at once: an answer that is under way for long is the
// same as the next request being so, and one that is lost the same as a call given
// up early.
func (w *world) reply(from int, call string, e Event) { w.feed(from, call, e) }

// feed gives an event to a driver that still waits for it.
func (w *world) feed(i int, call string, e Event) {
	d := w.drivers[i]
	if d == nil {
		return
	}
	k := slices.Index(d.calls, call)
	if k < 0 {
		return
	}
	d.calls = slices.Delete(d.calls, k, k+1)
	if d.coord != nil {
		w.effects(i, d.coord.Step(e))
	} else {
		w.effects(i, d.recov.Step(e))
	}
}

func (w *world) answer(txn int, a Answer) {
	g := &w.ghosts[txn]
	if g.outcome != 0 {
		w.broken("transaction %d was answered twice", txn)
	}
	g.outcome, g.beforeRead = a.Outcome, w.reader.t == 0
	if (a.Outcome == Again || a.Outcome == Refused) && g.c > 0 {
		w.broken("transaction %d was denied and has committed", txn)
	}
}

// next returns everything that can happen.
func (w *world) next() []explore.Step[*world] {
	var out []explore.Step[*world]
	add := func(fault bool, label string, do func(n *world)) {
		n := w.clone()
		do(n)
		out = append(out, explore.Step[*world]{Label: label, Fault: fault, State: n})
	}
	w.deliveries(add)
	w.segmentSteps(add)
	w.driverSteps(add)
	w.clientSteps(add)
	return out
}

type adder func(fault bool, label string, do func(n *world))

func (w *world) deliveries(add adder) {
	for i, m := range w.net {
		if i > 0 && m.from == w.net[i-1].from && m.call == w.net[i-1].call {
			continue // the same again
		}
		if !w.deliverable(m) {
			continue
		}
		add(false, fmt.Sprintf("driver %d: %s arrives", m.from, m.call), func(n *world) {
			n.net = slices.Delete(n.net, i, i+1)
			n.deliver(m)
		})
		_, decide := m.req.(DecideAt)
		if w.left.dups > 0 && !decide {
			add(true, fmt.Sprintf("driver %d: %s arrives, to come again", m.from, m.call), func(n *world) {
				n.left.dups--
				n.deliver(m)
			})
		}
	}
}

// target is the segment of a request.
func (w *world) target(m message) *seg {
	switch e := m.req.(type) {
	case Acquire:
		return w.find(e.Key)
	case PrepareAt:
		return w.find(e.Key)
	case DecideAt:
		if w.cfg.plant.byID {
			return w.segs[0]
		}
		return w.find(e.Command.Key)
	case TellAt:
		return w.find(e.Span.Start)
	case ForgetAt:
		return w.find(e.Key)
	case ReleaseAt:
		return w.find(e.Key)
	}
	return nil
}

// deliverable: a leader serves once it has applied what it inherited.
func (w *world) deliverable(m message) bool {
	s := w.target(m)
	if a, ok := m.req.(Acquire); ok && w.cfg.plant.wait {
		return s.inherited == 0 && s.locks.free(txnID(w.drivers[m.from].txn), a.Locks, s.part) == nil
	}
	return s.inherited == 0
}

func (w *world) deliver(m message) {
	s := w.target(m)
	e := entry{from: m.from, call: m.call, effect: m.req}
	switch r := m.req.(type) {
	case Acquire:
		w.acquire(s, m, r)
		return
	case ReleaseAt:
		s.locks.Release(r.Txn)
		return
	case PrepareAt:
		if err := s.locks.Propose(r.Command.Txn, r.Command.Grant); err != nil && !w.cfg.plant.anyTerm {
			w.reply(m.from, m.call, Failed{Err: err})
			return
		}
		w.clock++
		e.stamp, e.raw = w.clock, r.Command.Encode()
	case DecideAt:
		e.raw = r.Command.Encode()
	case TellAt:
		s.locks.Release(r.Command.Txn)
		if w.cfg.plant.blindTell && s.term > 1 && r.Command.Commit { // as if it had not applied the prepare yet
			w.reply(m.from, m.call, Told{Span: r.Span, Range: s.rng})
			return
		}
		e.raw = r.Command.Encode()
	case ForgetAt:
		e.raw = EncodeID(r.Txn)
	}
	s.propose(e)
}

func (s *seg) propose(e entry) {
	e.term, e.gen = s.term, s.gen
	s.log = append(s.log, e)
}

func (w *world) acquire(s *seg, m message, r Acquire) {
	id := txnID(0)
	if d := w.drivers[m.from]; d != nil {
		id = txnID(d.txn)
	} else {
		id = txnID(m.from) // a coordinator that has crashed; drivers begin with one for each
	}
	g, err := s.locks.Acquire(0, id, r.Locks, s.part)
	if err != nil {
		w.reply(m.from, m.call, Failed{Err: err})
		return
	}
	s.reading = append(s.reading, waiting{from: m.from, part: r.Part, ahead: len(s.log), call: m.call, grant: g, reads: r.Reads, txn: id})
	s.read(w)
}

// read answers those whose locks were granted before everything now applied.
func (s *seg) read(w *world) {
	var still []waiting
	for _, r := range s.reading {
		if r.ahead > 0 {
			still = append(still, r)
			continue
		}
		var got []Got
		for _, q := range r.reads {
			var g Got
			for _, k := range []string{keyA, keyN} {
				if v, ok := s.newest(k, 1<<40); ok && q.Range.Contains([]byte(k)) {
					g.KVs = append(g.KVs, codec.KeyValue{Key: []byte(k), Mod: v.rev, Create: v.rev, Version: 1})
				}
			}
			got = append(got, g)
		}
		w.reply(r.from, r.call, Acquired{Part: r.part, Grant: r.grant, Values: got})
	}
	s.reading = still
}

func (s *seg) newest(key string, at int64) (version, bool) {
	var out version
	for _, v := range s.versions {
		if v.key == key && v.rev <= at && v.rev > out.rev {
			out = v
		}
	}
	return out, out.rev > 0
}

func (w *world) segmentSteps(add adder) {
	for i, s := range w.segs {
		if len(s.log) > 0 {
			add(false, fmt.Sprintf("segment %d applies %s", i, s.log[0].call), func(n *world) { n.segs[i].apply(n) })
		}
		if w.left.leaders[i] > 0 {
			for k := range len(s.log) + 1 {
				add(true, fmt.Sprintf("segment %d: new leader, %d of %d entries survive", i, k, len(s.log)), func(n *world) {
					n.left.leaders[i]--
					n.segs[i].elect(k)
				})
			}
		}
		if w.cfg.plant.amnesia && i == 0 && s.term == 1 {
			add(true, "segment 0 forgets everything", func(n *world) {
				n.segs[0].elect(0)
				n.segs[0].part = &Participant{}
			})
		}
		for _, h := range s.locks.held {
			if d := int(h.txn[0]) - 1; !h.proposed && (w.drivers[d] == nil || w.drivers[d].coord == nil || w.drivers[d].coord.phase > preparing) {
				add(false, fmt.Sprintf("segment %d: a lock expires", i), func(n *world) { n.segs[i].locks.Expire(LockMax) })
			}
		}
	}
	if s := w.segs[0]; w.left.splits > 0 && s.inherited == 0 {
		add(true, "segment 0 is split", func(n *world) { n.split() })
	}
}

func (s *seg) elect(survive int) {
	s.log = s.log[:survive]
	s.inherited = survive
	s.term++
	s.locks, s.reading = NewLocks(s.place()), nil
}

// split cuts the first segment at its key: the key goes to the right child. Entries
// behind the split name the old generation and are refused by it.
func (w *world) split() {
	w.left.splits--
	l := w.segs[0]
	at := []byte(keyA)
	r := &seg{rng: anchormesh.KeyRange{Start: at, End: l.rng.End}, gen: 2, term: 1, cur: l.cur, barred: l.barred}
	r.part = l.part.Cut(at)
	r.versions, l.versions = l.versions, nil
	l.rng.End, l.gen = at, 2
	l.locks, r.locks = NewLocks(l.place()), NewLocks(r.place())
	l.reading = nil
	w.segs = append(w.segs, r)
}

func (w *world) driverSteps(add adder) {
	for i, d := range w.drivers {
		if d == nil {
			continue
		}
		for _, call := range d.calls {
			gone := !w.inFlight(i, call)
			if gone || w.left.early > 0 {
				add(!gone, fmt.Sprintf("driver %d: %s: no answer (gone %v)", i, call, gone), func(n *world) {
					if !gone {
						n.left.early--
					}
					n.feed(i, call, n.lost(call))
				})
			}
		}
		if w.left.crashes > 0 && d.coord != nil {
			add(true, fmt.Sprintf("driver %d crashes", i), func(n *world) {
				n.left.crashes--
				n.drivers[i] = nil
			})
		}
	}
	for i, s := range w.segs {
		if s.inherited > 0 {
			continue
		}
		for _, r := range s.part.records {
			if !w.recovering(int(r.Txn[0])-1, false) {
				add(false, fmt.Sprintf("segment %d: recover", i), func(n *world) { n.spawn(int(r.Txn[0])-1, Recover(r)) })
			}
		}
		for _, d := range s.part.decisions {
			if !w.recovering(int(d.Txn[0])-1, true) {
				add(false, fmt.Sprintf("segment %d: resume", i), func(n *world) { n.spawn(int(d.Txn[0])-1, Resume(d)) })
			}
		}
	}
}

// lost words the loss of a call.
func (w *world) lost(call string) Event {
	for _, s := range []string{keyA, keyN} {
		for _, v := range []bool{true, false} {
			if call == fmt.Sprintf("tell %s %v", s, v) {
				return Lost{Span: anchormesh.RequestRange([]byte(s), nil)}
			}
		}
	}
	return Lost{}
}

func (w *world) inFlight(from int, call string) bool {
	for _, m := range w.net {
		if m.from == from && m.call == call {
			return true
		}
	}
	for _, s := range w.segs {
		for _, e := range s.log {
			if e.from == from && e.call == call {
				return true
			}
		}
		for _, r := range s.reading {
			if r.from == from && r.call == call {
				return true
			}
		}
	}
	return false
}

// recovering reports whether somebody is at it: a recoverer or, for the finish of
// what is decided, the coordinator.
func (w *world) recovering(txn int, decided bool) bool {
	return slices.ContainsFunc(w.drivers, func(d *driver) bool {
		return d != nil && d.txn == txn && (d.recov != nil || decided || w.cfg.calm)
	})
}

func (w *world) spawn(txn int, r *Recoverer) {
	i := slices.Index(w.drivers[len(w.cfg.txns):], nil)
	if i < 0 {
		i = len(w.drivers)
		w.drivers = append(w.drivers, nil)
	} else {
		i += len(w.cfg.txns)
	}
	w.drivers[i] = &driver{txn: txn, recov: r}
	w.effects(i, r.Start())
}

func (w *world) clientSteps(add adder) {
	if (w.cfg.put != "" || w.cfg.lease) && !w.putDone {
		key := cmp.Or(w.cfg.put, keyN)
		s := w.find([]byte(key))
		lock := []Lock{{Range: anchormesh.RequestRange([]byte(key), nil), Exclusive: true}}
		under := slices.ContainsFunc(s.log, func(e entry) bool { return e.from < 0 })
		if s.inherited == 0 && !under && (w.leaseFree(s) || s.locks.Admit(lock, s.part) == nil && !w.cfg.lease) {
			add(false, "a plain write is proposed", func(n *world) {
				n.clock++
				n.find([]byte(key)).propose(entry{from: -1, call: "plain write", stamp: n.clock})
			})
		}
	}
	if !w.cfg.reader {
		return
	}
	if w.reader.t == 0 {
		add(false, "the reader asks for T", func(n *world) { n.reader.t = n.clock })
		return
	}
	for _, key := range []string{keyA, keyN} {
		s := w.find([]byte(key))
		low, prepared := s.part.Lowest()
		wait := prepared && low <= w.reader.t && !w.cfg.plant.barrier
		if !slices.Contains(w.reader.done, key) && len(s.log) == 0 && !wait {
			add(false, "barrier and read of "+key, func(n *world) { n.readAt(key) })
		}
	}
}

// leaseFree reports whether the end of the lease may be proposed.
func (w *world) leaseFree(s *seg) bool {
	_, held := s.part.HoldsLease(5)
	return w.cfg.lease && (!held || w.cfg.plant.lateRefusal)
}

func (w *world) readAt(key string) {
	s := w.find([]byte(key))
	s.barred = max(s.barred, w.reader.t)
	w.reader.done = append(w.reader.done, key)
	slices.Sort(w.reader.done)
	sees := map[string]map[int]bool{key: {}}
	for k, v := range w.reader.sees {
		sees[k] = v
	}
	for _, v := range s.versions {
		if v.key == key && v.rev <= w.reader.t {
			sees[key][v.txn] = true
		}
	}
	w.reader.sees = sees
}

var errBroken = errors.New("broken")

func (w *world) check() error {
	if w.bad != "" {
		return fmt.Errorf("%w: %s", errBroken, w.bad)
	}
	for i := range w.ghosts {
		if err := w.checkTxn(i, &w.ghosts[i]); err != nil {
			return fmt.Errorf("%w: transaction %d: %w", errBroken, i, err)
		}
	}
	return nil
}

func (w *world) checkTxn(i int, g *ghost) error {
	if g.committed && g.aborted {
		return errors.New("committed here, aborted there")
	}
	if (g.outcome == Again || g.outcome == Refused) && g.c > 0 {
		return errors.New("denied, and committed")
	}
	if g.c > 0 {
		for key, seen := range g.seen {
			if v, _ := w.find([]byte(key)).newest(key, g.c-1); v.rev != seen && !w.cfg.plant.amnesia {
				return fmt.Errorf("%s was at %d when it was read, and is at %d below %d", key, seen, v.rev, g.c)
			}
		}
	}
	if len(w.reader.done) == 2 && len(g.writes) == 2 {
		a, n := w.reader.sees[keyA][i], w.reader.sees[keyN][i]
		if a != n {
			return fmt.Errorf("a read at %d sees it here and not there", w.reader.t)
		}
		if g.outcome == Committed && g.beforeRead && !a {
			return fmt.Errorf("a read at %d, begun after the answer, misses it", w.reader.t)
		}
	}
	if w.settled() && g.outcome == Committed {
		for _, key := range g.writes {
			s := w.find([]byte(key))
			if !slices.ContainsFunc(s.versions, func(v version) bool { return v.txn == i && v.key == key }) {
				return fmt.Errorf("answered as committed, and %s is missing", key)
			}
		}
	}
	return nil
}

func (w *world) settled() bool {
	if len(w.net) > 0 || slices.ContainsFunc(w.drivers, func(d *driver) bool { return d != nil }) ||
		w.cfg.reader && len(w.reader.done) < 2 || (w.cfg.put != "" || w.cfg.lease) && !w.putDone {
		return false
	}
	for _, s := range w.segs {
		if len(s.log) > 0 || len(s.part.records) > 0 || len(s.part.decisions) > 0 {
			return false
		}
	}
	return true
}

func (w *world) model() explore.Model[*world] {
	return explore.Model[*world]{
		Start: w, Key: (*world).key, Next: (*world).next, Check: (*world).check, Settled: (*world).settled, Most: w.cfg.most,
	}
}
