package line

import "github.com/anchormesh/anchormesh"

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
