package mvcc

import (
	"cmp"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// lateWrite is one write of a history in which commits come behind higher revisions.
type lateWrite struct {
	rev, sub int64
	del      bool
	key, val string
}

// lateTxn is a transaction of a log entry, in the order of the log.
type lateTxn struct {
	rev    int64
	commit bool // by CommitAt; else by TxnAt
	writes []lateWrite
}

type lateEntry struct {
	txns []lateTxn
	hold int64
}

func (e *lateEntry) applyTo(g *Segment, index uint64) {
	b := g.Begin(index, 1)
	for _, x := range e.txns {
		var t *Txn
		if x.commit {
			t = b.CommitAt(x.rev)
		} else {
			t, _ = b.TxnAt(x.rev)
		}
		for _, w := range x.writes {
			if x.commit {
				t.Place(w.sub)
			}
			if w.del {
				t.Delete([]byte(w.key))
			} else {
				t.Put([]byte(w.key), []byte(w.val), 0)
			}
		}
		t.End()
	}
	b.Hold(e.hold)
	b.End()
}

// lateWorld grows such a history. Keys of what is prepared are left alone.
type lateWorld struct {
	t        *testing.T
	rng      *rand.Rand
	mem      *bolt.Memory
	store    *Store
	log      []lateEntry
	number   int64
	alive    map[string]bool // of all that is applied
	prepared []latePrepared
	writes   []lateWrite // applied, in the order of the log
	views    []lateView
	told     []Event
}

type latePrepared struct {
	p, c int64 // c is zero until it is asked for
	keys []string
}

type lateView struct {
	view *View
	want []lateWrite // applied when it was opened
}

const lateKeys = 14

func newLateWorld(t *testing.T, seed int64) *lateWorld {
	w := &lateWorld{t: t, rng: rand.New(rand.NewSource(seed)), mem: bolt.NewMemory(), number: 1, alive: map[string]bool{}}
	w.store = mustStore(t, w.mem)
	g, err := w.store.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	g.SetPublisher(w)
	return w
}

// Publish implements Publisher: each call's events are in order of revisions.
func (w *lateWorld) Publish(events []Event, rev int64) {
	for i := 1; i < len(events); i++ {
		a, b := events[i-1], events[i]
		if a.Main > b.Main || a.Main == b.Main && a.Sub >= b.Sub {
			w.t.Errorf("published %d.%d before %d.%d", a.Main, a.Sub, b.Main, b.Sub)
		}
	}
	w.told = append(w.told, events...)
}

func (w *lateWorld) segment() *Segment { return mustSegment(w.t, w.store, 1) }

func (w *lateWorld) next() int64 {
	w.number += 1 + int64(w.rng.Intn(3))
	return w.number
}

func (w *lateWorld) free() (keys []string) {
	for i := range lateKeys {
		k := fmt.Sprintf("k%02d", i)
		if !slices.ContainsFunc(w.prepared, func(p latePrepared) bool { return slices.Contains(p.keys, k) }) {
			keys = append(keys, k)
		}
	}
	w.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	return keys
}

func (w *lateWorld) hold() (hold int64) {
	for _, p := range w.prepared {
		if hold == 0 || p.p < hold {
			hold = p.p
		}
	}
	return hold
}

// txn writes some of keys at rev, with places that leave gaps if it is a commit.
func (w *lateWorld) txn(rev int64, commit bool, keys []string) lateTxn {
	x, sub := lateTxn{rev: rev, commit: commit}, int64(0)
	for _, k := range keys {
		del := w.alive[k] && w.rng.Intn(3) == 0
		if commit {
			sub += int64(w.rng.Intn(3))
		}
		x.writes = append(x.writes, lateWrite{rev: rev, sub: sub, del: del, key: k, val: fmt.Sprintf("%d.%d", rev, sub)})
		w.alive[k] = !del
		sub++
	}
	return x
}

// grow applies one more entry: writes, prepares and commits of what was prepared.
func (w *lateWorld) grow() {
	var e lateEntry
	for range 1 + w.rng.Intn(3) {
		switch w.rng.Intn(5) {
		case 0:
			if keys := w.free(); len(keys) > 3 {
				w.prepared = append(w.prepared, latePrepared{p: w.next(), keys: keys[:1+w.rng.Intn(3)]})
			}
		case 1:
			for i := range w.prepared {
				if p := &w.prepared[i]; p.c == 0 && w.rng.Intn(2) == 0 {
					p.c = w.next()
				}
			}
		case 2:
			i := slices.IndexFunc(w.prepared, func(p latePrepared) bool { return p.c != 0 })
			if i >= 0 {
				p := w.prepared[i]
				w.prepared = slices.Delete(w.prepared, i, i+1)
				e.txns = append(e.txns, w.txn(p.c, true, p.keys))
			}
		default:
			if keys := w.free(); len(keys) > 0 {
				e.txns = append(e.txns, w.txn(w.next(), false, keys[:1+w.rng.Intn(min(2, len(keys)))]))
			}
		}
	}
	e.hold = w.hold()
	w.log = append(w.log, e)
	for _, x := range e.txns {
		w.writes = append(w.writes, x.writes...)
	}
	e.applyTo(w.segment(), uint64(len(w.log)))
}

// ordered returns writes in the order of their revisions.
func ordered(writes []lateWrite) []lateWrite {
	out := slices.Clone(writes)
	slices.SortFunc(out, func(a, b lateWrite) int { return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.sub, b.sub)) })
	return out
}

// stateAt is what a read at rev sees, as text.
func stateAt(writes []lateWrite, rev int64) string {
	type state struct {
		lateWrite
		create, version int64
	}
	now := map[string]state{}
	for _, w := range ordered(writes) {
		if w.rev > rev {
			break
		}
		s := now[w.key]
		switch {
		case w.del:
			delete(now, w.key)
			continue
		case s.version == 0:
			s.create = w.rev
		}
		now[w.key] = state{w, s.create, s.version + 1}
	}
	out := fmt.Sprintf("%d:", len(now))
	for i := range lateKeys {
		if s, ok := now[fmt.Sprintf("k%02d", i)]; ok {
			out += fmt.Sprintf(" %s=%s@%d/%d/%d", s.key, s.val, s.create, s.rev, s.version)
		}
	}
	return out
}

func readAt(t *testing.T, v *View, rev int64) string {
	t.Helper()
	res, err := v.Range([]byte{0}, []byte{0}, rev, 0, false)
	must(t, err)
	out := fmt.Sprintf("%d:", res.Count)
	for _, kv := range res.KVs {
		out += fmt.Sprintf(" %s=%s@%d/%d/%d", kv.Key, kv.Value(), kv.Create, kv.Mod, kv.Version)
	}
	return out
}

func (w *lateWorld) check() {
	w.t.Helper()
	g := w.segment()
	v := g.Read()
	defer v.Close()
	current, _ := g.Revision()
	if hold := w.hold(); hold > 0 && v.Rev() != min(hold, current) || hold == 0 && v.Rev() != current {
		w.t.Fatalf("a view at %d, current %d, hold %d", v.Rev(), current, hold)
	}
	for range 5 {
		rev := 1 + w.rng.Int63n(v.Rev())
		if got, want := readAt(w.t, v, rev), stateAt(w.writes, rev); got != want {
			w.t.Fatalf("at %d:\n%s\nwant\n%s", rev, got, want)
		}
	}
	for _, old := range w.views {
		if got, want := readAt(w.t, old.view, 0), stateAt(old.want, old.view.Rev()); got != want {
			w.t.Fatalf("a view from before, at %d:\n%s\nwant\n%s", old.view.Rev(), got, want)
		}
	}
	w.checkHistory(g, 1+w.rng.Int63n(v.Rev()), v.Rev())
}

// checkHistory compares what a watch that fell behind reads.
func (w *lateWorld) checkHistory(g *Segment, from, shown int64) {
	w.t.Helper()
	var want []string
	for _, x := range ordered(w.writes) {
		if x.rev >= from && x.rev <= shown {
			want = append(want, fmt.Sprintf("%d.%d %s %v", x.rev, x.sub, x.key, x.del))
		}
	}
	var got []string
	for next := from; next <= shown; {
		events, n, err := g.History(next, 0, anchormesh.KeyRange{}, 100)
		must(w.t, err)
		for _, e := range events {
			got = append(got, fmt.Sprintf("%d.%d %s %v", e.Main, e.Sub, e.KV.Key, e.Delete))
		}
		next = n
	}
	if !slices.Equal(got, want) {
		w.t.Fatalf("history from %d:\n%v\nwant\n%v", from, got, want)
	}
}

func (w *lateWorld) closeViews() {
	for _, v := range w.views {
		v.view.Close()
	}
	w.views = nil
}

// crash comes back with what was committed and replays the log.
func (w *lateWorld) crash() {
	w.closeViews()
	w.mem = w.mem.Clone()
	w.store = mustStore(w.t, w.mem)
	g := w.segment()
	applied, _ := g.Applied()
	if applied > 0 {
		g.Hold(w.log[applied-1].hold)
	}
	for i := applied; i < uint64(len(w.log)); i++ {
		w.log[i].applyTo(g, i+1)
	}
	g.SetPublisher(w)
}

// inOrder is a store in which the same writes were applied in order of revisions.
func (w *lateWorld) inOrder() *Segment {
	s := mustStore(w.t, bolt.NewMemory())
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(w.t, err)
	all := ordered(w.writes)
	for i := 0; i < len(all); {
		n := i
		for n < len(all) && all[n].rev == all[i].rev {
			n++
		}
		index, _ := g.Applied()
		e := lateEntry{txns: []lateTxn{{rev: all[i].rev, commit: true, writes: all[i:n]}}}
		e.applyTo(g, index+1)
		i = n
	}
	return g
}

// A commit below what was applied before it (counterexample 2b) leaves the segment as
// if everything had come in the order of the revisions: reads, history and hashes at
// every revision, across commits of the store, crashes and snapshots. A view from
// before does not see what it could not have seen.
func TestCommitsBelowTheCurrentRevision(t *testing.T) {
	seeds(t, 20, func(t *testing.T, seed int64) {
		w := newLateWorld(t, seed)
		defer func() { w.closeViews() }()
		for range 120 {
			w.grow()
			switch w.rng.Intn(14) {
			case 0:
				must(t, w.store.Commit())
			case 1:
				w.crash()
			case 2, 3:
				w.views = append(w.views, lateView{w.segment().Read(), slices.Clone(w.writes)})
			case 4:
				w.closeViews()
			}
			w.check()
		}
		for len(w.prepared) > 0 {
			w.grow()
		}
		w.checkEnd()
	})
}

// checkEnd compares with a store that saw everything in order, before and behind a
// commit of the store, and as installed elsewhere.
func (w *lateWorld) checkEnd() {
	t := w.t
	t.Helper()
	rev, _ := w.segment().Revision()
	want, _, _, err := w.inOrder().Hash(rev)
	must(t, err)
	same := func(what string, g *Segment) {
		t.Helper()
		if got, _, _, err := g.Hash(rev); err != nil || got != want {
			t.Fatalf("hash %s: %08x, %v; want %08x", what, got, err, want)
		}
	}
	same("in buffers", w.segment())
	must(t, w.store.Commit())
	same("in the backend", w.segment())
	if left := w.store.Pending(); left != 0 {
		t.Fatalf("%d bytes are pending behind a commit", left)
	}
	snapshot, meta := chunks(t, w.segment())
	other := mustStore(t, bolt.NewMemory())
	in, err := other.Install(1, anchormesh.KeyRange{})
	must(t, err)
	for _, c := range snapshot {
		must(t, in.Add(c))
	}
	_, err = in.Finish(meta)
	must(t, err)
	same("installed", mustSegment(t, other, 1))
	w.crash()
	same("restored", w.segment())
}

// A cut and an absorb between the prepares and the commits: each child brings its own
// share, and together they are what one segment would be.
func TestCommitsBelowTheCurrentRevisionAroundACut(t *testing.T) {
	seeds(t, 20, func(t *testing.T, seed int64) {
		w := newLateWorld(t, seed)
		for range 30 {
			w.grow()
		}
		g := w.segment()
		at := []byte(fmt.Sprintf("k%02d", 1+w.rng.Intn(lateKeys-1)))
		index, _ := g.Applied()
		b := g.Begin(index+1, 1)
		child := b.Cut(2, at, Meta{Applied: 5, Term: 1}).Segment()
		b.End()
		for len(w.prepared) > 0 { // what is left to commit comes late on both sides
			p := w.prepared[0]
			w.prepared = w.prepared[1:]
			if p.c == 0 {
				p.c = w.next()
			}
			x := w.txn(p.c, true, p.keys)
			w.writes = append(w.writes, x.writes...)
			for _, side := range []*Segment{g, child} {
				share := lateTxn{rev: x.rev, commit: true}
				for _, y := range x.writes {
					if side.KeyRange().Contains([]byte(y.key)) {
						share.writes = append(share.writes, y)
					}
				}
				e := lateEntry{txns: []lateTxn{share}, hold: w.hold()}
				applied, _ := side.Applied()
				e.applyTo(side, applied+1)
			}
			if w.rng.Intn(3) == 0 {
				must(t, w.store.Commit())
			}
		}
		must(t, w.store.Commit())
		index, _ = g.Applied()
		b = g.Begin(index+1, 1)
		b.Absorb(child, 0)
		b.Hold(0)
		b.End()
		current, _ := g.Revision()
		for rev := int64(1); rev <= current; rev += 1 + w.rng.Int63n(4) {
			v := g.Read()
			if got, want := readAt(t, v, rev), stateAt(w.writes, rev); got != want {
				t.Fatalf("at %d:\n%s\nwant\n%s", rev, got, want)
			}
			v.Close()
		}
		w.checkHistory(g, 1, current)
	})
}

// Many commits that come late are in few buffers.
func TestLateCommitsAreInFewBuffers(t *testing.T) {
	_, g := newSegmentOf(t, anchormesh.KeyRange{})
	putAll(g, "a", "1")
	const n = 1000
	b := g.Begin(2, 1)
	x, err := b.TxnAt(2*n + 10)
	must(t, err)
	x.Put([]byte("z"), nil, 0)
	x.End()
	b.End()
	for i := range n {
		e := lateEntry{txns: []lateTxn{{rev: int64(3 + (i*7)%(2*n)), commit: true,
			writes: []lateWrite{{sub: 1, key: fmt.Sprintf("k%04d", i), val: "v"}}}}}
		e.applyTo(g, uint64(3+i))
	}
	if got := len(g.sealed); got > 11 {
		t.Errorf("%d commits are in %d buffers", n, got)
	}
	v := g.Read()
	defer v.Close()
	if res, err := v.Range([]byte("k"), []byte("l"), 0, 0, false); err != nil || res.Count != n || len(res.KVs) != n {
		t.Errorf("%d keys, %v", res.Count, err)
	}
}
