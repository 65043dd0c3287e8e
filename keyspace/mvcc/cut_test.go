package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// cutEntry is an entry of a segment's log.
type cutEntry struct {
	stamp   int64 // of the transaction; zero is none
	ops     []op
	compact int64
	cut     anchormesh.SegmentID // zero is none
	at      string
	absorb  anchormesh.SegmentID
	upTo    uint64 // last index of the absorbed segment
}

// plot is what a segment should be.
type plot struct {
	id                 anchormesh.SegmentID
	start, end         string
	current, compacted int64
	log                []cutEntry
	first              uint64 // index before the first entry of log
	absorbed           bool
}

func (p *plot) applied() uint64 { return p.first + uint64(len(p.log)) }

func (p *plot) rng() anchormesh.KeyRange {
	r := anchormesh.KeyRange{Start: []byte(p.start), End: []byte(p.end)}
	return r
}

// field is a store whose segments are cut and absorbed, beside a segment that never
// is and is given the same writes, and a list of all writes.
type field struct {
	t      *testing.T
	rng    *rand.Rand
	mem    *bolt.Memory
	store  *Store
	plots  []*plot // all that ever were
	nextID anchormesh.SegmentID
	all    *model
	whole  *Segment
	open   []*openView
}

// openView is a view and what it must show for ever.
type openView struct {
	v    *View
	p    plot
	want []modelEvent
}

const childFirst = 5

func newField(t *testing.T, seed int64) *field {
	f := &field{t: t, rng: rand.New(rand.NewSource(seed)), mem: bolt.NewMemory(), nextID: 100, all: newModel()}
	f.store = mustStore(t, f.mem)
	_, err := f.store.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	f.plots = []*plot{{id: 1, current: 1, compacted: -1}}
	f.whole, err = mustStore(t, bolt.NewMemory()).Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	return f
}

func (f *field) key() string { return fmt.Sprintf("k%02d", f.rng.Intn(40)) }

// live lists the segments that are there, by their ranges.
func (f *field) live() (out []*plot) {
	for _, p := range f.plots {
		if !p.absorbed {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *plot) int { return bytes.Compare([]byte(a.start), []byte(b.start)) })
	return out
}

func (f *field) plot(id anchormesh.SegmentID) *plot {
	return f.plots[slices.IndexFunc(f.plots, func(p *plot) bool { return p.id == id })]
}

func (f *field) some() *plot {
	live := f.live()
	return live[f.rng.Intn(len(live))]
}

func synced(g *Segment) bool {
	select {
	case <-g.Synced():
		return true
	default:
		return false
	}
}

// put adds an entry to the log of p and applies it. A segment whose cut is not
// committed has no log yet, so nothing goes in.
func (f *field) put(p *plot, e cutEntry) {
	g := mustSegment(f.t, f.store, p.id)
	if !synced(g) {
		f.commit()
		if !synced(g) || g.Durable() != childFirst {
			f.t.Fatalf("segment %s is durable at %d after a commit", p.id, g.Durable())
		}
	}
	p.log = append(p.log, e)
	f.apply(p, g, e, p.applied())
}

// write makes a transaction of keys of one segment.
func (f *field) write() {
	p := f.some()
	stamp := f.all.current + 1 + int64(f.rng.Intn(3))
	e := cutEntry{stamp: stamp}
	used := map[string]bool{}
	for range 1 + f.rng.Intn(6) {
		k := f.key()
		if used[k] || !p.rng().Contains([]byte(k)) {
			continue
		}
		used[k] = true
		if f.rng.Intn(4) == 0 {
			e.ops = append(e.ops, op{kind: 'd', key: k})
		} else {
			val := string(bytes.Repeat([]byte{byte('a' + f.rng.Intn(26))}, []int{0, 10, 1000}[f.rng.Intn(3)]))
			e.ops = append(e.ops, op{kind: 'p', key: k, other: val, lease: int64(f.rng.Intn(2))})
		}
	}
	if f.record(e) {
		p.current = stamp
	}
	f.put(p, e)
	index, _ := f.whole.Applied()
	f.applyTxn(f.whole, e, index+1)
}

// record puts the writes of an entry on the list.
func (f *field) record(e cutEntry) (wrote bool) {
	sub := int64(0)
	for _, o := range e.ops {
		prev, ok := f.all.at(o.key, e.stamp)
		ev := modelEvent{main: e.stamp, sub: sub, key: o.key, val: o.other, lease: o.lease, create: e.stamp, vers: 1}
		switch {
		case o.kind == 'd' && !ok:
			continue
		case o.kind == 'd':
			ev = modelEvent{main: e.stamp, sub: sub, key: o.key, del: true}
		case ok:
			ev.create, ev.vers = prev.create, prev.vers+1
		}
		f.all.events = append(f.all.events, ev)
		sub++
	}
	if sub > 0 {
		f.all.current = e.stamp
	}
	return sub > 0
}

func (f *field) applyTxn(g *Segment, e cutEntry, index uint64) {
	b := g.Begin(index, 1)
	x, err := b.TxnAt(e.stamp)
	must(f.t, err)
	for _, o := range e.ops {
		if o.kind == 'd' {
			x.Delete([]byte(o.key))
		} else {
			x.Put([]byte(o.key), []byte(o.other), o.lease)
		}
	}
	x.End()
	b.End()
}

// apply applies an entry, in life and in replay.
func (f *field) apply(p *plot, g *Segment, e cutEntry, index uint64) {
	if e.stamp != 0 {
		f.applyTxn(g, e, index)
		return
	}
	var right *Segment
	if e.absorb != 0 {
		right = mustSegment(f.t, f.store, e.absorb)
	}
	b := g.Begin(index, 1)
	b.SetState(fmt.Append(nil, "state ", index))
	switch {
	case e.compact != 0:
		b.Raise(e.compact)
		b.Compact(e.compact)
	case e.cut != 0:
		c := b.Cut(e.cut, []byte(e.at), Meta{Applied: childFirst, Term: 1, State: []byte("child")})
		c.PutAux("leases", []byte("from"), p.id.AppendKey(nil))
	case e.absorb != 0:
		b.PutAux("leases", []byte("ate"), e.absorb.AppendKey(nil))
		b.Absorb(right, 0)
	}
	b.End()
}

func (f *field) cut() {
	p, at := f.some(), f.key()
	if !p.rng().Contains([]byte(at)) || at <= p.start {
		return
	}
	f.nextID += anchormesh.SegmentID(f.rng.Intn(200)) - 90 // IDs in no order of birth
	for slices.ContainsFunc(f.plots, func(o *plot) bool { return o.id == f.nextID }) || f.nextID == 0 {
		f.nextID++
	}
	c := &plot{id: f.nextID, start: at, end: p.end, current: p.current, compacted: p.compacted, first: childFirst}
	f.put(p, cutEntry{cut: c.id, at: at})
	p.end = at
	f.plots = append(f.plots, c)
}

func (f *field) absorb() {
	live := f.live()
	if len(live) < 2 {
		return
	}
	i := f.rng.Intn(len(live) - 1)
	l, r := live[i], live[i+1]
	f.put(l, cutEntry{absorb: r.id, upTo: r.applied()})
	l.end, l.current, l.compacted = r.end, max(l.current, r.current), max(l.compacted, r.compacted)
	r.absorbed = true
}

func (f *field) compact() {
	p := f.some()
	rev := max(1, f.all.current-int64(f.rng.Intn(30)))
	f.put(p, cutEntry{compact: rev})
	p.current = max(p.current, rev)
	p.compacted = max(p.compacted, rev)
}

// crash comes back to what was committed and replays the logs.
func (f *field) crash() {
	f.close()
	f.mem = f.mem.Clone()
	f.recover()
}

func (f *field) recover() {
	f.store = mustStore(f.t, f.mem)
	for moved := true; moved; {
		moved = false
		for _, p := range f.plots {
			g, there := f.store.Segment(p.id)
			if !there {
				continue
			}
			at, _ := g.Applied()
			for ; at < p.applied(); at++ {
				e := p.log[at-p.first]
				if e.absorb != 0 {
					r, there := f.store.Segment(e.absorb)
					if !there {
						break
					}
					if idx, _ := r.Applied(); idx != e.upTo {
						break
					}
				}
				f.apply(p, g, e, at+1)
				moved = true
			}
		}
	}
}

func (f *field) within(p *plot, rev int64) []modelEvent { return f.all.live(p.start, p.end, rev) }

func (f *field) view() {
	p := f.some()
	g := mustSegment(f.t, f.store, p.id)
	rev := p.current
	v := g.Read()
	if f.rng.Intn(2) == 0 {
		v.Close()
		rev = max(p.compacted, 1, p.current-int64(f.rng.Intn(10)))
		v = g.ReadAt(rev)
	}
	f.open = append(f.open, &openView{v, *p, f.within(p, rev)})
}

// look checks the views from whatever time.
func (f *field) look() {
	for _, o := range f.open {
		if !o.v.KeyRange().Equal(o.p.rng()) {
			f.t.Fatalf("a view of %s is of %s now", o.p.rng(), o.v.KeyRange())
		}
		res, err := o.v.Range([]byte{}, []byte{0}, 0, 0, false)
		must(f.t, err)
		f.same(res, o.want)
		k := f.key()
		one, err := o.v.Range([]byte(k), nil, 0, 0, false)
		must(f.t, err)
		i := slices.IndexFunc(o.want, func(e modelEvent) bool { return e.key == k })
		if i >= 0 {
			f.same(one, o.want[i:i+1])
		} else {
			f.same(one, nil)
		}
	}
}

func (f *field) same(res Result, want []modelEvent) {
	f.t.Helper()
	if len(res.KVs) != len(want) || res.Count != int64(len(want)) {
		f.t.Fatalf("%d keys, count %d, want %d", len(res.KVs), res.Count, len(want))
	}
	for i, e := range want {
		if !bytes.Equal(res.KVs[i].Raw, e.raw()) {
			f.t.Fatalf("%q, want %+v", res.KVs[i].Raw, e)
		}
	}
}

func (f *field) close() {
	for _, o := range f.open {
		o.v.Close()
	}
	f.open = nil
}

// check compares all segments with the list, and the sum of their hashes with the
// segment that was never cut.
func (f *field) check() {
	f.look()
	live := f.live()
	if len(f.store.Segments()) != len(live) {
		f.t.Fatalf("segments %v, want %d", f.store.Segments(), len(live))
	}
	sum, floor := uint64(0), int64(-1)
	for _, p := range live {
		floor = max(floor, p.compacted)
	}
	for _, p := range live {
		g := mustSegment(f.t, f.store, p.id)
		cur, comp := g.Revision()
		idx, _ := g.Applied()
		if cur != p.current || comp != p.compacted || idx != p.applied() || !g.KeyRange().Equal(p.rng()) {
			f.t.Fatalf("segment %s %s at %d, compacted %d, applied %d, want %+v", p.id, g.KeyRange(), cur, comp, idx, p)
		}
		f.checkReads(p, g)
		f.checkHistory(p, g)
		part, err := g.HashPart(f.all.current, floor)
		must(f.t, err)
		sum += part
	}
	want, err := f.whole.HashPart(f.all.current, floor)
	must(f.t, err)
	if sum != want || Fold(sum) != Fold(want) {
		f.t.Fatalf("hash of %d segments %x, of one %x", len(live), sum, want)
	}
}

func (f *field) checkReads(p *plot, g *Segment) {
	at := g.ReadAt(f.all.current)
	defer at.Close()
	res, err := at.Range([]byte{}, []byte{0}, 0, 0, false)
	must(f.t, err)
	f.same(res, f.within(p, f.all.current))
	v := g.Read()
	defer v.Close()
	rev := max(p.compacted, 1) + f.rng.Int63n(p.current-max(p.compacted, 1)+1)
	a, b := f.key(), f.key()
	res, err = v.Range([]byte(a), []byte(b), rev, 0, false)
	must(f.t, err)
	var want []modelEvent
	if a < b {
		for _, e := range f.all.live(a, b, rev) {
			if p.rng().Contains([]byte(e.key)) {
				want = append(want, e)
			}
		}
	}
	f.same(res, want)
	if p.compacted > 1 {
		if _, err := v.Range([]byte(a), nil, p.compacted-1, 0, false); !errors.Is(err, ErrCompacted) {
			f.t.Fatalf("read below the compacted revision: %v", err)
		}
	}
}

func (f *field) checkHistory(p *plot, g *Segment) {
	from := max(p.compacted, 1, p.current-int64(f.rng.Intn(60)))
	rng := anchormesh.KeyRange{}
	if f.rng.Intn(2) == 0 {
		rng = anchormesh.RequestRange([]byte(f.key()), nil)
	}
	var want, got []Event
	for _, e := range f.all.events {
		if e.main >= from && e.main <= p.current && rng.Contains([]byte(e.key)) && p.rng().Contains([]byte(e.key)) {
			want = append(want, Event{Main: e.main, Sub: e.sub, Delete: e.del, KV: KV{Key: []byte(e.key), Raw: e.raw()}})
		}
	}
	for next := from; next <= p.current; {
		events, n, err := g.History(next, 0, rng, f.rng.Intn(3000))
		must(f.t, err)
		got, next = append(got, events...), n
	}
	if len(got) != len(want) {
		f.t.Fatalf("history of %s %s from %d: %d events, want %d", p.id, rng, from, len(got), len(want))
	}
	for i, w := range want {
		e := got[i]
		if e.Main != w.Main || e.Sub != w.Sub || e.Delete != w.Delete || !bytes.Equal(e.KV.Key, w.KV.Key) || !e.Delete && !bytes.Equal(e.KV.Raw, w.KV.Raw) {
			f.t.Fatalf("event %+v, want %+v", e, w)
		}
		prev, ok := f.all.at(string(w.KV.Key), w.Main-1)
		kv, found := g.PrevKV(w.KV.Key, w.Main)
		if ok = ok && w.Main-1 >= p.compacted && w.Main > 1; found != ok || ok && !bytes.Equal(kv.Raw, prev.raw()) {
			f.t.Fatalf("PrevKV(%s, %d) = %q %v, want %+v %v", w.KV.Key, w.Main, kv.Raw, found, prev, ok)
		}
	}
}

// export takes a segment into another store across whatever happens in between.
func (f *field) export() func() {
	p := f.some()
	g := mustSegment(f.t, f.store, p.id)
	e, err := g.Export()
	if !synced(g) {
		if !errors.Is(err, ErrGone) {
			f.t.Fatalf("export of a segment that no commit holds: %v", err)
		}
		return func() {}
	}
	must(f.t, err)
	return func() {
		defer e.Close()
		other := mustStore(f.t, bolt.NewMemory())
		in, err := other.Install(p.id, e.KeyRange())
		must(f.t, err)
		for {
			chunk, err := e.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			must(f.t, err)
			must(f.t, in.Add(chunk))
		}
		g, err := in.Finish(e.Meta())
		must(f.t, err)
		rev, _ := g.Revision()
		v := g.Read()
		defer v.Close()
		res, err := v.Range([]byte{}, []byte{0}, 0, 0, false)
		must(f.t, err)
		r := g.KeyRange()
		f.same(res, f.all.live(string(r.Start), string(r.End), rev))
	}
}

// Segments that are cut and absorbed at random, between commits, scrubs, crashes with
// replay, open views and exports, together hold what one segment holds.
func TestCutsAndAbsorbsAgainstModel(t *testing.T) {
	seeds(t, 40, func(t *testing.T, seed int64) {
		f := newField(t, seed)
		finish := func() {}
		for range 250 {
			f.step(&finish)
		}
		f.check()
		finish()
		f.close()
		f.scrubAll()
		f.crash()
		f.scrubAll()
		f.checkScrubbed()
		for range 50 {
			f.absorb()
		}
		f.crash()
		f.scrubAll()
		f.check()
		f.checkScrubbed()
	})
}

// commitSome commits all or, with what belongs to it, one.
func (f *field) commitSome() error {
	live := f.store.live()
	if f.rng.Intn(2) == 0 || len(live) == 0 {
		return f.store.Commit()
	}
	return live[f.rng.Intn(len(live))].Commit()
}

// commit settles the account of pending bytes to the last one.
func (f *field) commit() {
	must(f.t, f.store.Commit())
	if n := f.store.pending.Load(); n != 0 {
		f.t.Fatalf("%d bytes pending after a commit", n)
	}
}

func (f *field) scrubAll() {
	for more := true; more; {
		f.commit()
		var err error
		more, err = f.store.Scrub(7)
		must(f.t, err)
	}
}

// checkScrubbed compares the revisions in the backend with what compaction by its
// definition retains.
func (f *field) checkScrubbed() {
	want := 0
	for _, e := range f.all.events {
		p := f.live()[slices.IndexFunc(f.live(), func(p *plot) bool { return p.rng().Contains([]byte(e.key)) })]
		at, _ := f.all.at(e.key, p.compacted)
		newest := at.main == e.main && at.sub == e.sub
		if e.main > p.compacted || newest && (!e.del || e.main == p.compacted) {
			want++
		}
	}
	snap := f.store.backend.Snapshot()
	defer snap.Release()
	got := 0
	c := snap.Bucket(bucketRevisions).Cursor()
	for k, _ := c.Seek(nil); k != nil; k, _ = c.Next() {
		got++
	}
	if got != want {
		f.t.Fatalf("%d revisions stored, want %d", got, want)
	}
}

func (f *field) step(finish *func()) {
	switch f.rng.Intn(28) {
	default:
		f.write()
	case 0, 1, 2:
		f.cut()
	case 3, 4:
		f.absorb()
	case 5:
		f.commit()
	case 6:
		must(f.t, f.commitSome())
	case 7, 8, 16:
		_, err := f.store.Scrub(1 + f.rng.Intn(10))
		must(f.t, err)
	case 9, 17:
		f.compact()
	case 10:
		if f.rng.Intn(2) == 0 {
			f.crash()
			f.check()
		}
	case 11, 12:
		f.view()
	case 13:
		f.look()
		if f.rng.Intn(3) == 0 {
			f.close()
		}
	case 14:
		f.check()
	case 15:
		(*finish)()
		*finish = f.export()
	}
}

// A power failure at any transaction of the backend: the records of a cut or an
// absorb never come apart, and replay gives what was there.
func TestCrashAroundCutsAndAbsorbs(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed int64) {
		f := newField(t, seed)
		for range 8 {
			broken := &failing{Memory: f.mem, left: 1 + f.rng.Intn(8), after: f.rng.Intn(2) == 0}
			f.store.backend = broken
			for f.store.failed == nil {
				switch f.rng.Intn(8) {
				default:
					f.tryWrite()
				case 0, 1:
					f.tryShape(f.cut)
				case 2:
					f.tryShape(f.absorb)
				case 3:
					f.commitSome()
				case 4:
					f.store.Scrub(1 + f.rng.Intn(10))
				case 5:
					f.tryShape(f.compact)
				}
			}
			f.mem = f.mem.Clone()
			f.recover()
			f.check()
		}
	})
}

// tryShape and tryWrite leave out what would need a commit first: it may fail.
func (f *field) tryShape(do func()) {
	for _, p := range f.live() {
		if !synced(mustSegment(f.t, f.store, p.id)) {
			f.store.Commit()
			return
		}
	}
	do()
}

func (f *field) tryWrite() { f.tryShape(f.write) }

// hooked is a backend that calls back when a transaction has taken effect and the
// store has not heard of it yet, and before one begins.
type hooked struct {
	*bolt.Memory
	before, after func()
}

func (h *hooked) Update(fn func(tx bolt.Tx) error) error {
	if do := h.before; do != nil {
		h.before = nil
		do()
	}
	err := h.Memory.Update(fn)
	if do := h.after; do != nil {
		h.after = nil
		do()
	}
	return err
}

// What happens while a commit runs: cuts, absorbs and writes go into the next one,
// whatever was frozen already, and readers see every write once.
func TestCutsWhileACommitRuns(t *testing.T) {
	seeds(t, 20, func(t *testing.T, seed int64) {
		f := newField(t, seed)
		meanwhile := func() {
			for range f.rng.Intn(4) {
				f.tryMeanwhile()
			}
			f.check()
		}
		for range 30 {
			for range 5 {
				f.tryMeanwhile()
			}
			f.commit()
			for range 5 {
				f.tryMeanwhile()
			}
			f.view()
			f.store.backend = &hooked{Memory: f.mem, before: meanwhile, after: meanwhile}
			must(t, f.commitSome())
			f.store.backend = f.mem
			for _, g := range f.store.live() {
				if slices.ContainsFunc(g.sealed, func(t *sealed) bool { return t.stored.Load() }) {
					t.Fatalf("segment %s holds what is committed", g.id)
				}
			}
			f.check()
			if f.rng.Intn(3) == 0 {
				f.close()
				f.crash()
				f.check()
			}
		}
	})
}

// tryMeanwhile is a step that needs no commit: it leaves segments alone that have no
// log yet.
func (f *field) tryMeanwhile() {
	for _, p := range f.live() {
		if !synced(mustSegment(f.t, f.store, p.id)) {
			return
		}
	}
	switch f.rng.Intn(6) {
	default:
		f.write()
	case 0:
		f.cut()
	case 1:
		f.absorb()
	}
}

// A cut between the moment in which a commit lists the segments and the one in which
// it freezes the parent: the child comes with the parent.
func TestChildComesWithItsParent(t *testing.T) {
	for _, again := range []bool{false, true} {
		f := newField(t, 3)
		for range 20 {
			f.write()
		}
		f.commit()
		listed := f.store.live()
		b := listed[0].Begin(listed[0].head.Applied+1, 1)
		child := b.Cut(50, []byte("k20"), Meta{Applied: childFirst, Term: 1}).Segment()
		if again {
			b.Cut(51, []byte("k10"), Meta{Applied: childFirst, Term: 1})
		}
		b.End()
		c := commit{seen: make(map[*sealed]bool)}
		c.take(listed[0])
		if want := map[bool]int{false: 2, true: 3}[again]; len(c.work) != want || c.work[1].seg != child {
			t.Fatalf("the commit holds %d segments, want %d", len(c.work), want)
		}
	}
}

// Removal and installation settle a cut first: what they write must not come between
// the two records.
func TestRemovalBehindACut(t *testing.T) {
	for _, child := range []bool{false, true} {
		mem := bolt.NewMemory()
		s := mustStore(t, mem)
		g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
		must(t, err)
		putAll(g, "a", "1", "x", "2")
		must(t, s.Commit())
		index, _ := g.Applied()
		b := g.Begin(index+1, 1)
		b.Cut(2, []byte("m"), Meta{Applied: childFirst, Term: 1})
		b.End()
		gone, stays, key := anchormesh.SegmentID(1), anchormesh.SegmentID(2), "x"
		if child {
			gone, stays, key = 2, 1, "a"
		}
		must(t, s.Remove(gone))
		left := mustStore(t, mem.Clone())
		v := mustSegment(t, left, stays).Read()
		res, err := v.Range([]byte{}, []byte{0}, 0, 0, false)
		if err != nil || len(res.KVs) != 1 || string(res.KVs[0].Key) != key || len(left.Segments()) != 1 {
			t.Errorf("after removing %s: %+v, %v, segments %v", gone, res, err, left.Segments())
		}
		v.Close()
	}
}

// Readers, commits and scrubs beside an applier that cuts and absorbs: every view
// shows as many keys as there were, whatever becomes of the segments.
func TestReadersBesideCuts(t *testing.T) {
	const keys = 300
	s := mustStore(t, bolt.NewMemory())
	left, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	for i := range keys {
		putAll(left, fmt.Sprintf("%03d", i), "v")
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	loop := func(do func(rng *rand.Rand)) {
		wg.Go(func() {
			for rng := rand.New(rand.NewSource(1)); ; {
				select {
				case <-stop:
					return
				default:
					do(rng)
				}
			}
		})
	}
	loop(func(*rand.Rand) { must(t, s.Commit()) })
	loop(func(*rand.Rand) { s.Scrub(50) })
	for range 2 {
		loop(func(rng *rand.Rand) {
			v := left.Read()
			defer v.Close()
			want, _ := v.Range([]byte{}, []byte{0}, 0, 0, false)
			for range 3 {
				res, err := v.Range([]byte{}, []byte{0}, 0, 0, false)
				if err != nil || res.Count != want.Count || len(v.KeyRange().End) == 0 && res.Count != keys {
					t.Errorf("a view of %s shows %d keys, then %d, %v", v.KeyRange(), want.Count, res.Count, err)
				}
				k := fmt.Appendf(nil, "%03d", rng.Intn(keys))
				one, err := v.Range(k, nil, 0, 0, false)
				if err != nil || v.KeyRange().Contains(k) != (one.Count == 1) {
					t.Errorf("a view of %s has %d of %s, %v", v.KeyRange(), one.Count, k, err)
				}
			}
		})
	}
	rng := rand.New(rand.NewSource(2))
	for i := range 150 {
		step := func(do func(b *Batch)) {
			index, _ := left.Applied()
			b := left.Begin(index+1, 1)
			do(b)
			b.End()
		}
		var child *Segment
		step(func(b *Batch) {
			child = b.Cut(anchormesh.SegmentID(2+i), fmt.Appendf(nil, "%03d", 1+rng.Intn(keys-1)), Meta{Applied: childFirst, Term: 1}).Segment()
		})
		if rng.Intn(2) == 0 {
			<-child.Synced()
			b := child.Begin(childFirst+1, 1)
			x := b.Txn()
			x.Put([]byte("299"), []byte("again"), 0)
			x.End()
			b.End()
		}
		step(func(b *Batch) { b.Absorb(child, 0) })
		step(func(b *Batch) {
			x := b.Txn()
			x.Put(fmt.Appendf(nil, "%03d", rng.Intn(keys)), []byte("w"), 0)
			x.End()
			cur, _ := left.Revision()
			b.Compact(cur - 5)
		})
	}
	close(stop)
	wg.Wait()
}

// A compaction that is new to one side of an absorb waits for that side's views, even
// if a scrub to it is half way on the other side.
func TestScrubsBehindAnAbsorbWaitForViews(t *testing.T) {
	for _, old := range []string{"left", "right"} {
		t.Run(old, func(t *testing.T) {
			s, g := newSegmentOf(t, anchormesh.KeyRange{})
			putAll(g, "a", "1", "b", "1", "c", "1", "x", "1", "y", "1", "z", "1")
			putAll(g, "a", "2", "b", "2", "c", "2", "x", "2", "y", "2", "z", "2")
			entry := func(g *Segment, do func(b *Batch)) {
				index, _ := g.Applied()
				b := g.Begin(index+1, 1)
				do(b)
				b.End()
				must(t, s.Commit())
			}
			var right *Segment
			entry(g, func(b *Batch) { right = b.Cut(2, []byte("m"), Meta{Applied: childFirst, Term: 1}).Segment() })
			viewed, compacted := g, right
			if old == "right" {
				viewed, compacted = right, g
			}
			v := viewed.Read()
			defer v.Close()
			cur, _ := g.Revision()
			entry(compacted, func(b *Batch) { must(t, b.Compact(cur)) })
			_, err := s.Scrub(1) // half way
			must(t, err)
			entry(g, func(b *Batch) { b.Absorb(right, 0) })
			for range 20 {
				_, err := s.Scrub(10)
				must(t, err)
			}
			res, err := v.Range([]byte{}, []byte{0}, cur-6, 0, false)
			if err != nil || len(res.KVs) != 3 || string(res.KVs[0].Value()) != "1" {
				t.Fatalf("an open view lost its versions: %+v, %v", res.KVs, err)
			}
		})
	}
}

// An absorb asks for a commit, also where nothing else waits for one; after a cut the
// commit of the parent is enough for its child to be synced, whatever else waits.
func TestCommitsOfCutsAndAbsorbs(t *testing.T) {
	s, g := newSegmentOf(t, anchormesh.KeyRange{End: []byte("x")})
	other, err := s.Create(9, anchormesh.KeyRange{Start: []byte("x")}, Meta{})
	must(t, err)
	putAll(other, "y", strings.Repeat("v", 1000))
	index, _ := g.Applied()
	b := g.Begin(index+1, 1)
	child := b.Cut(2, []byte("m"), Meta{Applied: childFirst, Term: 1}).Segment()
	b.End()
	must(t, g.Commit())
	if !synced(child) || g.Durable() != index+1 {
		t.Errorf("after the parent's commit the child is synced: %v, the parent stands at %d", synced(child), g.Durable())
	}
	if s.Pending() < 1000 || other.Durable() != 0 {
		t.Errorf("%d bytes pending, the other segment stands at %d: it was to wait", s.Pending(), other.Durable())
	}
	b = g.Begin(index+2, 1)
	b.Absorb(child, 0)
	b.End()
	select {
	case <-s.Wanted():
	default:
		t.Error("an absorb asks for no commit")
	}
	must(t, s.Commit())
	if s.Pending() != 0 {
		t.Errorf("%d bytes pending after a commit", s.Pending())
	}
}

// A scrub that ends between a cut and its commit must not be recorded: on disk the
// range is still the whole.
func TestScrubRestsUntilTheCutIsCommitted(t *testing.T) {
	mem := bolt.NewMemory()
	s := mustStore(t, mem)
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	putAll(g, "a", "1", "x", "1", "a", "2", "x", "2")
	entry := func(g *Segment, do func(b *Batch)) {
		index, _ := g.Applied()
		b := g.Begin(index+1, 1)
		do(b)
		b.End()
	}
	cur, _ := g.Revision()
	entry(g, func(b *Batch) { must(t, b.Compact(cur)) })
	must(t, s.Commit())
	entry(g, func(b *Batch) { b.Cut(2, []byte("m"), Meta{Applied: childFirst, Term: 1}) })
	for range 5 {
		_, err := s.Scrub(100)
		must(t, err)
	}
	s = mustStore(t, mem.Clone())
	for more := true; more; {
		more, err = s.Scrub(100)
		must(t, err)
	}
	n := 0
	snap := s.backend.Snapshot()
	defer snap.Release()
	c := snap.Bucket(bucketRevisions).Cursor()
	for k, _ := c.Seek(nil); k != nil; k, _ = c.Next() {
		n++
	}
	if n != 2 {
		t.Fatalf("%d revisions are left after a crash, want 2", n)
	}
}

// A reader whose snapshot of the backend is from before a commit does not go on with
// the buffers from after it.
func TestReaderBetweenSnapshotAndLock(t *testing.T) {
	mem := bolt.NewMemory()
	s := mustStore(t, mem)
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	putAll(g, "a", "1")
	index, _ := g.Applied()
	b := g.Begin(index+1, 1)
	child := b.Cut(2, []byte("m"), Meta{Applied: childFirst, Term: 1}).Segment()
	b.End()
	for _, who := range []*Segment{g, child} {
		s.backend = &lateSnapshot{Memory: mem, do: func() { must(t, s.Commit()) }}
		v := who.Read()
		if _, err := v.Range([]byte{}, []byte{0}, 0, 0, false); err != nil {
			t.Error(err)
		}
		v.Close()
		s.backend = mem
	}
}

// lateSnapshot calls back once, when a snapshot was taken and not yet handed out.
type lateSnapshot struct {
	*bolt.Memory
	do func()
}

func (l *lateSnapshot) Snapshot() bolt.Snapshot {
	snap := l.Memory.Snapshot()
	if do := l.do; do != nil {
		l.do = nil
		do()
	}
	return snap
}
