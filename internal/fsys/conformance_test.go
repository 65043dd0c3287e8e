package fsys

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"testing"
)

// TestConformance is what every FS must do, whichever it is.
func TestConformance(t *testing.T) {
	for _, impl := range []struct {
		name string
		make func(t *testing.T) (FS, string)
	}{
		{"os", func(t *testing.T) (FS, string) { return OS, t.TempDir() }},
		{"mem", func(t *testing.T) (FS, string) { return NewMem(), "/" }},
		{"wrapped", func(t *testing.T) (FS, string) { return Wrap(NewMem(), Trace(io.Discard)), "/" }},
	} {
		for _, c := range conformance {
			t.Run(impl.name+"/"+c.name, func(t *testing.T) {
				fsys, dir := impl.make(t)
				c.check(t, fsys, dir)
			})
		}
	}
}

var conformance = []struct {
	name  string
	check func(t *testing.T, fsys FS, dir string)
}{
	{"names", checkNames},
	{"bytes", checkBytes},
	{"rename", checkRename},
	{"handles outlive names", checkHandles},
	{"errors", checkErrors},
	{"lock", checkLock},
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustFile(t *testing.T, f File, err error) File {
	t.Helper()
	must(t, err)
	return f
}

func write(t *testing.T, fsys FS, name, text string) {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	_, err = f.WriteAt([]byte(text), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}

func read(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	buf := make([]byte, size)
	if n, err := f.ReadAt(buf, 0); n != len(buf) {
		t.Fatalf("read %d of %d bytes: %v", n, len(buf), err)
	}
	return string(buf)
}

func checkNames(t *testing.T, fsys FS, dir string) {
	sub := path.Join(dir, "a", "b")
	must(t, fsys.MkdirAll(sub))
	must(t, fsys.MkdirAll(sub))
	for _, name := range []string{"z", "x", "y"} {
		write(t, fsys, path.Join(sub, name), name)
	}
	must(t, fsys.Remove(path.Join(sub, "y")))
	must(t, fsys.SyncDir(sub))
	names, err := fsys.List(sub)
	must(t, err)
	if !slices.Equal(names, []string{"x", "z"}) {
		t.Fatalf("names %q, want x and z in order", names)
	}
	if _, err := fsys.FreeBytes(dir); err != nil {
		t.Fatal(err)
	}
}

func checkBytes(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "f")
	created, err := fsys.Create(name)
	f := mustFile(t, created, err)
	defer f.Close()
	must(t, f.Preallocate(1000))
	_, err = f.WriteAt([]byte("hello"), 100)
	must(t, err)
	must(t, f.Datasync())
	_, err = f.WriteAt([]byte("end"), 2000)
	must(t, err)
	must(t, f.Sync())
	if size, err := f.Size(); err != nil || size != 2003 {
		t.Fatalf("size %d, %v; want 2003", size, err)
	}
	want := make([]byte, 2003)
	copy(want[100:], "hello")
	copy(want[2000:], "end")
	if got := read(t, fsys, name); got != string(want) {
		t.Fatal("bytes between the writes are not zero, or the writes are lost")
	}
	buf := make([]byte, 10)
	if n, err := f.ReadAt(buf, 1998); n != 5 || err != io.EOF || !bytes.Equal(buf[:5], []byte("\x00\x00end")) {
		t.Fatalf("read at the end: %d bytes %q, %v", n, buf[:n], err)
	}
	if n, err := f.ReadAt(buf, 9999); n != 0 || err != io.EOF {
		t.Fatalf("read behind the end: %d, %v", n, err)
	}
	must(t, f.Truncate(102))
	must(t, f.Truncate(104))
	if got := read(t, fsys, name); got[100:] != "he\x00\x00" {
		t.Fatalf("after a shorter and a longer truncate: %q", got[100:])
	}
}

func checkRename(t *testing.T, fsys FS, dir string) {
	a, b := path.Join(dir, "a"), path.Join(dir, "b")
	write(t, fsys, a, "new")
	write(t, fsys, b, "old")
	must(t, fsys.Rename(a, b))
	if got := read(t, fsys, b); got != "new" {
		t.Fatalf("target holds %q", got)
	}
	if _, err := fsys.Open(a); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("source after rename: %v", err)
	}
}

func checkHandles(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "f")
	write(t, fsys, name, "data")
	opened, err := fsys.OpenFile(name)
	f := mustFile(t, opened, err)
	must(t, fsys.Remove(name))
	buf := make([]byte, 4)
	if _, err := f.ReadAt(buf, 0); err != nil || string(buf) != "data" {
		t.Fatalf("read of a removed file: %q, %v", buf, err)
	}
	must(t, f.Close())
	if _, err := f.ReadAt(buf, 0); !errors.Is(err, fs.ErrClosed) {
		t.Fatalf("read of a closed file: %v", err)
	}
}

func checkErrors(t *testing.T, fsys FS, dir string) {
	missing := path.Join(dir, "missing")
	_, errOpen := fsys.Open(missing)
	_, errFile := fsys.OpenFile(missing)
	_, errList := fsys.List(missing)
	_, errCreate := fsys.Create(path.Join(missing, "f"))
	for i, err := range []error{
		errOpen, errFile, errList, errCreate,
		fsys.Remove(missing), fsys.Rename(missing, missing+"2"), fsys.SyncDir(missing),
	} {
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("case %d: %v, want fs.ErrNotExist", i, err)
		}
	}
	name := path.Join(dir, "f")
	write(t, fsys, name, "x")
	opened, err := fsys.Open(name)
	f := mustFile(t, opened, err)
	defer f.Close()
	if _, err := f.WriteAt([]byte("y"), 0); err == nil {
		t.Error("a file opened for reading was written")
	}
}

func checkLock(t *testing.T, fsys FS, dir string) {
	name := path.Join(dir, "LOCK")
	l, err := fsys.Lock(name)
	must(t, err)
	if _, err := fsys.Lock(name); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v, want ErrLocked", err)
	}
	must(t, l.Close())
	l, err = fsys.Lock(name)
	must(t, err)
	must(t, l.Close())
}
