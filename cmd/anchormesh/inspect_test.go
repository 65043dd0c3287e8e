package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
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
