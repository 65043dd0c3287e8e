package node_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node"
)

// hurry lets a mesh split at some dozen writes a second, and place within seconds.
func hurry(n *node.Node) {
	n.Hurry(func(c *entropy.Config) {
		c.Thresholds.WritesPerSec, c.Memory = 40, 20*time.Second
		c.Thresholds.Commit = time.Minute
		c.SplitAfter, c.MinAge = 2*time.Second, 4*time.Second
	}, func(c *place.Config) {
		c.Settle, c.Stay, c.Epoch, c.DeclinedFor = time.Second, 2*time.Second, 3*time.Second, 2*time.Second
	})
}

// writer puts values under many keys of one prefix, until it is stopped.
type writer struct {
	stop    context.CancelFunc
	done    sync.WaitGroup
	written atomic.Int64
	failed  atomic.Int64
}

const writerKeys, writers = 128, 8

func startWriter(t *testing.T, c *clientv3.Client, pause time.Duration) *writer {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	w := &writer{stop: stop}
	for g := range writers {
		w.done.Go(func() {
			for i := g; ctx.Err() == nil; i += writers {
				one, cancel := context.WithTimeout(ctx, 10*time.Second)
				// Every seventh key, so that neighbours are not written one after the other.
				_, err := c.Put(one, fmt.Sprintf("load/%03d", i*7%writerKeys), fmt.Sprint(i))
				cancel()
				switch {
				case err == nil:
					w.written.Add(1)
				case ctx.Err() == nil:
					w.failed.Add(1)
				}
				select {
				case <-time.After(pause):
				case <-ctx.Done():
				}
			}
		})
	}
	t.Cleanup(w.end)
	return w
}

func (w *writer) end() {
	w.stop()
	w.done.Wait()
}

// ask asks a node's service of the mesh.
func (m *testMesh) ask(i int, question func(context.Context, meshpb.MeshClient) error) error {
	m.t.Helper()
	conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return question(ctx, meshpb.NewMeshClient(conn))
}

// structure is what the leaders of all segments say, by segment; whole reports
// whether the segments cover the keyspace and all have leaders that answer.
func (m *testMesh) structure() (all map[uint64]*meshpb.SegmentInfo, leads map[string]int, whole bool) {
	all, leads = make(map[uint64]*meshpb.SegmentInfo), make(map[string]int)
	known := make(map[uint64]bool)
	for i := range m.nodes {
		if m.nodes[i].stop == nil {
			continue
		}
		for _, s := range m.segments(i) {
			known[s.GetDescriptor_().GetSegment()] = true
			if len(s.GetLags()) > 0 {
				all[s.GetDescriptor_().GetSegment()] = s
				leads[s.GetLeader()]++
			}
		}
	}
	return all, leads, len(all) > 0 && len(all) == len(known)
}

// tell logs what the leaders say.
func (m *testMesh) tell() {
	all, _, whole := m.structure()
	m.t.Logf("%d segments, whole: %v", len(all), whole)
	for id, s := range all {
		m.t.Logf("segment %016x led by %s: pressure %.2f, spread %.2f, %.0f writes/s; %s: %s; %s", id, s.GetLeader(),
			s.GetPressure(), s.GetSpread(), s.GetRates().GetWritesPerSecond(), s.GetDecision(), s.GetReason(), s.GetGroup())
	}
}

// anchored reports whether every segment has three voters, all of them satisfying.
func anchored(all map[uint64]*meshpb.SegmentInfo, ok func(anchormesh.NodeID) bool) bool {
	for _, s := range all {
		d, err := meshpb.FromPB(s.GetDescriptor_())
		if err != nil || len(d.Voters()) != 3 || slices.ContainsFunc(d.Voters(), func(a anchormesh.Anchor) bool { return !ok(a.Node) }) {
			return false
		}
	}
	return true
}

// held is how many replicas a node says that it holds.
func (m *testMesh) held(i int) (held, leading uint32) {
	err := m.ask(i, func(ctx context.Context, c meshpb.MeshClient) error {
		st, err := c.Status(ctx, &meshpb.StatusRequest{})
		held, leading = st.GetSegments(), st.GetLeading()
		return err
	})
	if err != nil {
		return 1 << 30, 1 << 30
	}
	return held, leading
}

func (m *testMesh) id(i int) (id anchormesh.NodeID) {
	m.t.Helper()
	err := m.ask(i, func(ctx context.Context, c meshpb.MeshClient) error {
		st, err := c.Status(ctx, &meshpb.StatusRequest{})
		id = anchormesh.NodeID(st.GetNode().GetId())
		return err
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return id
}

// A mesh under load governs itself: the segment is split by itself, leadership
// spreads, a node that joins gets replicas, one that is drained gives them up, and
// one that dies is replaced everywhere. Writers notice nothing but waiting.
func TestAMeshGovernsItself(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes a minute")
	}
	m := newTunedMesh(t, 3, hurry)
	t.Cleanup(func() {
		if t.Failed() {
			m.tell()
		}
	})
	client := m.client()
	w := startWriter(t, client, 10*time.Millisecond)
	m.eventually(60*time.Second, "split by itself", func() bool {
		all, _, whole := m.structure()
		return whole && len(all) >= 2
	})
	for _, at := range []string{"a", "load/02", "load/05", "load/08"} {
		m.eventually(10*time.Second, "split at "+at, func() bool {
			return m.ask(0, func(ctx context.Context, c meshpb.MeshClient) error {
				_, err := c.Split(ctx, &meshpb.SplitRequest{Boundary: []byte(at)})
				return err
			}) == nil
		})
	}
	m.eventually(60*time.Second, "leaders on three nodes", func() bool {
		all, leads, whole := m.structure()
		return whole && len(all) >= 6 && len(leads) == 3
	})
	all, _, _ := m.structure()
	t.Logf("%d segments after %d writes", len(all), w.written.Load())
	var decided bool
	for _, s := range all {
		decided = decided || s.GetDecision() != "" && s.GetReason() != "" && s.GetGroup() != ""
	}
	if !decided {
		t.Error("no leader says what it decided, and why")
	}

	fourth := m.add(nil)
	m.eventually(90*time.Second, "replicas on the fourth node", func() bool {
		held, _ := m.held(fourth)
		return held > 0 && held < 1<<30
	})

	leaver := m.id(1)
	drain := func(undo bool) error {
		return m.ask(0, func(ctx context.Context, c meshpb.MeshClient) error {
			_, err := c.Drain(ctx, &meshpb.DrainRequest{Node: "n2", Undo: undo})
			return err
		})
	}
	m.eventually(10*time.Second, "drain", func() bool { return drain(false) == nil })
	m.eventually(120*time.Second, "an empty node", func() bool {
		held, _ := m.held(1)
		all, _, whole := m.structure()
		return held == 0 && whole && anchored(all, func(id anchormesh.NodeID) bool { return id != leaver })
	})
	if err := drain(true); err != nil {
		t.Fatal(err)
	}
	w.end()
	if n := w.failed.Load(); n > 0 {
		t.Errorf("%d of %d writes failed", n, n+w.written.Load())
	}
	found, err := client.Get(t.Context(), "load/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil || found.Count != writerKeys {
		t.Errorf("%v keys, %v: %d were written", found, err, writerKeys)
	}
}
