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

// leadAll makes the first node lead groups 2 to 5: what one sync takes of a scope is bounded
// where it is led, and a node that follows several leaders writes for each of them.
func leadAll(ctx context.Context, t *testing.T, members []*member) {
	t.Helper()
	for g := anchormesh.SegmentID(2); g <= 5; {
		if st, ok := members[0].engine.Status(g); ok && st.Leads() {
			g++
			continue
		}
		for _, m := range members[1:] {
			m.engine.TransferLeader(g, 1)
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("group %d is not led by the first node", g)
		}
	}
}

// flood writes much into groups 2 to 5, and little into group 6, while no disk syncs for a while,
// and waits for the end of all.
func flood(ctx context.Context, t *testing.T, members []*member, disk *sync.RWMutex, payload, each int) {
	t.Helper()
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
	leadAll(ctx, t, members)
	// What the engine does each second or so lets all go that waits (writer.admit): a flood into
	// which that falls says nothing.
	for try := 1; ; try++ {
		mu.Lock()
		heaviest = 0
		mu.Unlock()
		flood(ctx, t, members, disk, payload, each)
		mu.Lock()
		most := heaviest
		mu.Unlock()
		// A fifth of a lane's usual room, and one entry of all that waits for a group on top.
		if most >= payload && most <= 512<<10/5+(each+1)*payload {
			break
		}
		if try == 5 {
			t.Fatalf("%d bytes of one scope in one sync, and too much in four floods before", most)
		}
	}
	for _, m := range members {
		m.settled(t)
	}
}
