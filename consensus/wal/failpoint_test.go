//go:build failpoints

package wal

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// TestMain is the victim of TestRealCrashes when it is told a directory: it
// appends to a log on the real disk until a failpoint kills it, and prints what
// was acknowledged.
func TestMain(m *testing.M) {
	dir := os.Getenv("WAL_VICTIM_DIR")
	if dir == "" {
		os.Exit(m.Run())
	}
	opts := testOptions()
	opts.inline = false
	l, err := Open(fsys.OS, dir, opts)
	for n := 0; err == nil && n < 3000; n++ {
		last, _ := l.Group(1).LastIndex()
		i := last + 1
		if err = l.Append([]Update{{Group: 1, HardState: hardState(1, 1, i), Entries: entries(i, i, 1, 500)}}); err == nil {
			fmt.Fprintln(os.Stdout, i)
			l.Truncate(1, Mark{Index: i, Term: 1})
		}
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(3)
}

// TestRealCrashes kills real processes at every durable step and lets the next
// one find all that was acknowledged.
func TestRealCrashes(t *testing.T) {
	for _, point := range []string{
		"wal/before-begin", "wal/before-prepare", "wal/before-prepare@2", "wal/before-write@7", "wal/before-sync@7",
		"wal/after-sync@7", "wal/before-rotate", "wal/before-rotate@3", "wal/before-remove", "wal/before-remove@2",
	} {
		t.Run(strings.ReplaceAll(point, "/", "-"), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "wal")
			name, count, _ := strings.Cut(point, "@")
			acked := uint64(0)
			lives := 3
			if name == "wal/before-begin" {
				lives = 1 // the log begins once
			}
			for range lives {
				spec := name + "=crash"
				if count != "" {
					spec += "@" + count
				}
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), "WAL_VICTIM_DIR="+dir, "ANCHORMESH_FAILPOINTS="+spec)
				out, err := cmd.Output()
				if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
					t.Fatalf("the victim ended by itself: %v: %s", err, out)
				}
				for _, line := range strings.Fields(string(out)) {
					fmt.Sscan(line, &acked)
				}
				l, err := Open(fsys.OS, dir, testOptions())
				if err != nil {
					t.Fatal(err)
				}
				if last, err := l.Group(1).LastIndex(); err != nil || last < acked || last > acked+1 {
					t.Fatalf("the log ends at %d, %v; %d was acknowledged", last, err, acked)
				}
				l.Close()
			}
		})
	}
}
