package line

import (
	"errors"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// What clients do in the world, and what must be true of it.

type status int

const (
	underWay status = iota // or unknown for good
	acked
	failed
)

// op is a write, or one participant of a transaction.
type op struct {
	id, key    int
	kind       string
	start, end int64
	stamp      anchormesh.Revision // of the write, or of the prepare
	status     status
	dead       bool // decided before it was prepared
	t          *txn
	finished   bool // its part of the decision is applied
}

func (o *op) fail(w *world) {
	if o.status == underWay {
		o.status, o.end = failed, w.tick()
	}
}

func (o *op) outcome(w *world, e *entry, ok bool) {
	switch {
	case e.kind == "commit":
		o.finished = o.finished || ok
		o.t.finish(w)
	case !ok:
		o.fail(w)
	case o.status == underWay:
		o.status, o.end = acked, w.tick()
	}
}

// write starts one at some node that thinks it leads the key's segment.
func (w *world) write(o *op) {
	w.ops = append(w.ops, o)
	o.start = w.tick()
	r := w.pick(o.key)
	if r == nil || w.nodes[r.node].coll.Write(r.g.id, o) != nil {
		o.fail(w)
	}
}

// pick returns a replica that thinks it leads the segment of a key.
func (w *world) pick(key int) *replica {
	n, m := w.rng.IntN(nodeCount), w.rng.IntN(len(w.groups))
	for i := range w.groups {
		for j := range nodeCount {
			r := w.groups[(m+i)%len(w.groups)].replicas[(n+j)%nodeCount]
			if r.exists && r.lo <= key && key < r.hi && r.holder.Seat().Term != 0 {
				return r
			}
		}
	}
	return nil
}

// txn writes two keys in two segments, or neither.
type txn struct {
	born       int
	start, end int64
	ops        [2]*op
	asking     int // step of the last question for c, 0: none
	decided    bool
	c          anchormesh.Revision // 0: aborted
}

func (w *world) begin() {
	t := &txn{born: w.step, start: w.tick()}
	a := w.rng.IntN(keyCount)
	for i, key := range [2]int{a, (a + 1 + w.rng.IntN(keyCount-1)) % keyCount} {
		t.ops[i] = &op{id: 1_000_000 + len(w.txns), key: key, kind: "prepare", t: t}
		w.write(t.ops[i])
	}
	w.txns = append(w.txns, t)
}

func (t *txn) advance(w *world) {
	a, b := t.ops[0].status, t.ops[1].status
	switch {
	case t.end != 0:
	case t.decided:
		for _, o := range t.ops {
			if r := w.pick(o.key); !o.finished && r != nil && r.leader {
				r.outbox = append(r.outbox, outgoing{r.term, &entry{kind: "commit", gen: r.gen, stamp: t.c, key: o.key, op: o}})
			}
		}
	case a == failed || b == failed || w.step-t.born > 150:
		t.decide(0)
		t.finish(w)
	case a == acked && b == acked && (t.asking == 0 || w.step-t.asking > 20):
		t.asking = w.step
		w.ask(w.rng.IntN(nodeCount), []Ask{{Count: 1}}, nil, func(ans Answer) {
			if ans.Err == nil && !t.decided {
				t.decide(ans.Grants[0].First)
			}
		})
	}
}

func (t *txn) decide(c anchormesh.Revision) {
	t.decided, t.c = true, c
	for _, o := range t.ops {
		if o.stamp == 0 {
			o.dead, o.finished = true, true
		} else if o.status == failed {
			o.finished = true
		}
	}
}

func (t *txn) finish(w *world) {
	if t.end == 0 && t.ops[0].finished && t.ops[1].finished {
		t.end = w.tick()
	}
}

// barred is what somebody heard who had a barrier answered.
type barred struct {
	mask uint32
	keys [keyCount][]version // all that is applied, also above T
}

var errNobody = errors.New("nobody leads the segment of the key")

// barrier asks for a promise in the segment of a key, and for what is there.
func (w *world) barrier(t anchormesh.Revision, key int, then func(barred, error)) {
	r := w.pick(key)
	if r == nil {
		w.sure(func() { then(barred{}, errNobody) })
		return
	}
	gen := r.gen
	w.send(func() {
		w.token++
		r.calls[w.token] = func(err error, r *replica) {
			var out barred
			if err == nil {
				out = r.content()
			}
			w.send(func() { then(out, err) })
		}
		r.holder.Barrier(w.now(), Barrier{Token: w.token, Line: 1, Segment: r.g.id, Generation: gen, T: t})
		r.drive()
	})
}

// content is what a barrier's answer comes behind: all events so far, those above T
// too. A commit above T whose prepared stamp is below it may be among them.
func (r *replica) content() (out barred) {
	for k := r.lo; k < r.hi; k++ {
		out.mask |= 1 << k
		out.keys[k] = append(out.keys[k], r.keys[k]...)
		slices.SortFunc(out.keys[k], func(a, b version) int { return int(a.rev - b.rev) })
	}
	return out
}

const allKeys = 1<<keyCount - 1

// scan asks for T, then for barriers where they are needed. Reads and askers are
// scans.
type scan struct {
	w       *world
	t       anchormesh.Revision
	known   bool // t is
	need    uint32
	attempt int
	sent    int // step of the message under way
	waiting bool
	heard   func(barred) // once per barrier
	spread  func(Answer) uint32
	ask     func() []anchormesh.Revision
}

// advance sends what is to be sent next and reports whether the scan is complete.
func (s *scan) advance() bool {
	w := s.w
	if s.known && s.need == 0 {
		return true
	}
	if s.waiting && w.step-s.sent < 40 {
		return false
	}
	s.attempt++
	s.sent, s.waiting = w.step, true
	mine := s.attempt
	if !s.known {
		w.ask(w.rng.IntN(nodeCount), nil, s.ask(), func(a Answer) {
			if s.attempt != mine || !s.waiting {
				return
			}
			s.waiting = false
			if a.Err == nil {
				s.need, s.t, s.known = s.spread(a), a.T, true
			}
		})
		return false
	}
	key := 0
	for s.need>>key&1 == 0 {
		key++
	}
	w.barrier(s.t, key, func(b barred, err error) {
		if s.attempt != mine || !s.waiting {
			return
		}
		s.waiting = false
		if err == nil {
			s.heard(b)
			s.need &^= b.mask
		}
	})
	return false
}

type read struct {
	scan
	start, end int64
	got        [keyCount]version
}

func (w *world) read() {
	r := &read{start: w.tick()}
	r.scan = scan{
		w:      w,
		ask:    func() []anchormesh.Revision { return nil },
		spread: func(Answer) uint32 { return allKeys },
		heard: func(b barred) {
			for k := range keyCount {
				if vs := upTo(b.keys[k], r.t); r.need>>k&1 != 0 && len(vs) > 0 {
					r.got[k] = vs[len(vs)-1]
				}
			}
		},
	}
	w.reads = append(w.reads, r)
}

// asker follows the whole scope, as a watch does: it is told of what is at or
// below T where it must ask, and takes the rest for granted.
type asker struct {
	scan
	since  anchormesh.Revision
	claims []anchormesh.Revision     // the barriers completed, each T once
	seen   [keyCount]map[version]int // how many claims were made before it was told
}

func (w *world) asker() {
	a := &asker{}
	for k := range a.seen {
		a.seen[k] = make(map[version]int)
	}
	a.restart(w)
	w.askers = append(w.askers, a)
}

func (a *asker) restart(w *world) {
	a.scan = scan{
		w: w, attempt: a.attempt + 1,
		ask: func() []anchormesh.Revision { return []anchormesh.Revision{a.since} },
		spread: func(ans Answer) (m uint32) {
			if w.fault == hastySince {
				defer func() { a.since = ans.T }()
			}
			if ans.Spreads[0].All {
				return allKeys
			}
			for _, k := range ans.Spreads[0].Ranges {
				m |= mask(k)
				if w.fault == matchedIDs {
					m &^= w.children(k)
				}
			}
			return m
		},
		heard: func(b barred) {
			for k := range keyCount {
				for _, v := range b.keys[k] {
					if _, ok := a.seen[k][v]; !ok {
						a.seen[k][v] = len(a.claims)
					}
				}
			}
		},
	}
}

// children are the keys of a range that its segment has lost to others.
func (w *world) children(k anchormesh.KeyRange) uint32 {
	lo := 0
	if len(k.Start) > 0 {
		lo = int(k.Start[0])
	}
	if r := w.pick(lo); r != nil {
		return mask(k) &^ mask(r.keyRange())
	}
	return 0
}

func (a *asker) step() {
	if a.scan.advance() {
		a.since = a.t
		a.claims = append(a.claims, a.t)
		a.restart(a.w)
	} else if a.w.fault == hastySince && a.w.rng.IntN(20) == 0 {
		a.restart(a.w)
	}
}
