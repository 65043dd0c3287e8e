package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	f := mustOpen(t, path)
	put(t, f, "x", "a", "1", "empty", "")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f = mustOpen(t, path)
	if got := dumpNow(f, "x"); !maps.Equal(got, map[string]string{"a": "1", "empty": ""}) {
		t.Fatalf("got %v", got)
	}
}

// A crash leaves the file as it is at any moment between two commits.
func TestCopyOfALiveFileOpens(t *testing.T) {
	dir := t.TempDir()
	f := mustOpen(t, filepath.Join(dir, "s.db"))
	for i := range 5 {
		put(t, f, "x", fmt.Sprint(i), string(bytes.Repeat([]byte("v"), 3000)))
		raw, err := os.ReadFile(filepath.Join(dir, "s.db"))
		if err != nil {
			t.Fatal(err)
		}
		cp := filepath.Join(dir, fmt.Sprintf("copy%d.db", i))
		if err := os.WriteFile(cp, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := len(dumpNow(mustOpen(t, cp), "x")); got != i+1 {
			t.Fatalf("copy %d holds %d keys", i, got)
		}
	}
}

func TestDefragShrinksAndSurvivesLeftovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	f := mustOpen(t, path)
	big := string(make([]byte, 1<<20))
	put(t, f, "x", "keep", "1", "big1", big, "big2", big)
	err := f.Update(func(tx Tx) error {
		b, _ := tx.Bucket("x")
		return errors.Join(b.Delete([]byte("big1")), b.Delete([]byte("big2")))
	})
	if err != nil {
		t.Fatal(err)
	}
	before, inUse := f.Size()
	if inUse > before/2 {
		t.Fatalf("%d of %d bytes in use after deleting nearly everything", inUse, before)
	}
	if err := f.Defrag(); err != nil {
		t.Fatal(err)
	}
	if after, _ := f.Size(); after > before/2 {
		t.Fatalf("defragmented from %d to %d bytes", before, after)
	}
	put(t, f, "x", "after", "2")
	f.Close()
	if err := os.WriteFile(path+defragSuffix, []byte("half a copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	f = mustOpen(t, path)
	if got := dumpNow(f, "x"); !maps.Equal(got, map[string]string{"keep": "1", "after": "2"}) {
		t.Fatalf("got %v", got)
	}
	if _, err := os.Stat(path + defragSuffix); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("the leftover of a crashed defragmentation stays")
	}
}

func TestBadFiles(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	f := mustOpen(t, good)
	for i := range 100 {
		put(t, f, "x", fmt.Sprint(i), string(bytes.Repeat([]byte("v"), 3000)))
	}
	f.Close()
	raw, _ := os.ReadFile(good)
	garbled := bytes.Clone(raw)
	for i := 2 * 8192; i < len(garbled); i++ {
		garbled[i] ^= 0x55
	}
	for name, content := range map[string][]byte{
		"text": []byte("this is not a store"), "zeros": make([]byte, 1<<16),
		"cut": raw[:20*8192], "garbled": garbled,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := OpenFile(DefaultFileConfig(path)); err == nil {
			f.Close()
			t.Errorf("%s: opened", name)
		} else if !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLockedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	mustOpen(t, path)
	cfg := DefaultFileConfig(path)
	cfg.LockTimeout = 60 * time.Millisecond
	if _, err := OpenFile(cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("got %v", err)
	}
}

// A commit that outgrows the map waits for readers and lets them go on.
func TestGrowthBeyondTheMap(t *testing.T) {
	cfg := DefaultFileConfig(filepath.Join(t.TempDir(), "s.db"))
	cfg.MapBytes = 1 << 20
	f, err := OpenFile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	put(t, f, "x", "a", "1")
	f.Snapshot().Release() // leaves the idle snapshot behind
	held := f.Snapshot()
	done := make(chan struct{})
	go func() {
		defer close(done)
		put(t, f, "x", "big", string(make([]byte, 8<<20)))
	}()
	if got := held.Bucket("x").Get([]byte("a")); string(got) != "1" {
		t.Fatalf("got %q", got)
	}
	held.Release()
	<-done
	if got := len(dumpNow(f, "x")["big"]); got != 8<<20 {
		t.Fatalf("got %d bytes", got)
	}
}

// After a failed write nothing is accepted any more; reads go on.
func TestFailureIsFinal(t *testing.T) {
	f := mustOpen(t, filepath.Join(t.TempDir(), "s.db"))
	put(t, f, "x", "a", "1")
	f.db.MaxSize = 1 << 16 // stands for a full disk
	err := f.Update(func(tx Tx) error {
		b, _ := tx.Bucket("x")
		return b.Put([]byte("big"), make([]byte, 1<<25))
	})
	if !errors.Is(err, ErrFatal) {
		t.Fatalf("got %v", err)
	}
	f.db.MaxSize = 0
	if err := f.Update(func(Tx) error { return nil }); !errors.Is(err, ErrFatal) {
		t.Fatalf("a store that failed accepts more: %v", err)
	}
	if got := dumpNow(f, "x"); !maps.Equal(got, map[string]string{"a": "1"}) {
		t.Fatalf("got %v", got)
	}
}
