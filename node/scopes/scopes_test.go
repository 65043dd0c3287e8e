package scopes_test

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/scopes"
)

const segment anchormesh.SegmentID = 9

// open returns stores in a directory; commits counts what was told of them.
func open(dir string, with func(*scopes.Config)) (s *scopes.Stores, commits *atomic.Int64) {
	cfg := scopes.DefaultConfig()
	commits = new(atomic.Int64)
	cfg.Committed = func(time.Duration) { commits.Add(1) }
	if with != nil {
		with(&cfg)
	}
	return scopes.New(cfg, func(prefix []byte) string { return filepath.Join(dir, "s"+string(prefix)+".db") }), commits
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// create opens a scope and makes a segment in it.
func create(t *testing.T, s *scopes.Stores, prefix string) (*mvcc.Store, *mvcc.Segment) {
	t.Helper()
	store, err := s.Open([]byte(prefix))
	must(t, err)
	g, err := store.Create(segment, anchormesh.KeyRange{}, mvcc.Meta{Applied: 5, Term: 1})
	must(t, err)
	return store, g
}

func put(g *mvcc.Segment, index uint64, key, value string) {
	b := g.Begin(index, 1)
	txn := b.Txn()
	txn.Put([]byte(key), []byte(value), 0)
	txn.End()
	b.End()
}

func TestOneStorePerScope(t *testing.T) {
	s, _ := open(t.TempDir(), nil)
	a, err := s.Open([]byte("a"))
	must(t, err)
	again, err := s.Open([]byte("a"))
	must(t, err)
	b, err := s.Open([]byte("b"))
	must(t, err)
	seen := map[*mvcc.Store]bool{}
	s.Each(func(store *mvcc.Store) { seen[store] = true })
	if a != again || a == b || len(seen) != 2 || !seen[a] || !seen[b] {
		t.Errorf("stores %p, %p, %p; each visits %v", a, again, b, seen)
	}
	must(t, s.Close())
}

// What is applied is committed at the interval, and nothing is while nothing is
// applied.
func TestCommitsAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, commits := open(t.TempDir(), nil)
		store, g := create(t, s, "")
		put(g, 6, "k", "v")
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if commits.Load() != 0 || store.Pending() == 0 || g.Durable() != 5 {
			t.Errorf("before the interval: %d commits, %d bytes pending, durable %d", commits.Load(), store.Pending(), g.Durable())
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if commits.Load() != 1 || store.Pending() != 0 || g.Durable() != 6 {
			t.Errorf("after it: %d commits, %d bytes pending, durable %d", commits.Load(), store.Pending(), g.Durable())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if commits.Load() != 1 {
			t.Errorf("an idle minute made %d commits", commits.Load()-1)
		}
		must(t, s.Close())
	})
}

// Much that is applied is committed before the interval is over.
func TestCommitsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, commits := open(t.TempDir(), func(c *scopes.Config) { c.Store.CommitBytes = 10_000 })
		_, g := create(t, s, "")
		for i := range 3 {
			put(g, uint64(6+i), "k", strings.Repeat("v", 5000))
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if commits.Load() == 0 || g.Durable() < 7 {
			t.Errorf("%d commits, durable %d", commits.Load(), g.Durable())
		}
		must(t, s.Close())
	})
}

// The end commits what is there, and the next beginning finds it.
func TestCloseAndReopen(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(dir, nil)
		_, g := create(t, s, "")
		put(g, 6, "k", "v")
		must(t, s.Close())
	})
	s, _ := open(dir, nil)
	store, err := s.Open(nil)
	must(t, err)
	g, ok := store.Segment(segment)
	if !ok || g.Durable() != 6 {
		t.Fatalf("segments %v, %v", store.Segments(), g)
	}
	must(t, s.Close())
}

// History below a compaction goes in the background.
func TestCompactedHistoryGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, _ := open(dir, func(c *scopes.Config) { c.ScrubBudget = 10 })
		_, g := create(t, s, "")
		for i := range 100 {
			put(g, uint64(6+i), "k", "v")
		}
		b := g.Begin(106, 1)
		must(t, b.Compact(100))
		b.End()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		must(t, s.Close())
		if n := records(t, filepath.Join(dir, "s.db")); n > 5 {
			t.Errorf("%d revisions are stored, all but 2 were compacted", n)
		}
	})
}

// records counts the revisions in a store's file.
func records(t *testing.T, path string) (n int) {
	t.Helper()
	f, err := bolt.OpenFile(bolt.DefaultFileConfig(path))
	must(t, err)
	defer f.Close()
	snap := f.Snapshot()
	defer snap.Release()
	c := snap.Bucket("revisions").Cursor()
	for k, _ := c.Seek(nil); k != nil; k, _ = c.Next() {
		n++
	}
	return n
}

// A store that cannot be written ends the process, with the file's name.
func TestFailedCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed error
		s, commits := open(t.TempDir(), func(c *scopes.Config) {
			c.Failed = func(err error) { failed = err; runtime.Goexit() } // the process ends
		})
		_, g := create(t, s, "")
		b := g.Begin(6, 1)
		b.PutAux("table", make([]byte, 40_000), nil) // no store takes so long a key
		b.End()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if failed == nil || !strings.Contains(failed.Error(), "s.db cannot be committed") || commits.Load() != 0 {
			t.Errorf("%d commits, failure %v", commits.Load(), failed)
		}
		if err := s.Close(); err == nil {
			t.Error("the end says that all was committed")
		}
	})
}

func TestBadFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "sx.db"), []byte(strings.Repeat("junk", 10_000)), 0o600))
	s, _ := open(dir, nil)
	if _, err := s.Open([]byte("x")); err == nil || !strings.Contains(err.Error(), "sx.db") || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file of junk: %v", err)
	}
	opened := 0
	s.Each(func(*mvcc.Store) { opened++ })
	if opened != 0 {
		t.Error("a store that could not be opened counts as open")
	}
	must(t, s.Close())
}
