package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3/raftpb"
)

func segment(n uint64) anchormesh.SegmentID { return anchormesh.SegmentID(n * 0x9e3779b97f4a7c15) }

// noSync leaves the CPU's part of an append.
type noSync struct{ fsys.FS }

type noSyncFile struct{ fsys.File }

func (n noSync) Create(name string) (fsys.File, error) {
	f, err := n.FS.Create(name)
	return noSyncFile{f}, err
}

func (noSyncFile) Datasync() error { return nil }
func (noSyncFile) Sync() error     { return nil }

// appender makes batches of groups x n entries of size bytes without
// allocating.
type benchBatch struct {
	batch []Update
	next  uint64
	data  []byte
}

func newBenchBatch(groups, n, size int) *benchBatch {
	b := &benchBatch{next: 1, data: make([]byte, size)}
	for i := range b.data {
		b.data[i] = byte(i) | 1
	}
	for g := range groups {
		b.batch = append(b.batch, Update{Group: segment(uint64(g + 1)), HardState: hardState(1, 1, 0), Entries: make([]*raftpb.Entry, n)})
	}
	return b
}

func (b *benchBatch) fill() []Update {
	for i := range b.batch {
		u := &b.batch[i]
		room := make([]loaded, len(u.Entries))
		for j := range u.Entries {
			r := &room[j]
			r.index, r.term = b.next+uint64(j), 1
			r.entry.Index, r.entry.Term, r.entry.Data = &r.index, &r.term, b.data
			u.Entries[j] = &r.entry
		}
		*u.HardState.Commit = b.next - 1
	}
	b.next += uint64(len(b.batch[0].Entries))
	return b.batch
}

func BenchmarkAppend(b *testing.B) {
	for _, fs := range []struct {
		name string
		fs   fsys.FS
	}{{"disk", fsys.OS}, {"cpu", noSync{fsys.OS}}} {
		for _, c := range []struct{ groups, n int }{{1, 1}, {1, 64}, {300, 1}} {
			b.Run(fmt.Sprintf("%s/%dx%d", fs.name, c.groups, c.n), func(b *testing.B) {
				opts := DefaultOptions()
				l, err := Open(fs.fs, filepath.Join(b.TempDir(), "wal"), opts)
				if err != nil {
					b.Fatal(err)
				}
				defer l.Close()
				bb := newBenchBatch(c.groups, c.n, 300)
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					if err := l.Append(bb.fill()); err != nil {
						b.Fatal(err)
					}
					if keep := uint64(1000 / c.groups * c.n); i%1000 == 0 && bb.next > keep+1 {
						for j := range bb.batch {
							l.Truncate(bb.batch[j].Group, Mark{Index: bb.next - keep - 1, Term: 1})
						}
					}
				}
				s := l.Stats()
				b.ReportMetric(float64(s.SyncTime.Microseconds())/float64(s.Batches), "sync-µs/op")
				b.ReportMetric(float64(s.RotationWaits), "rotation-waits")
			})
		}
	}
}

// TestAppendAllocations: the steady state of Append itself allocates nothing.
func TestAppendAllocations(t *testing.T) {
	l := mustOpen(t, noSync{fsys.OS}.inTemp(t), DefaultOptions())
	defer l.Close()
	bb := newBenchBatch(10, 4, 100)
	step := func() {
		batch := bb.fill()
		if err := l.Append(batch); err != nil {
			t.Fatal(err)
		}
		for j := range batch {
			l.Truncate(batch[j].Group, Mark{Index: bb.next - 1, Term: 1})
		}
	}
	for range 2000 {
		step()
	}
	// fill makes one allocation per group.
	if got := testing.AllocsPerRun(500, step); got > 10.5 {
		t.Fatalf("%v allocations per step, want the 10 of the test's own", got)
	}
}

// inTemp is a file system whose "wal" directory is a temporary one.
func (n noSync) inTemp(t testing.TB) fsys.FS {
	t.Chdir(t.TempDir())
	return n
}

func TestIdleGroupMemory(t *testing.T) {
	const groups = 10000
	opts := DefaultOptions()
	opts.FileBytes, opts.CacheBytes, opts.inline = 8<<20, 0, true
	l := mustOpen(t, fsys.NewMem(), opts)
	var before, after runtime.MemStats
	ents := entries(1, 3, 1, 60)
	batch := make([]Update, 0, 250)
	hs := hardState(1, 1, 3)
	mustAppend(t, l, Update{Group: 1, HardState: hs})
	runtime.GC()
	runtime.ReadMemStats(&before)
	live := l.Stats().LiveBytes
	for id := uint64(1); id <= groups; id++ {
		batch = append(batch, Update{Group: segment(id), HardState: hs, Entries: ents})
		if len(batch) == cap(batch) {
			mustAppend(t, l, batch...)
			batch = batch[:0]
		}
	}
	written := l.Stats().LiveBytes - live
	// The memory file system keeps the unsynced writes of the last batch only.
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / groups
	t.Logf("%d bytes per idle group with 3 entries (%d in the files)", per, written/groups)
	if per > 500 {
		t.Fatalf("%d bytes per idle group, want at most 500", per)
	}
	runtime.KeepAlive(l)
}

// BenchmarkSync shows what the choices of file.go and append.go rest on: 512
// bytes written and made durable per operation.
func BenchmarkSync(b *testing.B) {
	buf := make([]byte, 512)
	for i := range buf {
		buf[i] = 1
	}
	const size = 64 << 20
	for _, c := range []struct {
		name     string
		flags    int
		prealloc string
		sync     func(fd int) error
	}{
		{"zeros-fdatasync", 0, "zeros", syscall.Fdatasync},
		{"zeros-fsync", 0, "zeros", syscall.Fsync},
		{"zeros-odsync", syscall.O_DSYNC, "zeros", nil},
		{"fallocate-fdatasync", 0, "fallocate", syscall.Fdatasync},
		{"append-fdatasync", 0, "", syscall.Fdatasync},
	} {
		b.Run(c.name, func(b *testing.B) {
			f, err := os.OpenFile(filepath.Join(b.TempDir(), "f"), os.O_CREATE|os.O_RDWR|c.flags, 0o600)
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			switch c.prealloc {
			case "zeros":
				zeros := make([]byte, 4<<20)
				for off := int64(0); off < size; off += int64(len(zeros)) {
					f.WriteAt(zeros, off)
				}
			case "fallocate":
				syscall.Fallocate(int(f.Fd()), 0, 0, size)
			}
			f.Sync()
			for i := int64(0); b.Loop(); i++ {
				if _, err := f.WriteAt(buf, i*512%size); err != nil {
					b.Fatal(err)
				}
				if c.sync != nil {
					if err := c.sync(int(f.Fd())); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}
