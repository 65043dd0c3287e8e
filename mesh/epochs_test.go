package mesh

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

func TestEpochsOnlyGrow(t *testing.T) {
	dir := t.TempDir()
	last := uint64(0)
	next := func(atLeast uint64) uint64 {
		t.Helper()
		e, err := loadEpochs(fsys.OS, dir) // a new process every time
		if err != nil {
			t.Fatal(err)
		}
		n, err := e.Next(atLeast)
		if err != nil || n <= last || n < atLeast {
			t.Fatalf("%d after %d, at least %d: %v", n, last, atLeast, err)
		}
		last = n
		return n
	}
	next(0)
	next(0)
	far := next(uint64(time.Now().Add(1000 * time.Hour).UnixMilli())) // as if the clock went back
	if next(0) != far+1 {
		t.Fatalf("%d after %d", last, far)
	}
	// Without the file the clock is what is left.
	if err := os.Remove(filepath.Join(dir, EpochFile)); err != nil {
		t.Fatal(err)
	}
	last = uint64(time.Now().UnixMilli()) - 1
	next(0)
	if err := os.WriteFile(filepath.Join(dir, EpochFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	last = uint64(time.Now().UnixMilli()) - 1 // nothing is known of the one before
	next(0)
}
