package host_test

import (
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

// Of three voters one is lost for good while another one is without state, because a
// snapshot for it was cut short, and was perhaps started again. Its log votes for the
// third, which leads and gives it a state.
func TestAVoterWithoutStateVotes(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			net, disks := meshtest.NewNetwork(1), threeDisks(t)
			nodes := group(t, disks, net)
			a, b, c := nodes[0], nodes[1], nodes[2]
			net.Partition([]anchormesh.NodeID{"a", "b"}, []anchormesh.NodeID{"c"})
			a.Put(segment, "k", "v")
			hosttest.Eventually(t, time.Minute, "the write on b", func() bool { return a.Hash(segment) == b.Hash(segment) })
			was, _ := c.Host.Get(segment)
			into, err := c.Host.Install(export(t, a, was.ID).offer)
			must(t, err)
			into.Abort()
			if got := c.Hash(segment); got != "absent" {
				t.Fatalf("c stands at %s, want no state", got)
			}
			a.Stop()
			if again {
				c.Stop()
				c = hosttest.Start(t, disks[2], net, "c")
			}
			net.Partition([]anchormesh.NodeID{"b", "c"})
			hosttest.Eventually(t, time.Minute, "leader", func() bool { return leads(b, segment) })
			b.Put(segment, "k", "w")
			hosttest.Eventually(t, time.Minute, "a state on c", func() bool { return b.Hash(segment) == c.Hash(segment) })
			b.Stop()
			c.Stop()
		})
	}
}

// A voter that never had a state votes, too: that of a child whose parent came here as a
// snapshot. It keeps its word over a start.
func TestAVoteBeforeTheBirth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const child, self = anchormesh.SegmentID(0x99), anchormesh.ReplicaID(2)
		d, net := hosttest.NewDisk(t), meshtest.NewNetwork(1)
		ask := func(n *hosttest.Node, candidate, term uint64) (vote uint64) {
			m := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: &candidate, To: new(uint64(self)), Term: &term, LogTerm: new(uint64(5)), Index: new(uint64(5))}
			must(t, n.Engine.Receive("x", message.Append(nil, child, m)))
			time.Sleep(time.Second)
			return n.Log.Group(child).InitialHardState().GetVote()
		}
		n := hosttest.Start(t, d, net, "a")
		must(t, n.Host.Await(child, self))
		if got := ask(n, 1, 7); got != 1 {
			t.Errorf("the vote is %d's, want 1's", got)
		}
		must(t, n.Host.Await(child, self)) // hints come again and again
		if got := ask(n, 3, 7); got != 1 {
			t.Errorf("the vote is %d's, and was 1's", got)
		}
		n.Stop()
		n = hosttest.Start(t, d, net, "a")
		must(t, n.Host.Await(child, self))
		if got := ask(n, 3, 7); got != 1 {
			t.Errorf("the vote is %d's behind a start, and was 1's", got)
		}
		if got := ask(n, 3, 8); got != 3 {
			t.Errorf("in the next term the vote is %d's, want 3's", got)
		}
		n.Stop()
	})
}

// Whoever's log goes votes no more: whom it voted for went with it.
func TestNobodyVotesWithoutItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const gone, self = anchormesh.SegmentID(0x99), anchormesh.ReplicaID(2)
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
		must(t, n.Host.Await(gone, self))
		ask := func(candidate uint64) (vote uint64) {
			m := &raftpb.Message{Type: raftpb.MsgVote.Enum(), From: &candidate, To: new(uint64(self)), Term: new(uint64(7)), LogTerm: new(uint64(5)), Index: new(uint64(5))}
			must(t, n.Engine.Receive("x", message.Append(nil, gone, m)))
			time.Sleep(time.Second)
			return n.Log.Group(gone).InitialHardState().GetVote()
		}
		if got := ask(1); got != 1 {
			t.Fatalf("the vote is %d's, want 1's", got)
		}
		n.Engine.Hush(gone) // what it has in memory goes; it is read from the log again
		must(t, n.Host.Await(gone, self))
		must(t, n.Engine.DropLog(gone))
		if got := ask(3); got != 0 {
			t.Errorf("a second vote in the term, for %d: the log that knew of the first is gone", got)
		}
		n.Stop()
	})
}
