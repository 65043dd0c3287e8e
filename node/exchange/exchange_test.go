package exchange

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/route"
)

type member struct {
	x     *Exchange
	table *route.Table
}

// inMesh runs n exchanges on an in-memory mesh, in a bubble.
func inMesh(t *testing.T, n int, cfg Config, run func(t *testing.T, members []member)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		net := meshtest.NewNetwork(1)
		var members []member
		var nodes []*meshtest.Node
		for i := range n {
			node := net.Add(anchormesh.NodeID(fmt.Sprintf("node%02d", i)), mesh.Member{})
			tab := route.NewTable()
			cfg := cfg
			cfg.Logger = slog.New(slog.DiscardHandler)
			cfg.Learn = func(d *anchormesh.Descriptor) error { tab.Learn(d); return nil }
			x := New(cfg, node, tab)
			node.HandleCalls(Method, x.Serve)
			members, nodes = append(members, member{x, tab}), append(nodes, node)
		}
		done := make(chan error, n)
		for _, m := range members {
			go func() { done <- m.x.Run(ctx) }()
		}
		run(t, members)
		stop()
		for range members {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for _, node := range nodes {
			node.Close()
		}
	})
}

// TestAnnouncedChangesAreTold: nobody asks for an hour, yet all know.
func TestAnnouncedChangesAreTold(t *testing.T) {
	inMesh(t, 4, Config{Interval: time.Hour, Hurry: time.Hour}, func(t *testing.T, members []member) {
		d := segment(0, 1, 5)
		members[0].table.Learn(d)
		members[0].table.Bury(anchormesh.Tombstone{Segment: 5, Generation: 1, Range: anchormesh.KeyRange{End: []byte("b")}})
		members[0].x.Announce(d.Segment, 5)
		time.Sleep(time.Second)
		for i, m := range members {
			_, known := m.table.Segment(d.Segment)
			if _, buried := m.table.Tombstone(5); !known || !buried {
				t.Errorf("node %d: known %v, buried %v", i, known, buried)
			}
		}
	})
}

// TestNewcomersHurry: who knows nothing asks at once, and goes on while there is
// more.
func TestNewcomersHurry(t *testing.T) {
	const segments = 2000
	inMesh(t, 3, Config{Interval: time.Hour, Hurry: 100 * time.Millisecond}, func(t *testing.T, members []member) {
		for i := range segments {
			members[0].table.Learn(segment(i, segments, 5))
		}
		time.Sleep(2 * time.Second)
		for i, m := range members {
			if n := len(m.table.All()); n != segments {
				t.Errorf("node %d knows %d segments", i, n)
			}
		}
	})
}

// TestStrangersAreAskedOutOfTurn: From asks a node that seems to know something.
func TestStrangersAreAskedOutOfTurn(t *testing.T) {
	inMesh(t, 3, Config{Interval: time.Hour, Hurry: time.Minute}, func(t *testing.T, members []member) {
		members[1].table.Learn(segment(0, 2, 5))
		members[0].table.Learn(segment(1, 2, 5)) // else it would ask in a hurry
		members[0].x.From("node01")
		members[0].x.From("node01") // too soon
		time.Sleep(time.Second)
		if n := len(members[0].table.All()); n != 2 {
			t.Errorf("%d segments after asking", n)
		}
		members[1].table.Learn(segment(0, 2, 6))
		members[0].x.From("node01") // too soon still
		time.Sleep(time.Second)
		if d, _ := members[0].table.Lookup(nil); d.Changed != 5 {
			t.Error("a node was asked twice within Hurry")
		}
		time.Sleep(time.Minute)
		members[0].x.From("node01")
		time.Sleep(time.Second)
		if d, _ := members[0].table.Lookup(nil); d.Changed != 6 {
			t.Error("later it was not asked")
		}
	})
}

// TestItemsRoundTrip through the wire.
func TestItemsRoundTrip(t *testing.T) {
	for _, i := range []Item{
		{Descriptor: segment(3, 9, 5)},
		{Tombstone: anchormesh.Tombstone{Segment: 9, Generation: 300, Range: anchormesh.KeyRange{Start: []byte("a"), End: []byte("b")}, Successors: []anchormesh.SegmentID{1, 2}}},
		{Tombstone: anchormesh.Tombstone{Segment: 9}},
	} {
		b := appendItem(nil, i)
		r := reader{fields.Reader{Rest: b}}
		got, err := r.item()
		if err != nil || r.end() != nil || got.version() != i.version() || !bytes.Equal(appendItem(nil, got), b) {
			t.Errorf("%+v became %+v, %v", i, got, err)
		}
	}
}
