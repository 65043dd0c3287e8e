package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

func makeStore(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "root.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket([]byte("key"))
		if err != nil {
			return err
		}
		return b.Put([]byte("a\x00"), []byte("value"))
	})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspectPrintsAStore(t *testing.T) {
	path := makeStore(t)
	status, out, errs := call(t, "inspect", "--keys", path)
	if status != exitDone || errs != "" {
		t.Fatalf("status %d, stderr %q", status, errs)
	}
	want := `    "a\x00" 5 bytes` + "\n" + `  bucket "key": 1 keys, 7 B` + "\n"
	if !strings.HasPrefix(out, "store "+path) || !strings.HasSuffix(out, want) {
		t.Errorf("got:\n%s", out)
	}
	if _, out, _ = call(t, "inspect", "-o", "json", path); !strings.Contains(out, `"bucket":"key","keys":1,"bytes":7}`) {
		t.Errorf("JSON:\n%s", out)
	}
}

func TestInspectRefusesAStoreInUse(t *testing.T) {
	path := makeStore(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if status, _, errs := call(t, "inspect", path); status != exitFailed || !strings.Contains(errs, "is in use by a running node; stop it first") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

func TestInspectOfADamagedStoreIsAnError(t *testing.T) {
	path := makeStore(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 20; i < 2*os.Getpagesize(); i++ { // both meta pages
		text[i] = 0xff
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, errs := call(t, "inspect", path); status != exitFailed || !strings.Contains(errs, path+": ") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

func TestInspectOfAnEmptyDirectorySaysSo(t *testing.T) {
	dir := t.TempDir()
	if status, _, errs := call(t, "inspect", dir); status != exitFailed || !strings.Contains(errs, "holds no log or store file") {
		t.Errorf("status %d, stderr %q", status, errs)
	}
}

// makeDataDir makes a directory with a log of two entries, a store and a lock file.
func makeDataDir(t *testing.T) string {
	dir := t.TempDir()
	logDir := filepath.Join(dir, "log")
	if err := os.Mkdir(logDir, 0o700); err != nil {
		t.Fatal(err)
	}
	opts := wal.DefaultOptions()
	opts.FileBytes = 1 << 20
	log, err := wal.Open(fsys.OS, logDir, opts)
	if err != nil {
		t.Fatal(err)
	}
	for i, data := range []string{"first", "second"} {
		entry := &raftpb.Entry{Index: proto.Uint64(uint64(i + 1)), Term: proto.Uint64(1), Data: []byte(data)}
		if err := log.Append([]wal.Update{{Group: 0xabc, Entries: []*raftpb.Entry{entry}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(makeStore(t), filepath.Join(dir, "root.db")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "node.lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestInspectOfADataDirectoryShowsLogAndStore(t *testing.T) {
	dir := makeDataDir(t)
	for _, form := range []string{"table", "json"} {
		status, out, errs := call(t, "inspect", "-o", form, dir)
		if status != exitDone || errs != "" || !strings.Contains(out, "0000000000000abc") || !strings.Contains(out, "root.db") ||
			strings.Contains(out, "error") || strings.Contains(out, "node.lock") {
			t.Errorf("%s: status %d, stderr %q, stdout:\n%s", form, status, errs, out)
		}
	}
}

func TestInspectNamesDamageInTheLog(t *testing.T) {
	dir := makeDataDir(t)
	files, err := filepath.Glob(filepath.Join(dir, "log", "*"))
	if err != nil {
		t.Fatal(err)
	}
	damaged := ""
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if at := strings.Index(string(text), "first"); at >= 0 {
			text[at] ^= 0xff
			damaged = path
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	if damaged == "" {
		t.Fatalf("no file of %v holds the entry", files)
	}
	status, out, errs := call(t, "inspect", dir)
	if status != exitFailed || !strings.Contains(errs, damaged) || !strings.Contains(out, "root.db") {
		t.Errorf("status %d, stdout:\n%s\nstderr:\n%s", status, out, errs)
	}
}
