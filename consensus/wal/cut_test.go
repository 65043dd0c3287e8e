package wal

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// large is a batch that fits no file of testOptions, of three groups: what followers that catch
// up are sent at once. One group's suffix is replaced by a later term's.
func large(w *workload) []Update {
	var batch []Update
	for i, n := range []uint64{3, 400, 150} {
		u := Update{Group: anchormesh.SegmentID(1 + i), HardState: hardState(2, 1, 2+n/2)}
		for i := range n {
			u.Entries = append(u.Entries, w.entry(3+i, 2))
		}
		batch = append(batch, u)
	}
	batch[0].Promise = Memory
	return batch
}

// TestWriteCutsWhatNoFileHolds: what is too much for a file is written all the same. Of what a
// power cut leaves each group has a log that it may have had: the entries in order, nothing said
// to be committed that is not there, and the new term's entries only with that term.
func TestWriteCutsWhatNoFileHolds(t *testing.T) {
	cuts := 0
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		mem := fsys.NewMem()
		writing := false
		var before, after model
		l := mustOpen(t, fsys.Wrap(mem, func(op fsys.Op) fsys.Fault {
			if writing && op.Changes() && rng.IntN(3) == 0 {
				cuts++
				checkCut(t, seed, mem.CrashClone(rng), before, after)
			}
			return fsys.Fault{}
		}), testOptions())
		w := &workload{rng: rng, model: model{}}
		old := []Update{
			{Group: 1, HardState: hardState(1, 1, 2), Entries: entries(1, 9, 1, 10)},
			{Group: 2, HardState: hardState(1, 1, 2), Entries: entries(1, 9, 1, 10)},
			{Group: 3, HardState: hardState(1, 1, 2), Entries: entries(1, 2, 1, 10)},
		}
		mustAppend(t, l, old...)
		w.model.apply(old)
		batch := large(w)
		before, after = w.model.clone(), w.model
		after.apply(batch)
		writing = true
		if err := l.Write(batch); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := after.compare(l, true); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := l.Sync(); err != nil {
			t.Fatal(err)
		}
		writing = false
		l.Close()
		l = mustOpen(t, mem.CrashClone(rng), testOptions())
		if err := after.compare(l, true); err != nil {
			t.Fatalf("seed %d: after a power cut: %v", seed, err)
		}
		l.Close()
	}
	if cuts < 100 {
		t.Errorf("only %d power cuts", cuts)
	}
}

func checkCut(t *testing.T, seed uint64, left *fsys.Mem, before, after model) {
	l := mustOpen(t, left, testOptions())
	defer l.Close()
	for _, id := range l.Groups() {
		g := l.Group(id)
		hs := g.InitialHardState()
		if hs.GetTerm() == 1 {
			if err := before[id].compare(g, true); err != nil {
				t.Fatalf("seed %d: group %v was not written yet: %v", seed, id, err)
			}
			continue
		}
		last, _ := g.LastIndex()
		if hs.GetCommit() < 2 || hs.GetCommit() > last {
			t.Fatalf("seed %d: group %v: %d of %d entries are committed", seed, id, hs.GetCommit(), last)
		}
		ents, err := g.Entries(3, last+1, 1<<62)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ents {
			if want := after[id].ents[e.GetIndex()]; !sameEntry(e, want) {
				t.Fatalf("seed %d: group %v: entry %d is %v, want %v", seed, id, e.GetIndex(), e, want)
			}
		}
	}
}

// TestOneEntryMustFit: an entry is not cut, and what was written before it stays.
func TestOneEntryMustFit(t *testing.T) {
	l := mustOpen(t, fsys.NewMem(), testOptions())
	defer l.Close()
	u := Update{Group: 1, Entries: append(entries(1, 3, 1, 10), entries(4, 4, 1, 20000)...)}
	if err := l.Write([]Update{u}); !errors.Is(err, ErrBatchTooBig) {
		t.Errorf("an entry that no file holds: %v, want ErrBatchTooBig", err)
	}
	u.Entries = append(entries(1, 3, 1, 10), entries(4, 4, 1, 15700)...)
	if err := l.Write([]Update{u}); err != nil {
		t.Errorf("one that just fits: %v", err)
	}
	if err := l.Write(nil); err != nil {
		t.Error(err)
	}
}
