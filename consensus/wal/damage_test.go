package wal

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/frame"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

func readAll(t testing.TB, fs fsys.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, _ := f.Size()
	b := make([]byte, size)
	f.ReadAt(b, 0)
	return b
}

func writeAll(t testing.TB, fs fsys.FS, name string, b []byte) {
	t.Helper()
	f, err := fs.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt(b, 0)
	f.Sync()
	f.Close()
	fs.SyncDir(filepath.Dir(name))
}

// filledLog writes batches over several files and closes the log.
func filledLog(t testing.TB, seed uint64, steps int) (*fsys.Mem, model) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 11))
	fs := fsys.NewMem()
	l := mustOpen(t, fs, testOptions())
	w := &workload{rng: rng, model: model{}, groups: 4}
	for range steps {
		batch := w.batch()
		mustAppend(t, l, batch...)
		w.model.apply(batch)
	}
	l.Close()
	return fs, w.model
}

// TestBitFlips changes one bit anywhere in the log. Either it is refused, naming
// file and offset, or nothing is lost: the bit lay where nothing is.
func TestBitFlips(t *testing.T) {
	refused := 0
	for seed := range uint64(600) {
		rng := rand.New(rand.NewPCG(seed, 12))
		fs, m := filledLog(t, seed%20, 60)
		names, _ := fs.List("wal")
		name := filepath.Join("wal", names[rng.IntN(len(names)-1)]) // LOCK is last
		b := readAll(t, fs, name)
		bit := rng.IntN(len(b) * 8)
		b[bit/8] ^= 1 << (bit % 8)
		writeAll(t, fs, name, b)
		l, err := Open(fs, "wal", testOptions())
		var corrupt *CorruptError
		switch {
		case err == nil:
			if err := m.compare(l, true); err != nil {
				t.Fatalf("seed %d: bit %d of byte %d in %s flipped, opened, but %v", seed, bit%8, bit/8, name, err)
			}
		case errors.As(err, &corrupt):
			refused++
			if corrupt.File == "" || !strings.Contains(err.Error(), "anchormesh inspect") {
				t.Fatalf("seed %d: %v", seed, err)
			}
		case errors.Is(err, ErrForeign) && bit/8 < len(fileMagic):
		default:
			t.Fatalf("seed %d: byte %d in %s: %v", seed, bit/8, name, err)
		}
	}
	if refused < 100 {
		t.Fatalf("only %d of 600 flips were noticed", refused)
	}
}

// TestLostSectors zeroes a sector of a confirmed batch that is not the newest.
func TestLostSectors(t *testing.T) {
	tried := 0
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 13))
		fs, _ := filledLog(t, seed%10, 60)
		names, _ := fs.List("wal")
		name := filepath.Join("wal", names[0])
		b := readAll(t, fs, name)
		sector := 1 + rng.IntN(len(b)/fsys.SectorBytes-2)
		part := b[sector*fsys.SectorBytes:][:fsys.SectorBytes]
		if frame.Blank(part) || frame.Blank(b[(sector+1)*fsys.SectorBytes:][:fsys.SectorBytes]) {
			continue
		}
		tried++
		clear(part)
		writeAll(t, fs, name, b)
		var corrupt *CorruptError
		if _, err := Open(fs, "wal", testOptions()); !errors.As(err, &corrupt) {
			t.Fatalf("seed %d: sector %d of the oldest file lost: %v, want a CorruptError", seed, sector, err)
		}
	}
	if tried < 20 {
		t.Fatalf("only %d sectors were tried", tried)
	}
}

// TestLostSectorsInTheNewestFile zeroes every sector in turn of the file that
// the log ends in. A frame that begins in a later sector proves that what is
// gone was confirmed, though the damage looks like a torn write.
func TestLostSectorsInTheNewestFile(t *testing.T) {
	tried := 0
	for seed := range uint64(10) {
		fs, _ := filledLog(t, seed, 8)
		name := fileName("wal", 1)
		good := readAll(t, fs, name)
		f, err := fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		lf, err := readHeader(name, f)
		if err != nil {
			t.Fatal(err)
		}
		newest, win := int64(0), window{}
		win.reset(lf)
		for {
			h, payload, _ := win.frame(lf.end)
			if payload == nil {
				break
			}
			newest = lf.end
			lf.end += int64(frame.Padded(h.Length))
		}
		for at := int64(fileHeaderBytes); at+fsys.SectorBytes <= newest; at += fsys.SectorBytes {
			b := append([]byte(nil), good...)
			if part := b[at : at+fsys.SectorBytes]; !frame.Blank(part) {
				clear(part)
			} else {
				continue
			}
			tried++
			mem := fsys.NewMem()
			mem.MkdirAll("wal")
			writeAll(t, mem, name, b)
			var corrupt *CorruptError
			if _, err := Open(mem, "wal", testOptions()); !errors.As(err, &corrupt) {
				t.Fatalf("seed %d: sector at %d lost, newest frame at %d: %v, want a CorruptError", seed, at, newest, err)
			}
			if after := readAll(t, mem, name); string(after) != string(b) {
				t.Fatalf("seed %d: sector at %d lost: the refused file was changed", seed, at)
			}
		}
	}
	if tried < 50 {
		t.Fatalf("only %d sectors were tried", tried)
	}
}

func TestMissingFiles(t *testing.T) {
	long := func() *fsys.Mem {
		fs := fsys.NewMem()
		l := mustOpen(t, fs, testOptions())
		for i := uint64(1); i <= 60; i++ {
			mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, i), Entries: entries(i, i, 1, 1000)})
		}
		l.Close()
		return fs
	}
	names, _ := long().List("wal")
	if len(names) < 5 {
		t.Fatalf("the test needs more files than %v", names)
	}
	for _, base := range names[:len(names)-2] { // all but the prepared one and LOCK
		fs := long()
		fs.Remove(filepath.Join("wal", base))
		var corrupt *CorruptError
		if _, err := Open(fs, "wal", testOptions()); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), base) {
			t.Errorf("without %s: %v, want a CorruptError naming it", base, err)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	fs, _ := filledLog(t, 1, 3)
	name := filepath.Join("wal", "0000000000000001.wal")
	good := readAll(t, fs, name)
	reseal := func(change func(b []byte)) []byte {
		b := append([]byte(nil), good...)
		change(b)
		binary.LittleEndian.PutUint32(b[headerSumOffset:], frame.Checksum(0, b[:headerSumOffset]))
		return b
	}
	for _, c := range []struct {
		what string
		data []byte
		want error
		text string
	}{
		{"text", []byte("# notes\n"), ErrForeign, "magic number"},
		{"empty", nil, ErrForeign, "magic number"},
		{"newer", reseal(func(b []byte) { b[8] = 2 }), ErrNewer, "version 2, this program reads version 1"},
		{"other log", reseal(func(b []byte) { b[32] ^= 1 }), ErrForeign, "another log"},
	} {
		writeAll(t, fs, name, c.data)
		if _, err := Open(fs, "wal", testOptions()); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %v with %q", c.what, err, c.want, c.text)
		}
	}
	writeAll(t, fs, name, good)
	writeAll(t, fs, filepath.Join("wal", "copy.wal"), good)
	if _, err := Open(fs, "wal", testOptions()); !errors.Is(err, ErrForeign) {
		t.Errorf("a copy under another name: %v", err)
	}
	fs.Remove(filepath.Join("wal", "copy.wal"))
	writeAll(t, fs, name, good[:len(good)-512])
	var corrupt *CorruptError
	if _, err := Open(fs, "wal", testOptions()); !errors.As(err, &corrupt) {
		t.Errorf("a cut file: %v", err)
	}
	writeAll(t, fs, name, good)
	mustOpen(t, fs, testOptions())
	if _, err := Open(fs, "wal", testOptions()); !errors.Is(err, fsys.ErrLocked) || !strings.Contains(err.Error(), "LOCK") {
		t.Errorf("a second process: %v", err)
	}
}

// TestRottenEntryIsNotRead changes an entry under a running log.
func TestRottenEntryIsNotRead(t *testing.T) {
	fs, opts := fsys.NewMem(), testOptions()
	opts.CacheBytes = 0
	l := mustOpen(t, fs, opts)
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 1), Entries: entries(1, 3, 1, 100)})
	r := l.Group(1).refs[1]
	f, _ := fs.OpenFile(fileName("wal", 1))
	f.WriteAt([]byte{0xff}, int64(r.off)+50)
	var corrupt *CorruptError
	if _, err := l.Group(1).Entries(1, 4, 1<<20); !errors.As(err, &corrupt) || corrupt.Offset != int64(r.off) {
		t.Fatalf("%v, want a CorruptError at offset %d", err, r.off)
	}
	if ents, err := l.Group(1).Entries(1, 2, 1<<20); err != nil || len(ents) != 1 {
		t.Fatalf("the entry before it: %v, %v", ents, err)
	}
}

// FuzzOpen gives recovery any bytes behind a good header: it must not panic, and
// batches below a whole later one must be there or the log refused.
func FuzzOpen(f *testing.F) {
	fs, _ := filledLog(f, 2, 8)
	good := readAll(f, fs, fileName("wal", 1))
	f.Add(good[fileHeaderBytes:4096], uint16(0), []byte{})
	f.Add([]byte{}, uint16(100), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, body []byte, at uint16, patch []byte) {
		b := append([]byte(nil), good...)
		copy(b[fileHeaderBytes:], body)
		copy(b[min(len(b), fileHeaderBytes+int(at)):], patch)
		mem := fsys.NewMem()
		mem.MkdirAll("wal")
		writeAll(t, mem, fileName("wal", 1), b)
		l, err := Open(mem, "wal", testOptions())
		if err != nil {
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) {
				t.Fatalf("refused without a CorruptError: %v", err)
			}
			return
		}
		if at, ok := frame.Later(b[l.files[0].end:], l.files[0].seed, l.files[0].end, l.seq); ok {
			t.Fatalf("the log ends at batch %d, but a later one stood at %d", l.seq, at)
		}
		for _, id := range l.Groups() {
			g := l.Group(id)
			first, _ := g.FirstIndex()
			last, _ := g.LastIndex()
			g.Entries(first, last+1, 1<<20)
		}
		mustAppend(t, l, Update{Group: 77, HardState: hardState(1, 1, 1)})
	})
}

// FuzzRecords seals any bytes as a batch: what a checksum cannot catch must
// still not panic.
func FuzzRecords(f *testing.F) {
	f.Add(appendRecordHead(nil, flagRestart, 5, head{hasState: true, term: 3, vote: 1, commit: 9, mark: Mark{9, 3}}))
	run := appendRecordHead(nil, flagEntries, 5, head{})
	run = appendEntriesHead(run, 1, 1)
	f.Add(appendEntry(run, 5, 1, &ref{term: 1, size: 2}, []byte("ab")))
	fs, _ := filledLog(f, 2, 0)
	blank := readAll(f, fs, fileName("wal", 1))
	h, err := parseHeader("", blank)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 8000 {
			return
		}
		b := append([]byte(nil), blank...)
		sealed := append(make([]byte, frame.HeaderBytes), payload...)
		frame.Seal(sealed, h.seed(), fileHeaderBytes, 1, 1)
		copy(b[fileHeaderBytes:], sealed)
		mem := fsys.NewMem()
		mem.MkdirAll("wal")
		writeAll(t, mem, fileName("wal", 1), b)
		l, err := Open(mem, "wal", testOptions())
		if err != nil {
			return
		}
		var ids []anchormesh.SegmentID
		for _, id := range l.Groups() {
			ids = append(ids, id)
			g := l.Group(id)
			first, _ := g.FirstIndex()
			last, _ := g.LastIndex()
			g.Entries(first, last+1, 1<<20)
		}
		checkAccounts(t, l)
		if len(ids) > 0 {
			mustAppend(t, l, Update{Group: ids[0], Remove: true})
		}
	})
}
