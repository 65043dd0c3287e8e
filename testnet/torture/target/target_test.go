package target

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/fault"
)

func TestKindsAreWithoutWhatIsMissing(t *testing.T) {
	target := &Target{Missing: map[fault.Kind]string{}}
	target.lacks("no disks", fault.Full)
	kinds := target.Kinds()
	if slices.Contains(kinds, fault.Full) || len(kinds) != len(fault.Kinds())-1 {
		t.Errorf("kinds are %v", kinds)
	}
}

// fakes are machines of which some do not run.
type fakes struct {
	Machines
	up []bool
}

func (f fakes) Running(_ context.Context, node int) (bool, error) { return f.up[node], nil }
func (f fakes) Start(_ context.Context, node int) error {
	f.up[node] = true
	return nil
}

func TestReviveStartsWhatHasEnded(t *testing.T) {
	machines := fakes{up: []bool{true, false, true}}
	target := &Target{Names: []string{"n1", "n2", "n3"}, Machines: machines}
	for _, want := range [][]int{{1}, nil} {
		if got, err := target.Revive(t.Context()); err != nil || !slices.Equal(got, want) {
			t.Errorf("revived %v, %v, want %v", got, err, want)
		}
	}
}

func TestDisksFillAndFree(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := NewDisks(ctx, t.TempDir(), []string{"n1"})
	if errors.Is(err, errNoDisks) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}()
	write := func() error { return os.WriteFile(filepath.Join(d.Dirs[0], "x"), make([]byte, 1<<16), 0o644) }
	if err := d.Fill(0); err != nil {
		t.Fatal(err)
	}
	if err := write(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("writing to a full disk: %v", err)
	}
	for range 2 { // freeing twice is no error
		if err := d.Free(0); err != nil {
			t.Fatal(err)
		}
	}
	if err := write(); err != nil {
		t.Fatal(err)
	}
}
