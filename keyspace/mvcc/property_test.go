package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"sync"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// world is two segments of one store with their models and logs.
type world struct {
	t      *testing.T
	rng    *rand.Rand
	store  *Store
	models map[anchormesh.SegmentID]*model
	logs   map[anchormesh.SegmentID][]logEntry
}

var worldPrefix = map[anchormesh.SegmentID]string{1: "a", 2: "b"}

func worldRange(id anchormesh.SegmentID) anchormesh.KeyRange {
	if id == 1 {
		return anchormesh.KeyRange{End: []byte("b")}
	}
	return anchormesh.KeyRange{Start: []byte("b")}
}

func newWorld(t *testing.T, seed int64, b bolt.Backend) *world {
	w := &world{t: t, rng: rand.New(rand.NewSource(seed)), store: mustStore(t, b),
		models: map[anchormesh.SegmentID]*model{}, logs: map[anchormesh.SegmentID][]logEntry{}}
	for id := range worldPrefix {
		_, err := w.store.Create(id, worldRange(id), Meta{})
		must(t, err)
		w.models[id] = newModel()
	}
	return w
}

func (w *world) someID() anchormesh.SegmentID { return anchormesh.SegmentID(1 + w.rng.Intn(2)) }

// grow applies one more entry to a segment and its model.
func (w *world) grow(id anchormesh.SegmentID) {
	m := w.models[id]
	e := m.generate(w.rng, worldPrefix[id])
	w.logs[id] = append(w.logs[id], e)
	m.apply(e)
	e.applyTo(mustSegment(w.t, w.store, id), m.applied)
}

// recover opens a store over what a crash left and replays the logs.
func (w *world) recover(b bolt.Backend) {
	w.store = mustStore(w.t, b)
	for id, log := range w.logs {
		g := mustSegment(w.t, w.store, id)
		from, _ := g.Applied()
		if from != g.Durable() {
			w.t.Fatalf("an opened segment is at %d, durable %d", from, g.Durable())
		}
		for i := from; i < uint64(len(log)); i++ {
			log[i].applyTo(g, i+1)
		}
	}
}

func (w *world) check() {
	for id, m := range w.models {
		m.check(w.t, mustSegment(w.t, w.store, id), w.rng, worldPrefix[id])
	}
}

func (w *world) scrub() {
	_, err := w.store.Scrub(1 + w.rng.Intn(20))
	must(w.t, err)
}

// copySegment moves a segment through a snapshot into another store.
func copySegment(t *testing.T, g *Segment, into *Store) *Segment {
	t.Helper()
	e, err := g.Export()
	must(t, err)
	defer e.Close()
	i, err := into.Install(g.ID(), g.KeyRange())
	must(t, err)
	if _, there := into.Segment(g.ID()); there {
		t.Fatal("a segment being installed is present")
	}
	for {
		chunk, err := e.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		if len(chunk) > ChunkBytes {
			t.Fatalf("chunk of %d bytes", len(chunk))
		}
		must(t, i.Add(chunk))
	}
	out, err := i.Finish(e.Meta())
	must(t, err)
	return out
}

func seeds(t *testing.T, n int, f func(t *testing.T, seed int64)) {
	if testing.Short() {
		n = max(1, n/5)
	}
	for range n {
		seed := rand.Int63()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { f(t, seed) })
	}
}

// Commits, scrubs, crashes and snapshots at any moment change no answer.
func TestAgainstModel(t *testing.T) {
	seeds(t, 25, func(t *testing.T, seed int64) {
		mem := bolt.NewMemory()
		w := newWorld(t, seed, mem)
		for range 250 {
			switch w.rng.Intn(30) {
			default:
				w.grow(w.someID())
			case 0, 1, 2:
				must(t, w.store.Commit())
				if w.store.Pending() != 0 {
					t.Fatalf("%d bytes pending after a commit", w.store.Pending())
				}
			case 3, 4, 5, 6:
				w.scrub()
			case 7:
				mem = mem.Clone()
				w.recover(mem)
				w.check()
			case 8:
				w.throughSnapshot()
			case 9, 10:
				w.check()
			}
		}
		for more := true; more; {
			must(t, w.store.Commit())
			var err error
			more, err = w.store.Scrub(7)
			must(t, err)
		}
		w.check()
		w.checkScrubbed()
	})
}

// throughSnapshot replaces a segment by its own export from another store, as a
// lagging replica does, and replays what came after.
func (w *world) throughSnapshot() {
	id := w.someID()
	other := mustStore(w.t, bolt.NewMemory())
	copySegment(w.t, mustSegment(w.t, w.store, id), other)
	g := copySegment(w.t, mustSegment(w.t, other, id), w.store)
	from, _ := g.Applied()
	for i := from; i < uint64(len(w.logs[id])); i++ {
		w.logs[id][i].applyTo(g, i+1)
	}
	w.models[id].check(w.t, g, w.rng, worldPrefix[id])
}

// checkScrubbed compares the revisions in the backend with what compaction by its
// definition retains.
func (w *world) checkScrubbed() {
	want := 0
	for _, m := range w.models {
		for _, e := range m.events {
			at, _ := m.at(e.key, m.compacted)
			newest := at.main == e.main && at.sub == e.sub
			if e.main > m.compacted || newest && (!e.del || e.main == m.compacted) {
				want++
			}
		}
	}
	snap := w.store.backend.Snapshot()
	defer snap.Release()
	got := 0
	c := snap.Bucket(bucketRevisions).Cursor()
	for k, _ := c.Seek(nil); k != nil; k, _ = c.Next() {
		got++
	}
	if got != want {
		w.t.Fatalf("%d revisions stored, want %d", got, want)
	}
}

// poisoned is a backend whose snapshots overwrite what was read from them when they
// are released, as a file's pages may be: whoever keeps such bytes reads rubbish.
type poisoned struct{ *bolt.Memory }

type poisonedSnapshot struct {
	bolt.Snapshot
	mu   sync.Mutex
	read [][]byte
}

func (p poisoned) Snapshot() bolt.Snapshot { return &poisonedSnapshot{Snapshot: p.Memory.Snapshot()} }

func (s *poisonedSnapshot) Release() {
	for _, b := range s.read {
		for i := range b {
			b[i] = 0xff
		}
	}
}

func (s *poisonedSnapshot) Bucket(name string) bolt.Reader {
	return poisonedReader{s.Snapshot.Bucket(name), s}
}

func (s *poisonedSnapshot) lend(b []byte) []byte {
	if b == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = append(s.read, append([]byte{}, b...))
	return s.read[len(s.read)-1]
}

type poisonedReader struct {
	bolt.Reader
	s *poisonedSnapshot
}

func (r poisonedReader) Get(key []byte) []byte { return r.s.lend(r.Reader.Get(key)) }
func (r poisonedReader) Cursor() bolt.Cursor   { return poisonedCursor{r.Reader.Cursor(), r.s} }

type poisonedCursor struct {
	c bolt.Cursor
	s *poisonedSnapshot
}

func (c poisonedCursor) Seek(key []byte) (k, v []byte) {
	k, v = c.c.Seek(key)
	return c.s.lend(k), c.s.lend(v)
}

func (c poisonedCursor) Next() (k, v []byte) {
	k, v = c.c.Next()
	return c.s.lend(k), c.s.lend(v)
}

// What outlives a snapshot by contract does: a transaction's reads, history,
// previous values, exported chunks, and what was loaded.
func TestNothingAliasesAReleasedSnapshot(t *testing.T) {
	seeds(t, 5, func(t *testing.T, seed int64) {
		mem := bolt.NewMemory()
		w := newWorld(t, seed, poisoned{mem})
		for range 120 {
			switch w.rng.Intn(12) {
			default:
				w.grow(w.someID())
			case 0, 1:
				must(t, w.store.Commit())
			case 2:
				w.scrub()
			case 3:
				w.check()
			case 4:
				w.throughSnapshot()
			case 5:
				w.readInTxn()
			}
		}
		must(t, w.store.Commit())
		w.recover(poisoned{mem})
		w.check()
		w.readInTxn()
	})
}

// readInTxn compares what a transaction reads with the model after the batch.
func (w *world) readInTxn() {
	id := w.someID()
	m := w.models[id]
	w.logs[id] = append(w.logs[id], logEntry{})
	m.apply(logEntry{})
	b := mustSegment(w.t, w.store, id).Begin(m.applied, 1+m.applied/10)
	x := b.Txn()
	var all Result
	var errs error
	single := map[string]KV{}
	all, errs = x.Range([]byte(worldPrefix[id]), []byte{0}, 0, 0, false)
	for _, e := range m.live("", "", m.current) {
		single[e.key], _ = x.Get([]byte(e.key))
	}
	x.End()
	b.End()
	must(w.t, errs)
	live := m.live("", "", m.current)
	if len(all.KVs) != len(live) {
		w.t.Fatalf("a transaction read %d keys, want %d", len(all.KVs), len(live))
	}
	for i, e := range live {
		if !bytes.Equal(all.KVs[i].Raw, e.raw()) {
			w.t.Fatalf("a transaction read %q, want %q", all.KVs[i].Raw, e.raw())
		}
		if kv := single[e.key]; !bytes.Equal(kv.Raw, e.raw()) {
			w.t.Fatalf("a transaction read %q, want %q", kv.Raw, e.raw())
		}
	}
}

// The same on a file, with defragmentation and reopening.
func TestAgainstModelOnFile(t *testing.T) {
	seeds(t, 3, func(t *testing.T, seed int64) {
		path := filepath.Join(t.TempDir(), "scope.db")
		open := func() bolt.Backend {
			f, err := bolt.OpenFile(bolt.DefaultFileConfig(path))
			must(t, err)
			return f
		}
		b := open()
		w := newWorld(t, seed, b)
		for range 150 {
			switch w.rng.Intn(25) {
			default:
				w.grow(w.someID())
			case 0, 1:
				must(t, w.store.Commit())
			case 2, 3:
				w.scrub()
			case 4:
				must(t, b.Close()) // without a commit: what was pending is lost
				b = open()
				w.recover(b)
				w.check()
			case 5:
				must(t, w.store.Defrag())
			case 6:
				w.check()
			case 7:
				w.throughSnapshot()
			}
		}
		w.check()
		must(t, w.store.Close())
		w.recover(open())
		w.check()
		must(t, w.store.Close())
	})
}
