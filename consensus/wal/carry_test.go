package wal

import (
	"fmt"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3/raftpb"
)

func entries(from, to, term uint64, size int) []*raftpb.Entry {
	var out []*raftpb.Entry
	for i := from; i <= to; i++ {
		data := make([]byte, size)
		for j := range data {
			data[j] = byte(i) + byte(j) + 1
		}
		out = append(out, &raftpb.Entry{Index: new(i), Term: new(term), Data: data})
	}
	return out
}

func mustAppend(t testing.TB, l *Log, batch ...Update) {
	t.Helper()
	if err := l.Append(batch); err != nil {
		t.Fatal(err)
	}
}

// TestIdleGroupsLetOldFilesGo: one busy group writes many files while many idle
// ones keep a few entries each.
func TestIdleGroupsLetOldFilesGo(t *testing.T) {
	const idle = 600 // more than the marks that one Append records
	fs := fsys.NewMem()
	opts := testOptions()
	l := mustOpen(t, fs, opts)
	for id := anchormesh.SegmentID(1); id <= idle; id++ {
		mustAppend(t, l, Update{Group: id, HardState: hardState(1, 1, 1), Entries: entries(1, 4, 1, 20)})
	}
	for id := anchormesh.SegmentID(1); id <= idle; id++ {
		l.Truncate(id, Mark{Index: uint64(id % 3), Term: 1})
	}
	for i := uint64(1); i <= 2000; i++ {
		mustAppend(t, l, Update{Group: 9999, HardState: hardState(1, 1, i), Entries: entries(i, i, 1, 300)})
		l.Truncate(9999, Mark{Index: i, Term: 1})
		checkAccounts(t, l)
	}
	s := l.Stats()
	if limit := 2*s.LiveBytes + 4*opts.FileBytes; s.DiskBytes > limit {
		t.Errorf("%d bytes on disk for %d live ones, limit %d", s.DiskBytes, s.LiveBytes, limit)
	}
	if s.BytesCarried == 0 || s.BytesCarried > s.BytesWritten/2 {
		t.Errorf("%d of %d bytes written were carried, want some and at most half", s.BytesCarried, s.BytesWritten)
	}
	check := func(l *Log) {
		t.Helper()
		for id := anchormesh.SegmentID(1); id <= idle; id++ {
			g := l.Group(id)
			if first, err := g.FirstIndex(); err != nil || first != uint64(id%3)+1 {
				t.Fatalf("group %v begins at %d, %v", id, first, err)
			}
			got, err := g.Entries(uint64(id%3)+1, 5, 1<<30)
			want := entries(uint64(id%3)+1, 4, 1, 20)
			if err != nil || len(got) != len(want) {
				t.Fatalf("group %v: %d entries, %v", id, len(got), err)
			}
			for i := range got {
				if !sameEntry(got[i], want[i]) {
					t.Fatalf("group %v: %v, want %v", id, got[i], want[i])
				}
			}
		}
	}
	check(l)
	l.Close()
	check(mustOpen(t, fs, opts))
}

// TestCarryRecordsPendingMarks: an entry that is truncated, but whose mark is
// not recorded yet, must not keep its file.
func TestCarryRecordsPendingMarks(t *testing.T) {
	l := mustOpen(t, fsys.NewMem(), testOptions())
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 5), Entries: entries(1, 5, 1, 10)})
	for l.active().num() == 1 {
		mustAppend(t, l, Update{Group: 2, HardState: hardState(1, 1, 1), Snapshot: &Mark{Index: l.seq + 1, Term: 1}})
	}
	l.carry = carrier{}                                               // rotation has begun it
	mustAppend(t, l, Update{Group: 1, HardState: hardState(2, 1, 5)}) // its head has left file 1
	l.Truncate(1, Mark{Index: 5, Term: 1})
	l.pendMu.Lock()
	l.pending[0].pending, l.pending = false, nil // as if many others stood before it
	l.pendMu.Unlock()
	l.carry = carrier{file: 1}
	mustAppend(t, l, Update{Group: 2, HardState: hardState(2, 1, 1)})
	if l.floor == 1 {
		t.Fatalf("%d live records in the first file after it was emptied", l.files[0].live)
	}
}

// TestTruncateDuringAppend raises a mark after the group was staged: the record
// has the old mark, so the new one must stay on the list.
func TestTruncateDuringAppend(t *testing.T) {
	fs := fsys.NewMem()
	l := mustOpen(t, fs, testOptions())
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 3), Entries: entries(1, 3, 1, 10)})
	l.enc.reset()
	if err := l.stageBatch([]Update{{Group: 1, HardState: hardState(2, 1, 3)}}); err != nil {
		t.Fatal(err)
	}
	l.Truncate(1, Mark{Index: 2, Term: 1})
	l.stageMarks()
	if err := l.write(); err != nil {
		t.Fatal(err)
	}
	l.publish()
	mustAppend(t, l)
	l.Close()
	l = mustOpen(t, fs, testOptions())
	if first, err := l.Group(1).FirstIndex(); err != nil || first != 3 {
		t.Fatalf("after a restart the log begins at %d, %v; want 3", first, err)
	}
}

// TestReadersWhileFilesGo reads old entries, which carrying moves and removals
// take files from, during Append. Run it with -race.
func TestReadersWhileFilesGo(t *testing.T) {
	opts := testOptions()
	opts.inline, opts.CacheBytes = false, 0
	l := mustOpen(t, fsys.NewMem(), opts)
	defer l.Close()
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 40), Entries: entries(1, 40, 1, 50)})
	started, done, result := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		g, reads := l.Group(1), 0
		want := entries(1, 40, 1, 50)
		for {
			select {
			case <-done:
				close(result)
				return
			default:
			}
			got, err := g.Entries(1, 41, 1<<30)
			if err != nil || len(got) != 40 || !sameEntry(got[7], want[7]) || !sameEntry(got[39], want[39]) {
				result <- fmt.Errorf("read %d: %d entries, %v", reads, len(got), err)
				return
			}
			if reads++; reads == 1 {
				close(started)
			}
		}
	}()
	select {
	case <-started:
	case err := <-result:
		t.Fatal(err)
	}
	for i := uint64(1); i <= 3000; i++ {
		mustAppend(t, l, Update{Group: 2, HardState: hardState(1, 1, i), Entries: entries(i, i, 1, 300)})
		l.Truncate(2, Mark{Index: i, Term: 1})
		l.Stats()
	}
	close(done)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if l.Stats().BytesCarried == 0 {
		t.Fatal("nothing was carried")
	}
}

func hardState(term, vote, commit uint64) *raftpb.HardState {
	return &raftpb.HardState{Term: &term, Vote: &vote, Commit: &commit}
}
