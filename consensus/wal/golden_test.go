package wal

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/internal/frame"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew; commit the diff only if you can explain it")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -rewrite to accept):\n%s", path, got)
	}
}

// TestGoldenTrace shows every write, sync, rename and removal of a log's life,
// so that a lost sync is a diff.
func TestGoldenTrace(t *testing.T) {
	var out bytes.Buffer
	mem := fsys.NewMem()
	fs := fsys.Wrap(mem, fsys.Trace(&out))
	step := func(name string) { out.WriteString("# " + name + "\n") }

	step("open an empty directory")
	l := mustOpen(t, fs, testOptions())
	step("append one entry of one group")
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 0), Entries: entries(1, 1, 1, 2000)})
	step("append to three groups: one write, one sync")
	mustAppend(t, l,
		Update{Group: 1, HardState: hardState(1, 1, 1), Entries: entries(2, 3, 1, 100)},
		Update{Group: 2, HardState: hardState(1, 2, 0), Entries: entries(1, 1, 1, 100)},
		Update{Group: 3, Snapshot: &Mark{Index: 9, Term: 1}})
	step("truncate, then append nothing: the mark alone is recorded")
	l.Truncate(1, Mark{Index: 2, Term: 1})
	if err := l.Append(nil); err != nil {
		t.Fatal(err)
	}
	step("append what does not fit: on in the prepared file, the one after it is prepared")
	mustAppend(t, l, Update{Group: 2, HardState: hardState(1, 2, 1), Entries: entries(2, 4, 1, 4600)})
	step("append: the live records of the first file are carried, which empties it")
	mustAppend(t, l, Update{Group: 2, HardState: hardState(1, 2, 2)})
	step("append: that is recorded, and the file goes")
	mustAppend(t, l, Update{Group: 2, HardState: hardState(1, 2, 3)})
	step("close")
	l.Close()
	step("open again: the last batch is made durable")
	l = mustOpen(t, fs, testOptions())
	l.Close()

	step("open behind a torn batch: it is cut")
	name := fileName("wal", 2)
	b := readAll(t, mem, name)
	f, _ := mem.OpenFile(name)
	end := l.seq
	lf, err := readHeader(name, f)
	if err != nil {
		t.Fatal(err)
	}
	win := window{}
	win.reset(lf)
	for {
		h, payload, _ := win.frame(lf.end)
		if payload == nil {
			break
		}
		lf.end += int64(frame.Padded(h.Length))
		end = h.Seq
	}
	torn := append(make([]byte, frame.HeaderBytes), bytes.Repeat([]byte("x"), 900)...)
	frame.Seal(torn, lf.seed, lf.end, end+1, 2)
	copy(b[lf.end:], torn)
	from := (lf.end + 600) &^ 511
	clear(b[from : from+512])
	f.WriteAt(b, 0)
	l = mustOpen(t, fs, testOptions())
	l.Close()
	golden(t, "trace", out.String())
}

// TestGoldenFormat pins the stored bytes. A change needs a new format version.
func TestGoldenFormat(t *testing.T) {
	h := fileHeader{num: 3, size: 16384, id: logID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}
	lines := []string{
		"header " + hex.EncodeToString(h.encode()[:56]),
	}
	if !frame.Blank(h.encode()[52:]) {
		t.Error("the header has bytes behind its checksum")
	}
	rec := func(name string, b []byte) { lines = append(lines, name+" "+hex.EncodeToString(b)) }
	full := head{hasState: true, term: 300, vote: 2, commit: 70, mark: Mark{Index: 65, Term: 299}}
	rec("state", appendRecordHead(nil, 0, 0xabcdef, full))
	rec("restart", appendRecordHead(nil, flagRestart, 1, head{mark: Mark{Index: 9, Term: 1}}))
	rec("remove", appendRecordHead(nil, flagRemove, 1, head{}))
	run := appendRecordHead(nil, flagEntries|flagCarried, 1, head{})
	run = appendEntriesHead(run, 1, 2)
	for i, e := range entries(1, 2, 7, 3) {
		if i == 1 {
			e.Data = nil
		}
		r := refOf(e, 0)
		run = appendEntry(run, 1, e.GetIndex(), &r, e.Data)
	}
	rec("entries", run)
	golden(t, "format", strings.Join(lines, "\n")+"\n")
}

// TestOldLogOpens reads a log that format version 1 left. It was made once and is
// never made again: what it stands for cannot be changed any more.
func TestOldLogOpens(t *testing.T) {
	const dir = "testdata/v1"
	mem := fsys.NewMem()
	opts := testOptions()
	opts.FileBytes = 8 << 10
	if _, err := os.Stat(filepath.Join(dir, "0000000000000001.wal")); err != nil && *rewrite {
		l := mustOpen(t, mem, opts)
		writeV1(t, l)
		l.Close()
		b := readAll(t, mem, fileName("wal", 1))
		os.MkdirAll(dir, 0o755)
		if err := os.WriteFile(filepath.Join(dir, "0000000000000001.wal"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "0000000000000001.wal"))
	if err != nil {
		t.Fatal(err)
	}
	old := fsys.NewMem()
	old.MkdirAll("wal")
	writeAll(t, old, fileName("wal", 1), b)
	want := mustOpen(t, fsys.NewMem(), opts)
	writeV1(t, want)
	got := mustOpen(t, old, opts)
	for _, id := range want.Groups() {
		first, _ := want.Group(id).FirstIndex()
		last, _ := want.Group(id).LastIndex()
		we, err := want.Group(id).Entries(first, last+1, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		ge, err := got.Group(id).Entries(first, last+1, 1<<20)
		if err != nil || len(ge) != len(we) {
			t.Fatalf("group %v: %d entries, %v; want %d", id, len(ge), err, len(we))
		}
		for i := range we {
			if !sameEntry(we[i], ge[i]) {
				t.Fatalf("group %v: %v, want %v", id, ge[i], we[i])
			}
		}
	}
	var out bytes.Buffer
	if err := Dump(old, fileName("wal", 1), &out); err != nil {
		t.Fatal(err)
	}
	golden(t, "dump", out.String())
	out.Reset()
	if err := DumpJSON(old, "wal", &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(out.String(), "\n")
	golden(t, "dump.json", strings.Join(lines[:min(8, len(lines))], ""))
}

func writeV1(t *testing.T, l *Log) {
	mustAppend(t, l,
		Update{Group: 1, HardState: hardState(1, 1, 0), Entries: entries(1, 3, 1, 40)},
		Update{Group: 2, HardState: hardState(5, 0, 9), Snapshot: &Mark{Index: 9, Term: 4}, Entries: entries(10, 10, 5, 10)})
	mustAppend(t, l, Update{Group: 1, HardState: hardState(2, 2, 1), Entries: entries(3, 4, 2, 8)})
	mustAppend(t, l, Update{Group: 3, HardState: hardState(1, 1, 1)})
	mustAppend(t, l, Update{Group: 3, Remove: true})
	l.Truncate(1, Mark{Index: 1, Term: 1})
	mustAppend(t, l)
}
