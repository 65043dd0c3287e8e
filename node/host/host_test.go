package host_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

const (
	meshID  anchormesh.MeshID    = 7
	segment anchormesh.SegmentID = 9
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// genesis starts a node that holds the only anchor of the segment.
func genesis(t *testing.T, d *hosttest.Disk, net *meshtest.Network) *hosttest.Node {
	t.Helper()
	n := hosttest.Start(t, d, net, "a")
	must(t, n.Host.Genesis(meshID, segment, "", 3))
	hosttest.Eventually(t, time.Minute, "leader", func() bool {
		st, ok := n.Engine.Status(segment)
		return ok && st.Leads()
	})
	return n
}

// learn makes the log of n's group name another node as a new learner, and returns
// its replica.
func learn(t *testing.T, n *hosttest.Node, id anchormesh.NodeID) anchormesh.ReplicaID {
	t.Helper()
	r, _ := n.Host.Get(segment)
	d := r.Machine.Descriptor().Clone()
	replica := d.NextReplica
	d.NextReplica++
	d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: id, Replica: replica, Role: anchormesh.Learner})
	change(t, n, d, raftpb.ConfChangeAddLearnerNode, replica)
	return replica
}

func change(t *testing.T, n *hosttest.Node, next *anchormesh.Descriptor, kind raftpb.ConfChangeType, replica anchormesh.ReplicaID) {
	t.Helper()
	cc := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(uint64(replica))}}}
	hosttest.Eventually(t, time.Minute, "change of the anchor group", func() bool {
		done := make(chan error, 1)
		n.Engine.ChangeConf(segment, next.Generation, cc, meshpb.EncodeDescriptor(next), func(res consensus.Result) { done <- res.Err })
		err := <-done
		if !errors.Is(err, consensus.ErrConfChangePending) { // of which this node has applied the end, but raft was not told yet
			must(t, err)
		}
		return err == nil
	})
}

// snapshot is a segment's state on its way.
type snapshot struct {
	offer  host.Offer
	chunks [][]byte
}

func export(t *testing.T, n *hosttest.Node, to anchormesh.ReplicaID) snapshot {
	t.Helper()
	return exportOf(t, n, segment, to)
}

func exportOf(t *testing.T, n *hosttest.Node, id anchormesh.SegmentID, to anchormesh.ReplicaID) snapshot {
	t.Helper()
	n.Commit(id)
	r, _ := n.Host.Get(id)
	e, err := r.Machine.Segment().Export()
	must(t, err)
	defer e.Close()
	s := snapshot{offer: host.Offer{To: to, Meta: e.Meta()}}
	for {
		chunk, err := e.Next()
		if errors.Is(err, io.EOF) {
			return s
		}
		must(t, err)
		s.chunks = append(s.chunks, chunk)
	}
}

// install does what package transfer does with a snapshot that arrives.
func (s snapshot) install(n *hosttest.Node) error {
	into, err := n.Host.Install(s.offer)
	if into == nil || err != nil {
		return err
	}
	for _, chunk := range s.chunks {
		if err := into.Add(slices.Clone(chunk)); err != nil {
			into.Abort()
			return err
		}
	}
	return into.Finish()
}

// A genesis may be cut short anywhere, and repeated: one segment comes of it, with
// the IDs that were noted first, and everything acknowledged is there.
func TestGenesisCutShortAnywhere(t *testing.T) {
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			d := hosttest.NewDisk(t)
			net := meshtest.NewNetwork(1)
			n := hosttest.Start(t, d, net, "a")
			rec := d.Record(seed)
			must(t, n.Host.Genesis(meshID, segment, "", 3))
			done := rec.Len()
			n.Put(segment, "k", "v")
			acked := rec.Len()
			disks := rec.Stop()
			n.Stop()
			if done < 5 {
				t.Errorf("genesis changed the disk %d times: the recording misses some", done)
			}
			for i, disk := range disks {
				n := hosttest.Start(t, disk, net, "a")
				noted := n.Dir.Record()
				if noted.Genesis != 0 && (noted.Genesis != segment || noted.Mesh != meshID) {
					t.Errorf("seed %d, cut %d: the record names mesh %s, segment %s", seed, i, noted.Mesh, noted.Genesis)
				}
				// What node.genesis offers: the IDs of the record, or fresh ones.
				want, id := segment, meshID
				if noted.Genesis == 0 {
					want, id = segment+100, meshID+100
				}
				must(t, n.Host.Genesis(id, want, "", 3))
				if got := n.Host.Segments(); !slices.Equal(got, []anchormesh.SegmentID{want}) {
					t.Fatalf("seed %d, cut %d: segments %v, want %v", seed, i, got, want)
				}
				n.Put(want, "again", "w")
				if v, ok := n.Get(want, "k"); i >= acked && (!ok || v != "v") {
					t.Errorf("seed %d, cut %d: an acknowledged write is gone", seed, i)
				}
				if i >= done && noted.Genesis != segment {
					t.Errorf("seed %d, cut %d: genesis had returned and is forgotten", seed, i)
				}
				n.Stop()
			}
		})
	}
}

// An installation may be cut short anywhere: the replica is whole or absent, and
// an absent one neither runs nor keeps another snapshot from being installed.
func TestInstallCutShortAnywhere(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			net := meshtest.NewNetwork(1)
			a := genesis(t, hosttest.NewDisk(t), net)
			for i := range 20 {
				a.Put(segment, fmt.Sprint("k", i), strings.Repeat("v", 4000))
			}
			replica := learn(t, a, "b")
			old := export(t, a, replica)
			a.Put(segment, "newer", "v")
			s := export(t, a, replica)
			want := a.Hash(segment)
			net.Partition([]anchormesh.NodeID{"a"}, []anchormesh.NodeID{"b"}) // nobody else sends snapshots

			d := hosttest.NewDisk(t)
			b := hosttest.Start(t, d, net, "b")
			must(t, b.Host.JoinMesh(meshID))
			rec := d.Record(seed)
			must(t, b.Host.Await(segment, replica))
			must(t, s.install(b))
			done := rec.Len()
			disks := rec.Stop()
			b.Stop()
			absent := 0
			for i, disk := range disks {
				b := hosttest.Start(t, disk, net, "b")
				switch got := b.Hash(segment); {
				case got == "absent" && i >= done:
					t.Errorf("seed %d, cut %d: the installation had returned and is forgotten", seed, i)
				case got == "absent":
					absent++
					if i%2 == 0 { // the cut came behind the log's restart and before the store's last transaction
						must(t, b.Engine.RestartLog(segment, wal.Mark{Index: s.offer.Meta.Applied, Term: s.offer.Meta.Term}))
						if err := old.install(b); !errors.Is(err, host.ErrOlder) {
							t.Errorf("seed %d, cut %d: a snapshot from before the log: %v", seed, i, err)
						}
					}
					must(t, s.install(b))
				case got != want:
					t.Errorf("seed %d, cut %d: hash %s, want %s", seed, i, got, want)
				}
				if got := b.Hash(segment); got != want {
					t.Errorf("seed %d, cut %d: after another installation hash %s, want %s", seed, i, got, want)
				}
				must(t, s.install(b)) // not needed any more
				if _, err := b.Host.Install(host.Offer{To: replica + 5, Meta: s.offer.Meta}); !errors.Is(err, host.ErrNotInvited) {
					t.Errorf("a snapshot for another replica: %v", err)
				}
				b.Stop()
			}
			if absent < 3 || absent == len(disks) {
				t.Errorf("of %d cuts %d left the replica absent", len(disks), absent)
			}
		})
	}
}

// A node that is always started as the one that founds the mesh, though its replica of the
// first segment has moved away.
func TestAMeshIsFoundedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := hosttest.NewDisk(t)
		n := genesis(t, d, meshtest.NewNetwork(1))
		n.Put(segment, "k", "v")
		must(t, n.Host.Retire(segment, 1))
		n.Stop()
		n = hosttest.Start(t, d, meshtest.NewNetwork(1), "a")
		must(t, n.Host.Genesis(meshID, segment, "", 3))
		if got := n.Host.Segments(); len(got) != 0 {
			t.Errorf("founded again: %v", got)
		}
		n.Stop()
	})
}

// A retirement may be cut short anywhere: the replica is there, or gone for good.
func TestRetireCutShortAnywhere(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			net := meshtest.NewNetwork(1)
			a := genesis(t, hosttest.NewDisk(t), net)
			a.Put(segment, "k", "v")
			replica := learn(t, a, "b")
			s := export(t, a, replica)
			net.Partition([]anchormesh.NodeID{"a"}, []anchormesh.NodeID{"b"})
			d := hosttest.NewDisk(t)
			b := hosttest.Start(t, d, net, "b")
			must(t, b.Host.JoinMesh(meshID))
			must(t, s.install(b))
			rec := d.Record(seed)
			must(t, b.Host.Retire(segment, replica))
			done := rec.Len()
			disks := rec.Stop()
			b.Stop()
			stayed := 0
			for i, disk := range disks {
				b := hosttest.Start(t, disk, net, "b")
				if b.Hash(segment) != "absent" {
					stayed++
					if i >= done {
						t.Errorf("seed %d, cut %d: the retirement had returned and is forgotten", seed, i)
					}
					must(t, b.Host.Retire(segment, replica))
				}
				if err := b.Host.Await(segment, replica); !errors.Is(err, host.ErrRetired) {
					t.Errorf("seed %d, cut %d: a retired replica is awaited: %v", seed, i, err)
				}
				if err := s.install(b); !errors.Is(err, host.ErrRetired) {
					t.Errorf("seed %d, cut %d: a retired replica is installed: %v", seed, i, err)
				}
				must(t, b.Host.Await(segment, replica+1)) // as another it may come back
				if groups := b.Log.Groups(); len(groups) != 0 {
					t.Errorf("seed %d, cut %d: the log still holds %v", seed, i, groups)
				}
				b.Stop()
			}
			if stayed == 0 || stayed == len(disks) {
				t.Errorf("of %d cuts %d kept the replica", len(disks), stayed)
			}
		})
	}
}

// An absent replica that was retired meanwhile leaves nothing behind: its retirement was
// cut short inside the store. Was it one before it that was retired, the log stays: what
// this one has acknowledged and whom it voted for is in it.
func TestRetiredWhileAbsent(t *testing.T) {
	for _, before := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			net := meshtest.NewNetwork(1)
			a := genesis(t, hosttest.NewDisk(t), net)
			replica := learn(t, a, "b")
			s := export(t, a, replica)
			net.Partition([]anchormesh.NodeID{"a"}, []anchormesh.NodeID{"b"})
			d := hosttest.NewDisk(t)
			b := hosttest.Start(t, d, net, "b")
			must(t, b.Host.JoinMesh(meshID))
			must(t, s.install(b))
			a.Put(segment, "k", "v")
			if _, err := b.Host.Install(export(t, a, replica).offer); err != nil || b.Hash(segment) != "absent" {
				t.Fatalf("a newer snapshot: %v, %s", err, b.Hash(segment))
			}
			rec := b.Dir.Record()
			if before {
				rec.Retired[segment] = replica - 1
			} else {
				rec.Retired[segment], rec.Dropping[segment] = replica, true
			}
			must(t, b.Dir.Save(rec))
			b.Stop()
			b = hosttest.Start(t, d, net, "b")
			store, err := b.Stores.Open(nil)
			must(t, err)
			left, groups := store.Absent(), b.Log.Groups()
			if stays := len(left) == 1 && len(groups) == 1; stays != before || !before && len(left)+len(groups) != 0 {
				t.Errorf("retired before: %v: the store still clears up %v, the log holds %v", before, left, groups)
			}
			if len(b.Dir.Record().Dropping) != 0 {
				t.Errorf("%v is still to be dropped", b.Dir.Record().Dropping)
			}
		})
	}
}

// A node that the log names gets its replica by a snapshot over the mesh, follows
// the log, and lets go when the log drops it; also if it was away meanwhile.
func TestComingAndGoing(t *testing.T) {
	for _, away := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			net := meshtest.NewNetwork(1)
			a := genesis(t, hosttest.NewDisk(t), net)
			a.Put(segment, "k", "v")
			disk := hosttest.NewDisk(t)
			b := hosttest.Start(t, disk, net, "b")
			must(t, b.Host.JoinMesh(meshID))
			replica := learn(t, a, "b")
			hosttest.Eventually(t, time.Minute, "replica on b", func() bool { return b.Hash(segment) != "absent" })
			a.Put(segment, "later", "w")
			hosttest.Eventually(t, time.Minute, "the write on b", func() bool { v, _ := b.Get(segment, "later"); return v == "w" })
			if away {
				b.Stop()
			}
			r, _ := a.Host.Get(segment)
			next := r.Machine.Descriptor().Clone()
			next.Anchors = next.Anchors[:1]
			change(t, a, next, raftpb.ConfChangeRemoveNode, replica)
			if away {
				b = hosttest.Start(t, disk, net, "b")
				must(t, b.Host.Descriptor(next)) // the same descriptor without its index is no news
			}
			hosttest.Eventually(t, time.Minute, "retirement of b", func() bool {
				if away { // what the exchange would tell it
					must(t, b.Host.Descriptor(r.Machine.Descriptor()))
				}
				return b.Hash(segment) == "absent" && len(b.Log.Groups()) == 0
			})
			b.Stop()
			if got := b.Dir.Record().Retired[segment]; got != replica {
				t.Errorf("b retired as replica %d, it was %d", got, replica)
			}
			b = hosttest.Start(t, disk, net, "b")
			if got := b.Host.Segments(); len(got) != 0 {
				t.Errorf("after a restart b holds %v again", got)
			}
		})
	}
}

// A replica that was stopped for a snapshot it turned out not to need goes on as
// before.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := genesis(t, hosttest.NewDisk(t), meshtest.NewNetwork(1))
		a.Put(segment, "k", "v") // applied, not committed to the store
		must(t, a.Host.StopAndResume(segment))
		a.Put(segment, "k2", "w")
		for k, want := range map[string]string{"k": "v", "k2": "w"} {
			if v, _ := a.Get(segment, k); v != want {
				t.Errorf("%s is %q", k, v)
			}
		}
	})
}

// Present replicas whose log is gone, and logs without a state, are refused: the
// node would have forgotten what it promised.
func TestForgottenPromises(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		d := hosttest.NewDisk(t)
		a := genesis(t, d, net)
		a.Put(segment, "k", "v")
		a.Commit(segment)
		must(t, a.Engine.DropLog(segment+1)) // of no group: harmless
		a.Stop()
		hosttest.Start(t, d, net, "a").Stop()

		orphan := d.Copy()
		a = hosttest.Start(t, orphan, net, "a")
		must(t, a.Engine.RestartLog(segment+1, wal.Mark{Index: 40, Term: 2}))
		a.Stop()
		if _, err := hosttest.Open(t, orphan, net, "a"); !errors.Is(err, datadir.ErrIncomplete) || !strings.Contains(err.Error(), (segment+1).String()) {
			t.Errorf("with a log that no store knows: %v", err)
		}
		noLog := d.Copy()
		noLog.Remove("/node/log")
		if _, err := hosttest.Open(t, noLog, net, "a"); !errors.Is(err, datadir.ErrIncomplete) || !strings.Contains(err.Error(), segment.String()) {
			t.Errorf("without its log: %v", err)
		}
		noStore := d.Copy()
		noStore.Remove("/node/scopes")
		if _, err := hosttest.Open(t, noStore, net, "a"); !errors.Is(err, datadir.ErrIncomplete) {
			t.Errorf("without its stores: %v", err)
		}
	})
}

// A node belongs to one mesh.
func TestOneMesh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
		must(t, n.Host.JoinMesh(meshID))
		must(t, n.Host.JoinMesh(meshID))
		if err := n.Host.JoinMesh(meshID + 1); err == nil || n.Host.Mesh() != meshID {
			t.Errorf("a second mesh: %v, now in %s", err, n.Host.Mesh())
		}
	})
}
