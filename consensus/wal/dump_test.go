package wal

import (
	"testing"

	"github.com/anchormesh/anchormesh/internal/fsys"
)

// What a log has let go of is still told of, and the data are what was appended.
func TestScanTellsOfAllThatIsInTheFiles(t *testing.T) {
	mem := fsys.NewMem()
	l := mustOpen(t, mem, testOptions())
	wrote := entries(1, 4, 1, 100)
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 3), Entries: wrote})
	mustAppend(t, l, Update{Group: 2, Snapshot: &Mark{Index: 9, Term: 1}})
	l.Truncate(1, Mark{Index: 3, Term: 1})
	mustAppend(t, l, Update{Group: 1, HardState: hardState(1, 1, 4)})
	mustAppend(t, l, Update{Group: 2, Remove: true})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	found, commit, removed := map[uint64]string{}, uint64(0), false
	err := Scan(mem, "wal", func(r *Scanned) error {
		removed = removed || r.Group == 2 && r.Removed
		if r.Group == 1 {
			commit = r.Commit
			for _, e := range r.Entries {
				found[e.GetIndex()] = string(e.GetData())
			}
		}
		return nil
	})
	if err != nil || len(found) != 4 || commit != 4 || !removed {
		t.Fatalf("%d entries, commit %d, removed %v, %v", len(found), commit, removed, err)
	}
	for _, e := range wrote {
		if found[e.GetIndex()] != string(e.GetData()) {
			t.Errorf("entry %d is not what was appended", e.GetIndex())
		}
	}
}
