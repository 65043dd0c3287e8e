package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/transfer"
)

const (
	meshID  anchormesh.MeshID    = 7
	segment anchormesh.SegmentID = 9
	replica anchormesh.ReplicaID = 2
	size                         = 600_000
)

// pair is a leader a, and b, which the log names as a learner. The group's own
// messages do not pass, so that only the test sends snapshots.
func pair(t *testing.T) (a, b *hosttest.Node) {
	t.Helper()
	net := meshtest.NewNetwork(1)
	a, b = hosttest.Start(t, hosttest.NewDisk(t), net, "a"), hosttest.Start(t, hosttest.NewDisk(t), net, "b")
	if err := errors.Join(a.Host.Genesis(meshID, segment, "", 3), b.Host.JoinMesh(meshID)); err != nil {
		t.Fatal(err)
	}
	for i := range 6 {
		a.Put(segment, fmt.Sprint("k", i), strings.Repeat("v", size/6))
	}
	for _, n := range []*hosttest.Node{a, b} {
		n.Mesh.HandleMessages(0, func(anchormesh.NodeID, []byte) {})
	}
	r, _ := a.Host.Get(segment)
	d := r.Machine.Descriptor().Clone()
	d.NextReplica = replica + 1
	d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: "b", Replica: replica, Role: anchormesh.Learner})
	cc := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(replica))}}}
	done := make(chan error, 1)
	a.Engine.ChangeConf(segment, d.Generation, cc, meshpb.EncodeDescriptor(d), func(res consensus.Result) { done <- res.Err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return a, b
}

// bulk opens streams and spoils what is written to them.
type bulk struct {
	*meshtest.Node
	write func(s mesh.BulkStream, written int, p []byte) (int, error)
}

// OpenBulk implements transfer.Bulk.
func (b bulk) OpenBulk(ctx context.Context, to anchormesh.NodeID, protocol string) (mesh.BulkStream, error) {
	s, err := b.Node.OpenBulk(ctx, to, protocol)
	if err != nil || b.write == nil {
		return s, err
	}
	return &spoilt{BulkStream: s, write: b.write}, nil
}

type spoilt struct {
	mesh.BulkStream
	written int
	write   func(s mesh.BulkStream, written int, p []byte) (int, error)
}

func (s *spoilt) Write(p []byte) (int, error) {
	n, err := s.write(s.BulkStream, s.written, p)
	s.written += n
	return n, err
}

// send sends a's segment as the engine would ask for it.
func send(t *testing.T, a *hosttest.Node, cfg transfer.Config, b bulk, to anchormesh.ReplicaID) (ok bool, said string) {
	t.Helper()
	log := new(testkit.Log)
	cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
	b.Node = a.Mesh
	out := transfer.New(cfg, b)
	out.SetHost(a.Host)
	done := make(chan bool, 1)
	out.Send(segment, "b", to, func(ok bool) { done <- ok })
	ok = <-done
	return ok, log.String()
}

func TestSnapshotArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		if ok, said := send(t, a, transfer.DefaultConfig(), bulk{}, replica); !ok || a.Hash(segment) != b.Hash(segment) {
			t.Errorf("%s, %s at b; it says %s", a.Hash(segment), b.Hash(segment), said)
		}
		if ok, said := send(t, a, transfer.DefaultConfig(), bulk{}, replica); !ok { // not needed any more
			t.Errorf("a second time: %s", said)
		}
	})
}

// What goes wrong on the way leaves the receiver absent and both sides know; the
// next try succeeds.
func TestSpoiltSnapshots(t *testing.T) {
	flip := func(at int) func(mesh.BulkStream, int, []byte) (int, error) {
		return func(s mesh.BulkStream, written int, p []byte) (int, error) {
			p = slices.Clone(p)
			if i := at - written; i >= 0 && i < len(p) {
				p[i] ^= 0x40
			}
			return s.Write(p)
		}
	}
	cut := func(at int, end func(mesh.BulkStream) error) func(mesh.BulkStream, int, []byte) (int, error) {
		return func(s mesh.BulkStream, written int, p []byte) (int, error) {
			if written > at {
				return 0, errors.Join(end(s), io.ErrClosedPipe)
			}
			return s.Write(p)
		}
	}
	for name, write := range map[string]func(mesh.BulkStream, int, []byte) (int, error){
		"a bit of the header": flip(3), "a bit inside": flip(size / 2), "a bit near the end": flip(size - 100),
		"reset": cut(size/3, mesh.BulkStream.Reset), "ended early": cut(size/3, mesh.BulkStream.CloseWrite),
		"silence": func(s mesh.BulkStream, written int, p []byte) (int, error) {
			if written > size/3 {
				time.Sleep(time.Hour)
				return 0, io.ErrClosedPipe
			}
			return s.Write(p)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := pair(t)
				if ok, said := send(t, a, transfer.DefaultConfig(), bulk{write: write}, replica); ok || !strings.Contains(said, "snapshot was not sent") {
					t.Errorf("sent %v: %s", ok, said)
				}
				synctest.Wait()
				if got := b.Hash(segment); got != "absent" {
					t.Errorf("b holds %s", got)
				}
				if ok, said := send(t, a, transfer.DefaultConfig(), bulk{}, replica); !ok || a.Hash(segment) != b.Hash(segment) {
					t.Errorf("the next try: %s", said)
				}
			})
		})
	}
}

// Refusals reach the sender with their reason.
func TestRefusedSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		begin := time.Now()
		if ok, said := send(t, a, transfer.DefaultConfig(), bulk{}, replica+1); ok || !strings.Contains(said, "does not name this node") {
			t.Errorf("for a replica that is not b's: %s", said)
		}
		if ok, said := send(t, a, transfer.DefaultConfig(), bulk{}, replica); !ok {
			t.Fatal(said)
		}
		if err := b.Host.Retire(segment, replica); err != nil {
			t.Fatal(err)
		}
		if ok, said := send(t, a, transfer.DefaultConfig(), bulk{}, replica); ok || !strings.Contains(said, "retired") {
			t.Errorf("for a replica that was retired: %s", said)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("they took %v: what was refused held its place", took)
		}
	})
}

// A transfer takes the time its rate gives it, and no more run at once than are
// allowed.
func TestPaceAndLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t)
		cfg := transfer.DefaultConfig()
		cfg.MaxStreams, cfg.BytesPerSecond = 1, size/10
		out := transfer.New(cfg, a.Mesh)
		out.SetHost(a.Host)
		begin := time.Now()
		first, second := make(chan bool, 1), make(chan bool, 1)
		out.Send(segment, "b", replica, func(ok bool) { first <- ok })
		out.Send(segment, "b", replica, func(ok bool) { second <- ok })
		if <-second || time.Since(begin) > time.Second {
			t.Error("a second transfer was allowed")
		}
		if ok := <-first; !ok || a.Hash(segment) != b.Hash(segment) {
			t.Error("the first transfer failed")
		}
		if took := time.Since(begin); took < 8*time.Second || took > 13*time.Second {
			t.Errorf("%d bytes at %d bytes per second took %v", size, cfg.BytesPerSecond, took)
		}
	})
}
