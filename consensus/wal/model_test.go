package wal

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// modelGroup is a group's log in the plainest form.
type modelGroup struct {
	hs   *raftpb.HardState
	mark Mark                     // as Truncate or a snapshot left it
	ents map[uint64]*raftpb.Entry // all since the last restart, truncated ones too
	base Mark                     // mark of the last restart
	last uint64
}

func (g *modelGroup) clone() *modelGroup {
	c := *g
	c.ents = maps.Clone(g.ents)
	return &c
}

// model is what a log should hold.
type model map[anchormesh.SegmentID]*modelGroup

func (m model) clone() model {
	c := model{}
	for id, g := range m {
		c[id] = g.clone()
	}
	return c
}

func (m model) apply(batch []Update) {
	for _, u := range batch {
		if u.Remove {
			delete(m, u.Group)
			continue
		}
		g := m[u.Group]
		if g == nil {
			g = &modelGroup{ents: map[uint64]*raftpb.Entry{}}
			m[u.Group] = g
		}
		if u.HardState != nil {
			g.hs = u.HardState
		}
		if u.Snapshot != nil {
			g.mark, g.base, g.last = *u.Snapshot, *u.Snapshot, u.Snapshot.Index
			g.ents = map[uint64]*raftpb.Entry{}
		}
		for _, e := range u.Entries {
			for i := e.GetIndex(); i <= g.last; i++ {
				delete(g.ents, i)
			}
			g.ents[e.GetIndex()] = e
			g.last = e.GetIndex()
		}
	}
}

func (g *modelGroup) term(i uint64) uint64 {
	if i == g.base.Index {
		return g.base.Term
	}
	return g.ents[i].GetTerm()
}

// compare says how a log differs from the model. With loose, marks that
// Truncate set may be missing: the log then begins earlier.
func (m model) compare(l *Log, loose bool) error {
	want := slices.Sorted(maps.Keys(m))
	if got := l.Groups(); !slices.Equal(got, want) {
		return fmt.Errorf("groups %v, want %v", got, want)
	}
	for _, id := range want {
		if err := m[id].compare(l.Group(id), loose); err != nil {
			return fmt.Errorf("group %v: %w", id, err)
		}
	}
	return nil
}

func (g *modelGroup) compare(got *GroupLog, loose bool) error {
	if hs := got.InitialHardState(); !proto.Equal(hs, g.hs) {
		return fmt.Errorf("hard state %v, want %v", hs, g.hs)
	}
	first, err := got.FirstIndex()
	if err != nil {
		return err
	}
	if first > g.mark.Index+1 || first <= g.base.Index || !loose && first != g.mark.Index+1 {
		return fmt.Errorf("first index %d, want %d (loose: %v, at least %d)", first, g.mark.Index+1, loose, g.base.Index+1)
	}
	last, err := got.LastIndex()
	if err != nil || last != g.last {
		return fmt.Errorf("last index %d, %v; want %d", last, err, g.last)
	}
	for i := first - 1; i <= last; i++ {
		if term, err := got.Term(i); err != nil || term != g.term(i) {
			return fmt.Errorf("term of %d is %d, %v; want %d", i, term, err, g.term(i))
		}
	}
	if first > last {
		return nil
	}
	ents, err := got.Entries(first, last+1, 1<<62)
	if err != nil {
		return err
	}
	for i, e := range ents {
		if want := g.ents[first+uint64(i)]; !sameEntry(e, want) {
			return fmt.Errorf("entry %d is %v, want %v", first+uint64(i), e, want)
		}
	}
	if uint64(len(ents)) != last+1-first {
		return fmt.Errorf("%d entries from %d to %d", len(ents), first, last)
	}
	return nil
}

// sameEntry tells nil fields from zero ones.
func sameEntry(a, b *raftpb.Entry) bool {
	return a.GetIndex() == b.GetIndex() && a.GetTerm() == b.GetTerm() && a.GetType() == b.GetType() &&
		(a.Type == nil) == (b.Type == nil) && (a.Data == nil) == (b.Data == nil) && bytes.Equal(a.Data, b.Data)
}

// workload makes random batches that Raft could have made.
type workload struct {
	rng    *rand.Rand
	model  model
	groups int
}

func (w *workload) data() []byte {
	switch w.rng.IntN(10) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return make([]byte, w.rng.IntN(1000)) // blank sectors inside a frame
	}
	b := make([]byte, w.rng.IntN(300))
	for i := range b {
		b[i] = byte(w.rng.Uint32())
	}
	return b
}

func (w *workload) entry(index, term uint64) *raftpb.Entry {
	e := &raftpb.Entry{Index: &index, Term: &term, Data: w.data()}
	if w.rng.IntN(3) == 0 {
		e.Type = raftpb.EntryType(w.rng.IntN(3)).Enum()
	}
	return e
}

func (w *workload) batch() []Update {
	after := w.model.clone()
	var batch []Update
	for range 1 + w.rng.IntN(3) {
		u := w.update(after)
		after.apply([]Update{u})
		batch = append(batch, u)
	}
	return batch
}

func (w *workload) update(m model) Update {
	u := Update{Group: anchormesh.SegmentID(1 + w.rng.IntN(w.groups))}
	g := m[u.Group]
	term, commit := uint64(1), uint64(0)
	if g == nil {
		g = &modelGroup{}
	}
	term, commit = max(1, g.hs.GetTerm()), g.hs.GetCommit()
	if w.rng.IntN(4) == 0 {
		term += uint64(w.rng.IntN(3))
	}
	switch p := w.rng.IntN(40); {
	case p == 0 && g.hs != nil:
		u.Remove = true
		return u
	case p == 1:
		u.Snapshot = &Mark{Index: max(g.last, commit) + 1 + uint64(w.rng.IntN(5)), Term: term}
		commit = u.Snapshot.Index
		w.entries(&u, u.Snapshot.Index+1, term)
	case p < 30:
		from := g.last + 1
		if w.rng.IntN(5) == 0 { // a conflicting suffix is replaced
			from = commit + 1 + uint64(w.rng.IntN(int(g.last-commit)+1))
			term++
		}
		w.entries(&u, from, term)
	}
	last := g.last
	if n := len(u.Entries); n > 0 {
		last = u.Entries[n-1].GetIndex()
	} else if u.Snapshot != nil {
		last = u.Snapshot.Index
	}
	commit += uint64(w.rng.IntN(int(last-commit) + 1))
	vote := uint64(w.rng.IntN(3))
	u.HardState = &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
	return u
}

func (w *workload) entries(u *Update, from, term uint64) {
	for i := range uint64(w.rng.IntN(6)) {
		u.Entries = append(u.Entries, w.entry(from+i, term))
	}
}

// truncate picks a group and a committed position of it.
func (w *workload) truncate() (anchormesh.SegmentID, Mark) {
	id := anchormesh.SegmentID(1 + w.rng.IntN(w.groups))
	g := w.model[id]
	if g == nil || g.hs.GetCommit() <= g.mark.Index {
		return id, Mark{}
	}
	index := g.mark.Index + 1 + uint64(w.rng.IntN(int(g.hs.GetCommit()-g.mark.Index)))
	g.mark = Mark{Index: index, Term: g.term(index)}
	return id, g.mark
}

func testOptions() Options {
	return Options{FileBytes: 16 << 10, CacheBytes: 4 << 10, CarryBytes: 1 << 10, inline: true}
}

func mustOpen(t testing.TB, fs fsys.FS, opts Options) *Log {
	t.Helper()
	l, err := Open(fs, "wal", opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestModel runs random work and compares after every step, with restarts.
func TestModel(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 7))
		fs := fsys.NewMem()
		opts := testOptions()
		opts.inline = seed%2 == 0
		opts.CacheBytes = int64(rng.IntN(3)) * 3000
		l := mustOpen(t, fs, opts)
		w := &workload{rng: rng, model: model{}, groups: 1 + rng.IntN(8)}
		for step := range 300 {
			switch rng.IntN(12) {
			case 0:
				if err := l.Close(); err != nil {
					t.Fatalf("seed %d step %d: close: %v", seed, step, err)
				}
				l = mustOpen(t, fs, opts)
			case 1, 2, 3:
				id, mark := w.truncate()
				l.Truncate(id, mark)
			default:
				batch := w.batch()
				if err := l.Append(batch); err != nil {
					t.Fatalf("seed %d step %d: %v", seed, step, err)
				}
				w.model.apply(batch)
			}
			if err := w.model.compare(l, true); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
			checkAccounts(t, l)
		}
		s := l.Stats()
		if s.CachedBytes > opts.CacheBytes {
			t.Fatalf("seed %d: %d bytes cached, limit %d", seed, s.CachedBytes, opts.CacheBytes)
		}
		l.Close()
	}
}

// checkAccounts counts what the index keeps accounts of.
func checkAccounts(t *testing.T, l *Log) {
	t.Helper()
	live := map[uint32]int{}
	var cached int64
	for _, g := range l.groups {
		if g.headFile != 0 {
			live[g.headFile]++
		}
		for i := range g.refs {
			live[g.refs[i].file]++
			if g.refs[i].ent != nil {
				cached += cacheCost(&g.refs[i])
			}
		}
	}
	for _, f := range l.files {
		if f.live != live[f.num()] {
			t.Fatalf("file %d: %d live records by its account, %d counted", f.num(), f.live, live[f.num()])
		}
		if f.live == 0 && f.liveBytes != 0 {
			t.Fatalf("file %d: nothing live, but %d bytes", f.num(), f.liveBytes)
		}
	}
	if got := l.cache.bytes.Load(); got != cached {
		t.Fatalf("%d bytes cached by the account, %d counted", got, cached)
	}
}
