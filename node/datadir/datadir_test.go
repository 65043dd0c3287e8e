package datadir

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

const at = "/data/n1"

func open(t *testing.T, files fsys.FS) *Dir {
	t.Helper()
	d, err := Open(files, at)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// write makes a file as some other package would.
func write(t *testing.T, files fsys.FS, dir, name string) {
	t.Helper()
	if err := errors.Join(files.MkdirAll(dir), fsys.WriteSmall(files, dir, name, []byte("x"))); err != nil {
		t.Fatal(err)
	}
}

// used is a directory as a running node leaves it.
func used(t *testing.T) *fsys.Mem {
	files := fsys.NewMem()
	d := open(t, files)
	write(t, files, at, identityName)
	write(t, files, at, "record.epoch")
	write(t, files, at, "gossip.known")
	write(t, files, d.Log(), "0000000000000001.wal")
	if err := d.Belongs("me"); err != nil {
		t.Fatal(err)
	}
	write(t, files, at+"/scopes", "root.db")
	write(t, files, at+"/scopes", "6162.db")
	if err := errors.Join(d.Holds(nil), d.Holds([]byte("ab")), d.Holds(nil)); err != nil {
		t.Fatal(err)
	}
	rec := d.Record()
	rec.Mesh, rec.Genesis, rec.Leaving, rec.Founded = 5, 7, true, true
	rec.Retired[7], rec.Boot, rec.Forgotten[8] = 3, "first", 2
	if err := errors.Join(d.Save(rec), d.Close()); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestTheRecordIsKept(t *testing.T) {
	d := open(t, used(t))
	r := d.Record()
	if r.Node != "me" || r.Mesh != 5 || !r.Leaving || !r.Founded || r.Genesis != 7 || r.Retired[7] != 3 || r.Boot != "first" || r.Forgotten[8] != 2 || strings.Join(r.Scopes, "|") != "|ab" {
		t.Errorf("%+v", r)
	}
	if err := d.Belongs("me"); err != nil {
		t.Error(err)
	}
	if err := d.Belongs(anchormesh.NodeID("other")); !errors.Is(err, ErrIncomplete) || d.Record().Node != "me" {
		t.Errorf("another node's identity: %v", err)
	}
	scopes, err := d.Scopes()
	if err != nil || len(scopes) != 2 {
		t.Errorf("%q, %v", scopes, err)
	}
}

func TestWhatIsMissingIsNamed(t *testing.T) {
	for _, name := range []string{recordName, identityName, "scopes/root.db", "scopes/6162.db"} {
		files := used(t)
		if err := files.Remove(at + "/" + name); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(files, at); !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
}

// A node that has met no mesh yet, and one that crashed at its first start, may
// start again.
func TestASecondFirstStart(t *testing.T) {
	files := fsys.NewMem()
	d := open(t, files)
	write(t, files, at, "mesh.key")
	write(t, files, at, "record.epoch")
	write(t, files, at, "gossip.known")
	write(t, files, at, identityName)
	write(t, files, d.Log(), "0000000000000001.wal")
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, files)

	files = fsys.NewMem()
	write(t, files, at, "mesh.key")
	write(t, files, at, "node.json.tmp")
	write(t, files, at, "node.lock")
	open(t, files)
}

func TestForeignDirectories(t *testing.T) {
	files := fsys.NewMem()
	write(t, files, at, "taxes.xls")
	if _, err := Open(files, at); !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "taxes.xls") {
		t.Errorf("somebody else's file: %v", err)
	}
	files = used(t)
	d := open(t, files)
	if _, err := Open(files, at); !errors.Is(err, ErrInUse) {
		t.Errorf("a second opening: %v", err)
	}
	write(t, files, at+"/scopes", "nonsense.db")
	if _, err := d.Scopes(); !errors.Is(err, ErrForeign) {
		t.Errorf("a store of no scope: %v", err)
	}
}

// A record that is not what was written is refused, whichever bit it is: a node that forgot
// which replicas it gave up would vote again. Where a letter of a name is the same but for
// its case, and in the white space between, nothing is lost.
func TestAChangedBitIsRefused(t *testing.T) {
	files := used(t)
	d := open(t, files)
	want := d.Record()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	text, err := fsys.ReadSmall(files, at+"/"+recordName, recordBytesMax)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for bit := range len(text) * 8 {
		changed := bytes.Clone(text)
		changed[bit/8] ^= 1 << (bit % 8)
		if err := fsys.WriteSmall(files, at, recordName, changed); err != nil {
			t.Fatal(err)
		}
		d, err := Open(files, at)
		switch {
		case err != nil && strings.Contains(err.Error(), recordName):
			refused++
			continue
		case err != nil:
			t.Fatalf("bit %d: %v", bit, err)
		case !reflect.DeepEqual(d.Record(), want):
			t.Fatalf("bit %d: %+v was read as %+v", bit, want, d.Record())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if refused < len(text)*6 {
		t.Errorf("%d of %d changed bits were refused", refused, len(text)*8)
	}
}
