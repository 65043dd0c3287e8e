package fsys

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// outcomes collects what describe says of many power cuts.
func outcomes(t *testing.T, m *Mem, describe func(*Mem) string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for seed := range uint64(400) {
		seen[describe(m.CrashClone(rand.New(rand.NewPCG(seed, 1))))]++
	}
	return seen
}

func expect(t *testing.T, seen map[string]int, want ...string) {
	t.Helper()
	var got []string
	for s := range seen {
		got = append(got, s)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Fatalf("power cuts left %q, want exactly %q", got, want)
	}
}

func TestCrashKeepsWhatWasSynced(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("d"))
	must(t, m.SyncDir("/"))
	write(t, m, "d/f", "synced")
	must(t, m.SyncDir("d"))
	expect(t, outcomes(t, m, func(c *Mem) string { return read(t, c, "d/f") }), "synced")
}

func TestCrashTearsAtSectors(t *testing.T) {
	m := NewMem()
	f, err := m.Create("f")
	must(t, err)
	must(t, f.Truncate(2*SectorBytes))
	must(t, f.Sync())
	must(t, m.SyncDir("/"))
	_, err = f.WriteAt(bytes.Repeat([]byte("x"), 2*SectorBytes), 0)
	must(t, err)
	sectors := func(c *Mem) string {
		data := read(t, c, "f")
		var out strings.Builder
		for len(data) > 0 {
			switch data[:SectorBytes] {
			case strings.Repeat("x", SectorBytes):
				out.WriteByte('x')
			case strings.Repeat("\x00", SectorBytes):
				out.WriteByte('0')
			default:
				out.WriteByte('?')
			}
			data = data[SectorBytes:]
		}
		return out.String()
	}
	expect(t, outcomes(t, m, sectors), "00", "0x", "x0", "xx")
	must(t, f.Datasync())
	expect(t, outcomes(t, m, sectors), "xx")
}

func TestCrashKeepsTheOrderWithinASector(t *testing.T) {
	m := NewMem()
	write(t, m, "f", "0")
	must(t, m.SyncDir("/"))
	f, err := m.OpenFile("f")
	must(t, err)
	for _, text := range []string{"1", "2"} {
		_, err = f.WriteAt([]byte(text), 0)
		must(t, err)
	}
	expect(t, outcomes(t, m, func(c *Mem) string { return read(t, c, "f") }), "0", "1", "2")
}

func TestCrashLosesAnUnsyncedLength(t *testing.T) {
	m := NewMem()
	write(t, m, "f", "ab")
	must(t, m.SyncDir("/"))
	f, err := m.OpenFile("f")
	must(t, err)
	_, err = f.WriteAt([]byte("XYZ"), 0)
	must(t, err)
	must(t, f.Datasync())
	expect(t, outcomes(t, m, func(c *Mem) string { return read(t, c, "f") }), "XY", "XYZ")
	must(t, f.Sync())
	expect(t, outcomes(t, m, func(c *Mem) string { return read(t, c, "f") }), "XYZ")
}

func TestCrashLosesUnsyncedNames(t *testing.T) {
	m := NewMem()
	write(t, m, "old", "o")
	must(t, m.SyncDir("/"))
	write(t, m, "tmp", "t")
	must(t, m.Rename("tmp", "new"))
	must(t, m.Remove("old"))
	list := func(c *Mem) string {
		names, err := c.List("/")
		must(t, err)
		return strings.Join(names, " ")
	}
	expect(t, outcomes(t, m, list), "", "new", "new old", "old", "old tmp", "tmp")
	must(t, m.SyncDir("/"))
	expect(t, outcomes(t, m, list), "new")
}

func TestCrashCloneSharesNothing(t *testing.T) {
	m := NewMem()
	write(t, m, "f", "same")
	must(t, m.SyncDir("/"))
	c := m.CrashClone(rand.New(rand.NewPCG(1, 1)))
	write(t, m, "f", "changed")
	if got := read(t, c, "f"); got != "same" {
		t.Fatalf("the clone now reads %q", got)
	}
}

func TestHooks(t *testing.T) {
	boom := errors.New("boom")
	var trace bytes.Buffer
	fsys := Wrap(NewMem(), Trace(&trace), FailNth(OpSync, "f", 2, boom), NoSpaceAfter(8))
	f, err := fsys.Create("f")
	must(t, err)
	_, err = f.WriteAt([]byte("12345"), 0)
	must(t, err)
	if n, err := f.WriteAt([]byte("67890"), 5); n != 3 || !errors.Is(err, ErrNoSpace) {
		t.Fatalf("write over the budget: %d, %v; want 3 bytes and ErrNoSpace", n, err)
	}
	must(t, f.Sync())
	for range 2 {
		if err := f.Sync(); !errors.Is(err, boom) {
			t.Fatalf("sync: %v, want boom", err)
		}
	}
	must(t, fsys.Rename("f", "g"))
	if err := f.Sync(); err != nil {
		t.Fatalf("sync under the new name: %v", err)
	}
	want := "create f\nwrite f 0+5\nwrite f 5+5\nsync f\nsync f\nsync f\nrename f -> g\nsync g\n"
	if trace.String() != want {
		t.Fatalf("trace:\n%swant:\n%s", trace.String(), want)
	}
	if got := read(t, fsys, "g"); got != "12345678" {
		t.Fatalf("file holds %q", got)
	}
}

func TestFullDiskMatchesErrNoSpace(t *testing.T) {
	f, err := OS.OpenFile("/dev/full")
	if err != nil {
		t.Skip("no /dev/full here")
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%v, want ErrNoSpace", err)
	}
}
