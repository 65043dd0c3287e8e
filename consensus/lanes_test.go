package consensus_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// scale is a disk that weighs what is written between two syncs.
type scale struct {
	gate
	mu      *sync.Mutex
	bytes   map[anchormesh.SegmentID]int // not synced yet
	heavier *int                         // the most of groups 2 to 5 together
}

func (s scale) Write(batch []wal.Update) error {
	s.mu.Lock()
	sum := 0
	for _, u := range batch {
		for _, e := range u.Entries {
			s.bytes[u.Group] += len(e.GetData())
		}
	}
	for g := anchormesh.SegmentID(2); g <= 5; g++ {
		sum += s.bytes[g]
	}
	*s.heavier = max(*s.heavier, sum)
	s.mu.Unlock()
	return s.gate.Write(batch)
}

func (s scale) Sync() error {
	s.mu.Lock()
	clear(s.bytes)
	s.mu.Unlock()
	return s.gate.Sync()
}

// TestAFloodLeavesRoomInEachSync: four groups of one scope write much while no disk syncs. What is
// written for them is bounded, a write of another scope goes into the same sync, and all
// of it is done once the disks go on (counterexample 20).
func TestAFloodLeavesRoomInEachSync(t *testing.T) {
	const payload, each = 30 << 10, 6
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	n, disk, mu, heaviest := newNet(), newLock(), new(sync.Mutex), 0
	members := make([]*member, nodes)
	for i := range members {
		members[i] = startOn(t, n, t.TempDir(), i, 6, func(l *wal.Log) consensus.Log {
			return scale{gate{Log: l, mu: disk}, mu, make(map[anchormesh.SegmentID]int), &heaviest}
		})
		for g := anchormesh.SegmentID(2); g <= 6; g++ {
			lane := "flooded"
			if g == 6 {
				lane = "other"
			}
			members[i].engine.SetLane(g, lane, 1)
		}
	}
	for g := anchormesh.SegmentID(2); g <= 6; g++ {
		if err := propose(ctx, members, g, "first"); err != nil {
			t.Fatal(err)
		}
	}
	mu.Lock()
	heaviest = 0
	mu.Unlock()
	disk.Lock()
	var all []<-chan error
	for k := range each {
		for g := anchormesh.SegmentID(2); g <= 5; g++ {
			all = append(all, begin(ctx, members, g, fmt.Sprint(g, k, strings.Repeat("x", payload))))
		}
	}
	all = append(all, begin(ctx, members, 6, "small"))
	time.AfterFunc(300*time.Millisecond, disk.Unlock)
	for i, c := range all {
		if err := <-c; err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
	}
	// A fifth of a lane's usual room, and one entry of all that waits for a group on top.
	if mu.Lock(); heaviest > 512<<10/5+(each+1)*payload || heaviest < payload {
		t.Errorf("%d bytes of one scope in one sync", heaviest)
	}
	mu.Unlock()
	for _, m := range members {
		m.settled(t)
	}
}
