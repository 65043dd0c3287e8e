package wal

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// TestAgainstMemoryStorage asks raft's own storage and a group's log the same
// questions. MemoryStorage panics where its contract says ErrUnavailable; these
// are not asked.
func TestAgainstMemoryStorage(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 21))
		opts := testOptions()
		opts.CacheBytes = int64(rng.IntN(2)) * 1000
		l := mustOpen(t, fsys.NewMem(), opts)
		g, ms := l.Group(1), raft.NewMemoryStorage()
		w := &workload{rng: rng}
		term := uint64(1)
		for step := range 150 {
			first, _ := ms.FirstIndex()
			last, _ := ms.LastIndex()
			switch rng.IntN(6) {
			case 0:
				if last >= first {
					i := first + uint64(rng.IntN(int(last-first)+1))
					at, _ := ms.Term(i)
					if err := ms.Compact(i); err != nil {
						t.Fatal(err)
					}
					l.Truncate(1, Mark{Index: i, Term: at})
				}
			case 1:
				i := last + 1 + uint64(rng.IntN(3))
				snap := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: &i, Term: &term}}
				if err := ms.ApplySnapshot(snap); err != nil {
					t.Fatal(err)
				}
				mustAppend(t, l, Update{Group: 1, Snapshot: &Mark{Index: i, Term: term}})
			default:
				term += uint64(rng.IntN(2))
				from := first + uint64(rng.IntN(int(last+1-first)+1))
				var ents []*raftpb.Entry
				for i := range uint64(1 + rng.IntN(5)) {
					ents = append(ents, w.entry(from+i, term))
				}
				if err := ms.Append(ents); err != nil {
					t.Fatal(err)
				}
				mustAppend(t, l, Update{Group: 1, Entries: ents})
			}
			compareStorage(t, seed, step, rng, g, ms)
		}
		l.Close()
	}
}

func compareStorage(t *testing.T, seed uint64, step int, rng *rand.Rand, g *GroupLog, ms *raft.MemoryStorage) {
	t.Helper()
	first, _ := ms.FirstIndex()
	last, _ := ms.LastIndex()
	gotFirst, _ := g.FirstIndex()
	gotLast, _ := g.LastIndex()
	if gotFirst != first || gotLast != last {
		t.Fatalf("seed %d step %d: log from %d to %d, want %d to %d", seed, step, gotFirst, gotLast, first, last)
	}
	for i := max(2, first) - 2; i <= last+2; i++ {
		want, errWant := ms.Term(i)
		got, err := g.Term(i)
		if got != want || err != errWant {
			t.Fatalf("seed %d step %d: term of %d is %d, %v; want %d, %v", seed, step, i, got, err, want, errWant)
		}
	}
	if _, err := g.Entries(first-1, first, 1); err != raft.ErrCompacted {
		t.Fatalf("seed %d step %d: below the first entry: %v", seed, step, err)
	}
	if _, err := g.Entries(first, last+2, 1); err != raft.ErrUnavailable {
		t.Fatalf("seed %d step %d: above the last entry: %v", seed, step, err)
	}
	if first > last {
		return
	}
	for range 3 {
		lo := first + uint64(rng.IntN(int(last-first)+1))
		hi := lo + 1 + uint64(rng.IntN(int(last-lo)+1))
		size := uint64(rng.IntN(2000))
		want, _ := ms.Entries(lo, hi, size)
		got, err := g.Entries(lo, hi, size)
		if err != nil || len(got) != len(want) {
			t.Fatalf("seed %d step %d: [%d, %d) within %d bytes: %d entries, %v; want %d", seed, step, lo, hi, size, len(got), err, len(want))
		}
		for i := range want {
			if !sameEntry(got[i], want[i]) {
				t.Fatalf("seed %d step %d: entry %v, want %v", seed, step, got[i], want[i])
			}
		}
	}
}

func TestBadUpdatesChangeNothing(t *testing.T) {
	l := mustOpen(t, fsys.NewMem(), testOptions())
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 2), Entries: entries(1, 5, 2, 10)})
	l.Truncate(1, Mark{Index: 2, Term: 2})
	good := Update{Group: 2, HardState: hardState(1, 1, 0)}
	wrongIndex := entries(6, 7, 2, 1)
	wrongIndex[1].Index = new(uint64(9))
	falling := entries(6, 7, 2, 1)
	falling[1].Term = new(uint64(1))
	for name, u := range map[string]Update{
		"no group":       {HardState: hardState(1, 1, 1)},
		"gap":            {Group: 1, Entries: entries(7, 7, 2, 1)},
		"below the mark": {Group: 1, Entries: entries(2, 3, 2, 1)},
		"inner gap":      {Group: 1, Entries: wrongIndex},
		"falling term":   {Group: 1, Entries: falling},
		"old snapshot":   {Group: 1, Snapshot: &Mark{Index: 1, Term: 1}},
		"snapshot at 0":  {Group: 1, Snapshot: &Mark{}},
		"not alone":      {Group: 1, Remove: true, HardState: hardState(1, 1, 1)},
	} {
		if err := l.Append([]Update{good, u}); !errors.Is(err, ErrBadUpdate) {
			t.Errorf("%s: %v, want ErrBadUpdate", name, err)
		}
	}
	big := Update{Group: 1, Entries: entries(6, 6, 2, 20000)}
	if err := l.Append([]Update{big}); !errors.Is(err, ErrBatchTooBig) {
		t.Errorf("big batch: %v, want ErrBatchTooBig", err)
	}
	if got := l.Groups(); len(got) != 1 || l.Stats().Batches != 1 {
		t.Fatalf("groups %v and %d batches after refused ones", got, l.Stats().Batches)
	}
	mustAppend(t, l, Update{Group: 1, Entries: entries(6, 6, 2, 10)})
}

func TestDiskFull(t *testing.T) {
	var troubles []error
	opts := testOptions()
	opts.Listener.Trouble = func(err error) { troubles = append(troubles, err) }
	fs := fsys.NewMem()
	full := false
	l, err := Open(fsys.Wrap(fs, func(op fsys.Op) fsys.Fault {
		if full && op.Kind == fsys.OpPreallocate {
			return fsys.Fault{Err: fsys.ErrNoSpace}
		}
		return fsys.Fault{}
	}), "wal", opts)
	if err != nil {
		t.Fatal(err)
	}
	full = true // the second file is there, the third cannot be made
	i := uint64(0)
	for err == nil && i < 100 {
		i++
		err = l.Append([]Update{{Group: 1, HardState: hardState(1, 1, i), Entries: entries(i, i, 1, 1000)}})
	}
	if !errors.Is(err, fsys.ErrNoSpace) || !strings.Contains(err.Error(), "free space") {
		t.Fatalf("after %d appends: %v, want ErrNoSpace and what to do", i, err)
	}
	if len(troubles) < 2 {
		t.Fatalf("%d warnings before the disk was needed, want several", len(troubles))
	}
	l.Close()
	again := mustOpen(t, fs, testOptions())
	if last, _ := again.Group(1).LastIndex(); last != i-1 {
		t.Fatalf("after the restart the log ends at %d, want %d", last, i-1)
	}
}

// TestDiskFullForAWhile: room that comes back in time costs nothing.
func TestDiskFullForAWhile(t *testing.T) {
	fs := fsys.NewMem()
	fails := 0
	l, err := Open(fsys.Wrap(fs, func(op fsys.Op) fsys.Fault {
		if fails > 0 && op.Kind == fsys.OpPreallocate {
			fails--
			return fsys.Fault{Err: fsys.ErrNoSpace}
		}
		return fsys.Fault{}
	}), "wal", testOptions())
	if err != nil {
		t.Fatal(err)
	}
	fails = 3
	for i := uint64(1); i <= 100; i++ {
		mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, i), Entries: entries(i, i, 1, 1000)})
	}
	if s := l.Stats(); fails != 0 || !s.Spare || s.SpareErr != nil {
		t.Fatalf("%d failures left, spare: %v, %v", fails, s.Spare, s.SpareErr)
	}
}

func TestOtherFileSizeAfterRestart(t *testing.T) {
	fs, opts := fsys.NewMem(), testOptions()
	m := model{}
	put := func(l *Log, from, to uint64, size int) {
		t.Helper()
		u := Update{Group: 1, HardState: hardState(1, 1, to), Entries: entries(from, to, 1, size)}
		mustAppend(t, l, u)
		m.apply([]Update{u})
	}
	l := mustOpen(t, fs, opts)
	put(l, 1, 2, 100)
	l.Close()
	opts.FileBytes = 64 << 10
	l = mustOpen(t, fs, opts)
	put(l, 3, 4, 20000) // fits neither the file in use nor the prepared one
	put(l, 5, 6, 100)
	l.Close()
	opts.FileBytes = 16 << 10
	l = mustOpen(t, fs, opts)
	for i := uint64(7); i < 80; i++ {
		put(l, i, i, 1000)
	}
	l.Close()
	if err := m.compare(mustOpen(t, fs, opts), true); err != nil {
		t.Fatal(err)
	}
}

func TestClosed(t *testing.T) {
	l := mustOpen(t, fsys.NewMem(), testOptions())
	g := l.Group(1)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, errEntries := g.Entries(1, 2, 1)
	_, errTerm := g.Term(1)
	for _, err := range []error{l.Close(), l.Append(nil), errEntries, errTerm} {
		if err != ErrClosed {
			t.Errorf("after Close: %v, want ErrClosed", err)
		}
	}
}

func TestListenerAndStats(t *testing.T) {
	var bytes int
	var slow time.Duration
	opts := testOptions()
	opts.Listener.Wrote = func(n int, _ time.Duration) { bytes += n }
	opts.Listener.Synced = func(took time.Duration) { slow = max(slow, took) }
	l := mustOpen(t, fsys.Wrap(fsys.NewMem(), fsys.Slow(fsys.OpDatasync, 20*time.Millisecond)), opts)
	mustAppend(t, l, Update{Group: 1, Entries: entries(1, 3, 1, 10)}, Update{Group: 2, HardState: hardState(1, 1, 1)})
	s := l.Stats()
	if s.Batches != 1 || s.Updates != 2 || s.Entries != 3 || s.Groups != 2 || s.Files != 2 || s.BytesWritten != uint64(bytes) {
		t.Errorf("stats %+v, %d bytes heard of", s, bytes)
	}
	if s.SyncMax < 20*time.Millisecond || slow != s.SyncMax || s.SyncTime != slow {
		t.Errorf("slowest sync %v, heard of %v", s.SyncMax, slow)
	}
	if err := (&Options{FileBytes: 100}).Validate(); err == nil {
		t.Error("a file of 100 bytes was accepted")
	}
}

func TestManyGroups(t *testing.T) {
	const groups = 10000
	fs := fsys.NewMem()
	opts := DefaultOptions()
	opts.FileBytes, opts.CacheBytes = 4<<20, 0
	l := mustOpen(t, fs, opts)
	var batch []Update
	for id := uint64(1); id <= groups; id++ {
		batch = append(batch, Update{Group: 1 + segment(id), HardState: hardState(1, 1, 3), Entries: entries(1, 3, 1, 60)})
		if len(batch) == 250 {
			mustAppend(t, l, batch...)
			batch = batch[:0]
		}
	}
	l.Close()
	begin := time.Now()
	l = mustOpen(t, fs, opts)
	took := time.Since(begin)
	if got := len(l.Groups()); got != groups {
		t.Fatalf("%d groups, want %d", got, groups)
	}
	t.Logf("opened %d groups in %v", groups, took)
	if took > 2*time.Second {
		t.Fatalf("opening %d groups took %v", groups, took)
	}
	l.Close()
}
