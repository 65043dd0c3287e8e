package line

import "github.com/anchormesh/anchormesh"

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
