package host_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
)

// amend puts a class in force; all voters approve.
func amend(t *testing.T, n *hosttest.Node, class anchormesh.Class) {
	t.Helper()
	r, _ := n.Host.Get(segment)
	command := func(payload []byte) {
		t.Helper()
		done := make(chan error, 1)
		n.Engine.Submit(segment, consensus.Proposal{
			Generation: r.Machine.Descriptor().Generation, Alone: true, Payload: payload,
			Done: func(res consensus.Result) { done <- res.Err },
		})
		must(t, <-done)
	}
	now := r.Machine.State().Scope
	version := now.Newest().Number
	command(machine.Propose(&scope.Proposal{
		Kind: scope.Amend, Base: version, Version: version + 1, Operator: "test", AtMillis: 1,
		Policy: &policy.Policy{Class: class, Anchors: policy.Anchors{Count: 3}},
	}))
	id := r.Machine.State().Scope.Next
	for _, v := range r.Machine.Descriptor().Voters() {
		if r.Machine.State().Scope.Newest().Number == version {
			p, _ := r.Machine.State().Scope.Proposal(id)
			vote := scope.Vote{Node: v.Node, Approve: true, Signature: hosttest.Signature(v.Node, p.Statement(meshID, segment, true))}
			command(machine.CastVote(id, &vote))
		}
	}
	if got := r.Machine.Descriptor().Class; got != class {
		t.Fatalf("the segment is %v, want %v", got, class)
	}
}

// group starts three nodes with a voter each; a leads.
func group(t *testing.T, disks []*hosttest.Disk, net *meshtest.Network) []*hosttest.Node {
	t.Helper()
	nodes := []*hosttest.Node{genesis(t, disks[0], net)}
	for i, id := range []anchormesh.NodeID{"b", "c"} {
		n := hosttest.Start(t, disks[i+1], net, id)
		must(t, n.Host.JoinMesh(meshID))
		nodes = append(nodes, n)
		enlist(t, nodes[0], n)
	}
	return nodes
}

// enlist makes a node a voter, by way of a learner.
func enlist(t *testing.T, leader, n *hosttest.Node) {
	t.Helper()
	replica := learn(t, leader, n.ID)
	hosttest.Eventually(t, time.Minute, "replica on "+string(n.ID), func() bool { return n.Hash(segment) != "absent" })
	r, _ := leader.Host.Get(segment)
	next := r.Machine.Descriptor().Clone()
	for i := range next.Anchors {
		if next.Anchors[i].Replica == replica {
			next.Anchors[i].Role = anchormesh.Voter
		}
	}
	change(t, leader, next, raftpb.ConfChangeAddNode, replica)
}

func threeDisks(t *testing.T) []*hosttest.Disk {
	return []*hosttest.Disk{hosttest.NewDisk(t), hosttest.NewDisk(t), hosttest.NewDisk(t)}
}

// open makes sure that the group acknowledges from memory: its first write waits for the
// disk.
func open(leader *hosttest.Node) {
	for k := range 3 {
		leader.Put(segment, fmt.Sprint("open", k), "v")
	}
}

// A replica of a light segment whose machine lost power does not come back: it neither
// runs nor is awaited, after a second start neither. The group goes on without it and has
// everything; removed, its node takes part again under a new replica ID.
func TestAReplicaThatMayHaveForgottenGivesWay(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			net, disks := meshtest.NewNetwork(1), threeDisks(t)
			nodes := group(t, disks, net)
			a, b := nodes[0], nodes[1]
			amend(t, a, anchormesh.Light)
			hosttest.Eventually(t, time.Minute, "b to acknowledge from memory", func() bool {
				open(a)
				return b.Log.Group(segment).Memory()
			})
			<-time.After(time.Second) // and that to be on disk
			for k := range 20 {
				a.Put(segment, fmt.Sprint("k", k), "v")
			}
			hosttest.Eventually(t, time.Minute, "the last write on b", func() bool { _, ok := b.Get(segment, "k19"); return ok })
			left := disks[1].PowerCut(seed)
			b.Stop()
			for range 2 {
				b = hosttest.Start(t, left, net, "b")
				f := b.Host.Forgotten()
				if _, runs := b.Host.Get(segment); runs || len(f) != 1 || f[0].Replica != 2 || b.Host.Awaits(segment) {
					t.Fatalf("seed %d: runs %v, forgotten %+v", seed, runs, f)
				}
				must(t, b.Host.Descriptor(f[0].State.Descriptor))
				if err := b.Host.Await(segment, 2); err == nil {
					t.Fatalf("seed %d: the old replica is awaited", seed)
				}
				b.Stop()
			}
			b = hosttest.Start(t, left, net, "b")
			a.Put(segment, "without b", "v")
			r, _ := a.Host.Get(segment)
			next := r.Machine.Descriptor().Clone()
			next.Anchors = append(next.Anchors[:1:1], next.Anchors[2:]...)
			change(t, a, next, raftpb.ConfChangeRemoveNode, 2)
			hosttest.Eventually(t, time.Minute, "b to learn that its replica is out", func() bool { return len(b.Host.Forgotten()) == 0 })
			enlist(t, a, b)
			for k := range 20 {
				if v, _ := b.Get(segment, fmt.Sprint("k", k)); v != "v" {
					t.Errorf("seed %d: b lacks k%d", seed, k)
				}
			}
			if r, _ := b.Host.Get(segment); r.ID <= 2 {
				t.Errorf("seed %d: b is back as replica %d", seed, r.ID)
			}
		})
	}
}

// TestWhatIsLeftOfAMergedSegmentGoes: a forgetful replica whose group let it go and was
// merged then is told so by nobody: its node gives it up when it knows that the segment is
// no more, and not before.
func TestWhatIsLeftOfAMergedSegmentGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, disks := meshtest.NewNetwork(1), threeDisks(t)
		nodes := group(t, disks, net)
		a, b := nodes[0], nodes[1]
		amend(t, a, anchormesh.Light)
		hosttest.Eventually(t, time.Minute, "b to acknowledge from memory", func() bool {
			open(a)
			return b.Log.Group(segment).Memory()
		})
		<-time.After(time.Second) // and that to be on disk
		open(a)
		left := disks[1].PowerCut(1)
		b.Stop()
		b = hosttest.Start(t, left, net, "b")
		must(t, b.Host.ReleaseGone())
		f := b.Host.Forgotten()
		if len(f) != 1 {
			t.Fatalf("forgotten are %+v", f)
		}
		d := f[0].State.Descriptor
		b.Table.Bury(anchormesh.Tombstone{Segment: segment, Generation: d.Generation + 2, Range: d.Range, Successors: []anchormesh.SegmentID{segment + 1}})
		must(t, b.Host.ReleaseGone())
		if f := b.Host.Forgotten(); len(f) != 0 {
			t.Errorf("forgotten are still %+v", f)
		}
	})
}

// Of a forgetful replica whose state was gone already, for a snapshot was on its way in, only a
// tombstone says that there is nobody to answer to any more: its segment may be one that
// this node has not heard of yet.
func TestOnlyATombstoneEndsWhatHasNoState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net, disks := meshtest.NewNetwork(1), threeDisks(t)
		nodes := group(t, disks, net)
		a, b := nodes[0], nodes[1]
		amend(t, a, anchormesh.Light)
		hosttest.Eventually(t, time.Minute, "b to acknowledge from memory", func() bool {
			open(a)
			return b.Log.Group(segment).Memory()
		})
		<-time.After(time.Second) // and that to be on disk
		net.Partition([]anchormesh.NodeID{"a", "c"}, []anchormesh.NodeID{"b"})
		a.Put(segment, "without b", "v")
		if _, err := b.Host.Install(export(t, a, 2).offer); err != nil || b.Hash(segment) != "absent" {
			t.Fatalf("a snapshot: %v, %s", err, b.Hash(segment))
		}
		left := disks[1].PowerCut(1)
		b.Stop()
		b = hosttest.Start(t, left, net, "b")
		must(t, b.Host.ReleaseGone())
		if f := b.Host.Forgotten(); len(f) != 1 || f[0].State != nil {
			t.Fatalf("forgotten are %+v", f)
		}
		b.Table.Bury(anchormesh.Tombstone{Segment: segment, Generation: 9, Successors: []anchormesh.SegmentID{segment + 1}})
		must(t, b.Host.ReleaseGone())
		if f := b.Host.Forgotten(); len(f) != 0 || len(b.Log.Groups()) != 0 {
			t.Errorf("forgotten are still %+v, the log holds %v", f, b.Log.Groups())
		}
	})
}

// What is left of a forgetful replica goes with the snapshot of the segment that absorbed
// its own, and nothing is said of it any more.
func TestASnapshotOfTheMergedSegmentEndsWhatWasForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, net := hosttest.NewDisk(t), meshtest.NewNetwork(1)
		n := genesis(t, d, net)
		amend(t, n, anchormesh.Light)
		must(t, order(n, segment, (&machine.Split{At: []byte("m"), Right: rightSegment}).Command()))
		hosttest.Eventually(t, time.Minute, "right half", func() bool { return leads(n, rightSegment) })
		rev := anchormesh.Revision(100)
		hosttest.Eventually(t, time.Minute, "the right to acknowledge from memory", func() bool {
			rev++
			must(t, order(n, rightSegment, write(t, rev, "z", "v")))
			return n.Log.Group(rightSegment).Memory()
		})
		<-time.After(time.Second) // and that to be on disk
		if n.Log.Group(segment).Memory() {
			t.Fatal("the left acknowledged from memory, too")
		}
		cut := d.PowerCut(1)
		n.Stop()

		n = hosttest.Start(t, d, net, "a")
		hosttest.Eventually(t, time.Minute, "leaders", func() bool { return leads(n, segment) && leads(n, rightSegment) })
		mergeHalves(t, n)
		s := export(t, n, 1)
		n.Stop()

		n = hosttest.Start(t, cut, net, "a")
		if f := n.Host.Forgotten(); len(f) != 1 || f[0].Segment != rightSegment {
			t.Fatalf("forgotten are %+v", f)
		}
		must(t, s.install(n))
		if f := n.Host.Forgotten(); len(f) != 0 || n.Dir.Record().Retired[rightSegment] != 1 {
			t.Errorf("forgotten are still %+v; given up are %v", f, n.Dir.Record().Retired)
		}
	})
}

// A replica that was given up has nothing to forget, even if the power was cut before its
// log was dropped: nobody is there to answer to the word that it might have.
func TestWhatIsToBeDroppedForgetsNothing(t *testing.T) {
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			net, disks := meshtest.NewNetwork(1), threeDisks(t)
			nodes := group(t, disks, net)
			a, b := nodes[0], nodes[1]
			amend(t, a, anchormesh.Light)
			hosttest.Eventually(t, time.Minute, "b to acknowledge from memory", func() bool {
				open(a)
				return b.Log.Group(segment).Memory()
			})
			<-time.After(time.Second) // and that to be on disk
			open(a)
			rec := disks[1].Record(seed)
			must(t, b.Host.Retire(segment, 2))
			cuts := rec.Stop()
			b.Stop()
			dropping := 0
			for i, left := range cuts {
				b := hosttest.Start(t, left, net, "b")
				given := b.Dir.Record().Retired[segment] == 2
				if f := b.Host.Forgotten(); given && len(f) != 0 {
					t.Errorf("seed %d, cut %d: given up, and forgotten are %+v", seed, i, f)
				}
				if given {
					dropping++
				}
				b.Stop()
			}
			if dropping < 2 {
				t.Errorf("seed %d: only %d of %d cuts came after the note", seed, dropping, len(cuts))
			}
		})
	}
}

// Whoever stopped in order, or whose light segment had been at rest for long, has
// forgotten nothing, and neither has a normal segment.
func TestWhoForgotNothingComesBack(t *testing.T) {
	for name, before := range map[string]func(t *testing.T, a *hosttest.Node){
		"normal": func(t *testing.T, a *hosttest.Node) { open(a) },
		"rest": func(t *testing.T, a *hosttest.Node) {
			amend(t, a, anchormesh.Light)
			open(a)
			<-time.After(15 * time.Second)
		},
		"normal again": func(t *testing.T, a *hosttest.Node) {
			amend(t, a, anchormesh.Light)
			open(a)
			amend(t, a, anchormesh.Normal)
			hard := make(chan struct{})
			r, _ := a.Host.Get(segment)
			a.Host.Harden(r, func() { close(hard) })
			<-hard
		},
	} {
		for seed := range uint64(6) {
			synctest.Test(t, func(t *testing.T) {
				d := hosttest.NewDisk(t)
				net := meshtest.NewNetwork(1)
				a := genesis(t, d, net)
				before(t, a)
				left := d.PowerCut(seed)
				a.Stop()
				a = hosttest.Start(t, left, net, "a")
				if f := a.Host.Forgotten(); len(f) != 0 {
					t.Fatalf("%s, seed %d: forgotten %+v", name, seed, f)
				}
				a.Put(segment, "after", "v")
				if v, _ := a.Get(segment, "open2"); v != "v" {
					t.Errorf("%s, seed %d: what was acknowledged is gone", name, seed)
				}
			})
		}
	}
	synctest.Test(t, func(t *testing.T) {
		d := hosttest.NewDisk(t)
		net := meshtest.NewNetwork(1)
		a := genesis(t, d, net)
		amend(t, a, anchormesh.Light)
		open(a)
		a.Stop()
		d.Reboot()
		a = hosttest.Start(t, d, net, "a")
		if f := a.Host.Forgotten(); len(f) != 0 {
			t.Fatalf("after a stop in order: forgotten %+v", f)
		}
		a.Put(segment, "after", "v")
	})
}

// Counterexample 15. Normal to light: once anything was acknowledged from memory, a
// power cut at any moment finds that noted. Light to normal: a replica that was cut off
// before it had everything on disk has forgotten, and one after has not.
func TestTheSwitchIsOnDiskBeforeItIsUsed(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			d := hosttest.NewDisk(t)
			net := meshtest.NewNetwork(1)
			a := genesis(t, d, net)
			a.Put(segment, "first", "v")
			rec := d.Record(seed)
			marks := []int{rec.Len()}
			amend(t, a, anchormesh.Light)
			for k := range 4 {
				a.Put(segment, fmt.Sprint("k", k), "v")
				marks = append(marks, rec.Len())
			}
			amend(t, a, anchormesh.Normal)
			hard := make(chan struct{})
			r, _ := a.Host.Get(segment)
			a.Host.Harden(r, func() { close(hard) })
			<-hard
			hardened := rec.Len()
			a.Put(segment, "last", "v")
			disks := rec.Stop()
			a.Stop()
			for i, left := range disks {
				n := hosttest.Start(t, left, net, "a")
				switch f := n.Host.Forgotten(); {
				case len(f) > 0 && (i <= marks[0] || i > hardened):
					t.Errorf("seed %d, disk %d of %d: forgotten, though everything was on disk", seed, i, len(disks))
				case len(f) == 0:
					hosttest.Eventually(t, time.Minute, "replay", func() bool {
						st, ok := n.Engine.Status(segment)
						return ok && st.Leads()
					})
					n.Put(segment, "after", "v")
					for k := range 4 {
						if _, ok := n.Get(segment, fmt.Sprint("k", k)); !ok && i > marks[k+1] {
							t.Errorf("seed %d, disk %d of %d: k%d is forgotten, and the replica serves", seed, i, len(disks), k)
						}
					}
				}
				n.Stop()
			}
		})
	}
}
