package host_test

import (
	"testing"
	"testing/synctest"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

func named(id anchormesh.SegmentID, generation anchormesh.Generation, changed uint64, nodes ...anchormesh.NodeID) *anchormesh.Descriptor {
	d := &anchormesh.Descriptor{Mesh: meshID, Segment: id, Generation: generation, Changed: changed, NextReplica: 10}
	for i, n := range nodes {
		d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: n, Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
	}
	return d
}

// A descriptor from before a merge, or any of a segment whose keys are governed by
// later ones, names this node, but nobody will ever send it that replica.
func TestAReplicaOfASegmentThatIsNoMoreIsNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "b")
		must(t, n.Host.Descriptor(named(5, 1, 7, "a", "b")))
		if !n.Host.Awaits(5) {
			t.Fatal("a replica that the group knows is not awaited")
		}
		must(t, n.Host.Descriptor(named(6, 2, 5, "a"))) // all of its keys
		must(t, n.Host.Descriptor(named(5, 1, 8, "a", "b")))
		if n.Host.Awaits(5) {
			t.Error("a shadowed segment's replica is awaited")
		}
		n.Table.Bury(anchormesh.Tombstone{Segment: 8, Generation: 2, Range: anchormesh.KeyRange{Start: []byte("m")}})
		must(t, n.Host.Descriptor(named(8, 3, 9, "a", "b")))
		if n.Host.Awaits(8) {
			t.Error("a buried segment's replica is awaited")
		}
	})
}

// A replica that a joint configuration names no more still counts in the outgoing
// majority, which has to end the change: it goes at the word of what comes behind.
func TestAReplicaStaysWhileItsVoteCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := genesis(t, hosttest.NewDisk(t), meshtest.NewNetwork(1))
		r, _ := n.Host.Get(segment)
		next := named(segment, 1, r.Machine.Descriptor().Changed+1, "x")
		next.Anchors[0].Replica, next.Joint = 2, true
		must(t, n.Host.Descriptor(next))
		if _, here := n.Host.Get(segment); !here {
			t.Fatal("it left while the configuration was joint")
		}
		// Named again under another replica ID: the old one counts all the same.
		again := next.Clone()
		again.Changed++
		again.Anchors[0].Node, again.Anchors[0].Replica = "a", 3
		must(t, n.Host.Descriptor(again))
		if now, here := n.Host.Get(segment); !here || now.ID != 1 {
			t.Fatal("it gave way to its successor while the configuration was joint")
		}
		over := next.Clone()
		over.Changed, over.Joint = again.Changed+1, false
		must(t, n.Host.Descriptor(over))
		if _, here := n.Host.Get(segment); here {
			t.Error("it stays although everybody knows that it left")
		}
	})
}
