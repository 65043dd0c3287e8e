package commit

import (
	"cmp"
	"errors"
	"maps"
	"slices"
)

// apply applies the first entry of the log, as the state machine would.
func (s *seg) apply(w *world) {
	e := s.log[0]
	s.log = s.log[1:]
	s.inherited = max(0, s.inherited-1)
	for i := range s.reading {
		s.reading[i].ahead = max(0, s.reading[i].ahead-1)
	}
	at := s.place()
	at.Term = e.term
	switch {
	case e.from < 0:
		s.plain(w, e)
	case e.gen != s.gen:
		s.stale(w, e)
	default:
		s.command(w, e, at)
	}
	s.read(w)
}

// stale: an entry of another generation took effect nowhere, and the carrier knows.
func (s *seg) stale(w *world, e entry) {
	if _, ok := e.effect.(PrepareAt); ok {
		w.reply(e.from, e.call, Failed{Err: ErrLockLost})
		return
	}
	w.send(message{from: e.from, call: e.call, req: e.effect})
}

// plain applies a write, or the end of lease 5.
func (s *seg) plain(w *world, e entry) {
	if e.gen != s.gen || e.stamp <= max(s.cur, s.part.Floor()) {
		return // known to have changed nothing: asked again
	}
	if w.cfg.lease {
		if _, held := s.part.HoldsLease(5); held && !w.cfg.plant.lateRefusal {
			return
		}
		s.revoked, w.putDone = true, true
		return
	}
	s.write(w, w.cfg.put, e.stamp, -1)
	w.putDone = true
}

func (s *seg) write(w *world, key string, rev int64, txn int) {
	if rev <= s.barred {
		w.broken("%s is written at %d, after the barrier at %d was answered", key, rev, s.barred)
	}
	s.versions = append(s.versions, version{key, rev, txn})
	slices.SortFunc(s.versions, func(a, b version) int { return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.rev, b.rev)) })
	s.cur = max(s.cur, rev)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func (s *seg) command(w *world, e entry, at Place) {
	switch r := e.effect.(type) {
	case PrepareAt:
		c := must(DecodePrepare(e.raw))
		stamp, err := s.prepare(w, at, e.stamp, c)
		s.locks.Release(c.Txn)
		if err != nil {
			w.reply(e.from, e.call, Failed{Err: err})
			return
		}
		if w.cfg.plant.earlyC {
			stamp = 0
		}
		w.reply(e.from, e.call, Prepared{Part: r.Part, Stamp: stamp})
	case DecideAt:
		s.decide(w, e, must(DecodeDecide(e.raw)))
	case TellAt:
		if r.Command.Commit {
			c := must(DecodeCommit(e.raw))
			s.commit(w, c.Txn, c.Revision)
		} else {
			s.abort(w, must(DecodeID(e.raw)))
		}
		w.reply(e.from, e.call, Told{Span: r.Span, Range: s.rng})
	case ForgetAt:
		s.part.Forget(must(DecodeID(e.raw)))
		w.reply(e.from, e.call, Forgot{})
	}
}

func (s *seg) prepare(w *world, at Place, stamp int64, c *Prepare) (int64, error) {
	if w.cfg.plant.anyTerm {
		c.Grant.Place = at
	}
	if _, again := s.part.Record(c.Txn); !again && stamp <= s.cur {
		return 0, ErrStampOrder
	}
	if s.revoked && slices.ContainsFunc(c.Writes, func(x Write) bool { return x.Lease == 5 }) {
		return 0, errors.New("no such lease")
	}
	return s.part.Prepare(at, stamp, c)
}

func (s *seg) decide(w *world, e entry, c *Decide) {
	txn := int(c.Txn[0]) - 1
	before, prepared := s.part.Record(c.Txn)
	if w.cfg.plant.earlyC && c.Commit && prepared {
		s.forge(c.Txn, c.Revision)
	}
	if s.refusesLate(w, before, c.Revision) && c.Commit {
		return
	}
	v, writes, err := s.part.Decide(c)
	if errors.Is(err, ErrNotPrepared) && w.cfg.plant.blindDecide {
		s.part.setDecision(&Decision{Txn: c.Txn, Verdict: c.Verdict, Key: c.Key, Spans: c.Spans})
		v, err = c.Verdict, nil
	}
	if err != nil {
		w.reply(e.from, e.call, Failed{Err: err})
		return
	}
	if v.Commit {
		w.ghosts[txn].c = v.Revision
	}
	s.took(w, txn, prepared, v, writes)
	w.reply(e.from, e.call, Decided{Verdict: v, Range: s.rng})
}

// remember keeps what the transaction has read and will write, when its commit is
// sent to be decided.
func (w *world) remember(txn int, plan *Plan) {
	g := &w.ghosts[txn]
	g.seen, g.writes = map[string]int64{}, nil
	for _, key := range []string{keyA, keyN} { // every transaction here names both
		g.seen[key] = 0
	}
	for _, part := range plan.Writes {
		for _, x := range part {
			g.writes = append(g.writes, string(x.Key))
		}
	}
	for _, kv := range plan.eval.before {
		g.seen[string(kv.Key)] = kv.Mod
	}
}

// forge makes a record forget its stamp, for a plant.
func (s *seg) forge(id TxnID, c int64) {
	if r, ok := s.part.Record(id); ok {
		old := *r
		old.Stamp = min(old.Stamp, c-1)
		s.part.setRecord(&old)
	}
}

// refusesLate are the plants that refuse what was prepared.
func (s *seg) refusesLate(w *world, r *Record, c int64) bool {
	if r == nil {
		return false
	}
	if w.cfg.plant.growth && c <= s.cur {
		s.part.dropRecord(r.Txn)
		w.ghosts[int(r.Txn[0])-1].aborted = true
		return true
	}
	if w.cfg.plant.lateRefusal && s.revoked && slices.ContainsFunc(r.Writes, func(x Write) bool { return x.Lease == 5 }) {
		s.part.dropRecord(r.Txn)
		w.ghosts[int(r.Txn[0])-1].aborted = true
		return true
	}
	return false
}

func (s *seg) commit(w *world, id TxnID, c int64) {
	r, prepared := s.part.Record(id)
	if s.refusesLate(w, r, c) {
		return
	}
	if w.cfg.plant.earlyC && prepared {
		s.forge(id, c)
	}
	writes := must(s.part.Commit(id, c))
	s.took(w, int(id[0])-1, prepared, Verdict{Commit: true, Revision: c}, writes)
}

func (s *seg) abort(w *world, id TxnID) {
	_, prepared := s.part.Record(id)
	s.part.Abort(id)
	s.took(w, int(id[0])-1, prepared, Verdict{}, nil)
}

func (s *seg) took(w *world, txn int, prepared bool, v Verdict, writes []Write) {
	if !prepared {
		return
	}
	g := &w.ghosts[txn]
	if !v.Commit {
		g.aborted = true
		return
	}
	g.committed = true
	for _, x := range writes {
		s.write(w, string(x.Key), v.Revision, txn)
	}
}

// key is the state in canonical bytes.
func (w *world) key() []byte {
	k := &writer{}
	k.uint(uint64(w.clock))
	l := &w.left
	for _, v := range []int{l.leaders[0], l.leaders[1], l.leaders[2], l.crashes, l.early, l.dups, l.splits, int(w.reader.t), len(w.reader.done)} {
		k.uint(uint64(v))
	}
	k.bool(w.putDone)
	for _, key := range w.reader.done {
		k.bytes([]byte(key))
	}
	for _, key := range slices.Sorted(maps.Keys(w.reader.sees)) {
		for i := range w.ghosts {
			k.bool(w.reader.sees[key][i])
		}
	}
	for _, s := range w.segs {
		s.key(k)
	}
	for _, d := range w.drivers {
		d.key(k)
	}
	for _, m := range w.net {
		k.message(m.from, m.call, m.req)
	}
	for i := range w.ghosts {
		g := &w.ghosts[i]
		k.uint(uint64(g.c))
		k.b = append(k.b, byte(g.outcome))
		k.bool(g.committed)
		k.bool(g.aborted)
		k.bool(g.beforeRead)
		k.uint(uint64(len(g.writes)))
		k.uint(uint64(g.seen[keyA]))
		k.uint(uint64(g.seen[keyN]))
	}
	return k.b
}

func (k *writer) message(from int, call string, e Effect) {
	k.uint(uint64(from + 1))
	k.bytes([]byte(call))
	switch e := e.(type) {
	case PrepareAt:
		k.bytes(e.Command.Encode())
	case DecideAt:
		k.bytes(e.Command.Encode())
	case TellAt:
		k.bytes(e.Command.Encode())
	}
}

func (s *seg) key(k *writer) {
	for _, v := range []uint64{s.term, uint64(s.gen), uint64(s.inherited), uint64(s.cur), uint64(s.barred), uint64(s.part.floor), s.locks.last} {
		k.uint(v)
	}
	k.bool(s.revoked)
	k.uint(uint64(len(s.log)))
	for _, e := range s.log {
		k.uint(e.term)
		k.uint(uint64(e.gen))
		k.uint(uint64(e.stamp))
		k.message(e.from, e.call, e.effect)
	}
	for _, r := range s.part.records {
		k.bytes(r.encode())
	}
	k.uint(uint64(len(s.part.records)))
	for _, d := range s.part.decisions {
		k.bytes(d.encode())
	}
	for _, h := range s.locks.held {
		k.uint(h.number)
		k.bool(h.proposed)
		k.b = append(k.b, h.txn[0])
	}
	for _, r := range s.reading {
		k.uint(uint64(r.from))
		k.uint(uint64(r.ahead))
		k.uint(r.grant.Number)
	}
	for _, v := range s.versions {
		k.uint(uint64(v.rev))
		k.bytes([]byte(v.key))
	}
}

func (d *driver) key(k *writer) {
	k.bool(d != nil)
	if d == nil {
		return
	}
	for _, c := range d.calls {
		k.bytes([]byte(c))
	}
	k.uint(uint64(len(d.calls)))
	if r := d.recov; r != nil {
		k.uint(uint64(d.txn))
		k.bool(r.decide != nil)
		k.finisher(&r.finish)
		return
	}
	c := d.coord
	k.b = append(k.b, byte(c.phase))
	k.bool(c.answered)
	k.finisher(&c.finish)
	for i := range c.parts {
		p := &c.parts[i]
		k.bool(p.granted)
		k.bool(p.prepared)
		k.uint(uint64(p.stamp))
		k.uint(p.grant.Number)
		k.uint(p.grant.Place.Term)
		for _, got := range p.values {
			for _, kv := range got.KVs {
				k.uint(uint64(kv.Mod))
			}
		}
	}
	if c.plan != nil {
		for _, kv := range c.plan.eval.before {
			k.uint(uint64(kv.Mod))
		}
	}
}

func (k *writer) finisher(f *finisher) {
	k.verdict(f.verdict)
	k.bool(f.forget)
	k.spans(f.left)
}
