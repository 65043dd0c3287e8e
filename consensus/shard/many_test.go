package shard

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// led returns three nodes with so many groups, all led by node 0.
func led(t *testing.T, groups, sleep int) *cluster {
	c := newCluster(t, 1, 3, groups, sleep)
	for g := range groups {
		c.nodes[0].shard.Urge(anchormesh.SegmentID(g + 1))
	}
	c.round()
	if n := c.leads(0); n != groups {
		t.Fatalf("node 0 leads %d of %d groups after a tick", n, groups)
	}
	return c
}

// leads returns how many groups a node leads by its own account.
func (c *cluster) leads(node int) (n int) {
	for _, g := range c.nodes[node].shard.order {
		if g.replica.Leads() {
			n++
		}
	}
	return n
}

// TestGroupsOfALostNodeElectQuicklyAndInTurn: a node that led hundreds of groups
// dies; asleep or awake they have leaders again soon, on both of the other nodes, without
// all campaigning at once.
func TestGroupsOfALostNodeElectQuicklyAndInTurn(t *testing.T) {
	const groups = 300
	for _, test := range []struct {
		name         string
		sleep, ticks int
		noticed      bool
	}{
		{"asleep", 2, 8, true},
		{"awake", 0, 8, true},
		{"silent", 0, 10 + 8, false}, // an election timeout more
	} {
		t.Run(test.name, func(t *testing.T) {
			c := led(t, groups, test.sleep)
			for range 10 {
				c.round()
			}
			if test.sleep > 0 && c.asleep() != 3*groups {
				t.Fatalf("%d of %d replicas sleep", c.asleep(), 3*groups)
			}
			c.crash(c.nodes[0])
			for _, n := range c.nodes[1:] {
				if test.noticed {
					n.shard.NodeLost(nodeID(0))
				}
			}
			ticks, before := 0, 0
			for ; c.leads(1)+c.leads(2) < groups; ticks++ {
				if ticks > test.ticks {
					t.Fatalf("%d of %d groups have leaders after %d ticks", c.leads(1)+c.leads(2), groups, ticks)
				}
				c.round()
				now := c.leads(1) + c.leads(2)
				if now-before > 2*campaignsPerTick {
					t.Errorf("%d groups elected in one tick", now-before)
				}
				before = now
			}
			if a, b := c.leads(1), c.leads(2); a < groups/3 || b < groups/3 {
				t.Errorf("node 1 leads %d groups, node 2 leads %d", a, b)
			}
			t.Logf("%d groups have leaders after %d ticks", groups, ticks)
		})
	}
}

// TestSleepingGroupsAreNotVisited: what sleeps costs nothing, not even a look per tick,
// and wakes alone.
func TestSleepingGroupsAreNotVisited(t *testing.T) {
	const groups = 200
	c := led(t, groups, 3)
	for range 10 {
		c.round()
	}
	for _, n := range c.nodes {
		if n.shard.Asleep() != groups || len(n.shard.ticked) != 0 {
			t.Fatalf("node %d: %d groups sleep, %d are ticked", n.id, n.shard.Asleep(), len(n.shard.ticked))
		}
		fx := n.shard.Step(&Inbox{Ticks: 100})
		if len(fx.Frames)+len(fx.Appends)+len(fx.Statuses)+len(fx.Sleeps) > 0 {
			t.Errorf("node %d does something in its sleep: %+v", n.id, fx)
		}
	}
	c.nodes[0].shard.With(7, func(*replica.Replica) {})
	c.round()
	for _, n := range c.nodes {
		if n.shard.Asleep() != groups-1 {
			t.Errorf("node %d: %d groups sleep, want all but one", n.id, n.shard.Asleep())
		}
	}
	c.nodes[0].shard.Remove(7)
	c.nodes[1].shard.RemoveAll()
	if a, b := c.nodes[0].shard.Asleep(), c.nodes[1].shard.Asleep(); a != groups-1 || b != 0 {
		t.Errorf("after removals %d and %d groups sleep", a, b)
	}
}

// TestThoseThatStartWakeInTurn: a node with many groups that sleep is started again,
// unnoticed. They wake a few at a time, there and on the others, and find their leaders
// in the term of before.
func TestThoseThatStartWakeInTurn(t *testing.T) {
	// most stay awake for some 30 ticks, in each of which one more wakes in any case.
	const groups, most, more = 300, 16, 32
	c := led(t, groups, 2)
	for range 10 {
		c.round()
	}
	c.most = most
	c.crash(c.nodes[2])
	c.losses = nil
	c.boot(c.nodes[2])
	ticks := 0
	for ; c.asleep() < 3*groups || len(c.nodes[2].shard.queue.groups) > 0; ticks++ {
		for _, n := range c.nodes {
			if awake := n.shard.awake(); awake > most+more {
				t.Fatalf("tick %d: %d groups are awake on node %d", ticks, awake, n.id)
			}
		}
		if ticks > 80*groups/(most+more) {
			t.Fatalf("after %d ticks %d of %d replicas sleep", ticks, c.asleep(), 3*groups)
		}
		c.round()
	}
	for g := range groups {
		c.nodes[2].shard.Look(anchormesh.SegmentID(g+1), func(r *replica.Replica) {
			if st := r.Status(); st.Leader != 1 || st.Term != 1 {
				t.Errorf("group %d: %+v, want replica 1 to lead in term 1", g+1, st)
			}
		})
	}
	t.Logf("%d groups found their leaders in %d ticks", groups, ticks)
}

// TestThoseThatAreNeededDoNotWait: all nodes are started again. A group whose turn is far
// away and that a client asks for something, or that somebody wants a leader of, has one at
// once, behind the log of before.
func TestThoseThatAreNeededDoNotWait(t *testing.T) {
	for what, ask := range map[string]func(*Inbox, anchormesh.SegmentID){
		"a read": func(in *Inbox, g anchormesh.SegmentID) {
			in.Reads = append(in.Reads, Read{Segment: g, Done: func(uint64, error) {}})
		},
		"who finds no leader": func(in *Inbox, g anchormesh.SegmentID) {
			in.Commands = append(in.Commands, func(s *Shard) { s.Seek(g) })
		},
	} {
		t.Run(what, func(t *testing.T) { doesNotWait(t, ask) })
	}
}

func doesNotWait(t *testing.T, ask func(*Inbox, anchormesh.SegmentID)) {
	const groups, most = 100, 1
	c := led(t, groups, 2)
	for range 10 {
		c.round()
	}
	c.most = most
	for _, n := range c.nodes {
		c.crash(n)
	}
	c.losses = nil
	for _, n := range c.nodes {
		c.boot(n)
	}
	c.round()
	var last replica.Rest
	c.nodes[1].shard.Look(groups, func(r *replica.Replica) {
		if st := r.Status(); st.Leader != 0 || st.Term != 1 {
			t.Fatalf("%+v before anybody asked", st)
		}
	})
	ask(&c.nodes[1].inbox, groups)
	c.round()
	c.nodes[1].shard.Look(groups, func(r *replica.Replica) {
		if st := r.Status(); st.Role != raft.StateLeader || st.Term != 2 {
			t.Errorf("%+v when it was asked, want a leader in term 2", st)
		}
	})
	for range 3 {
		c.round()
	}
	c.nodes[1].shard.Look(groups, func(r *replica.Replica) { last, _ = r.AtRest() })
	if last != (replica.Rest{Term: 2, Index: 2}) {
		t.Errorf("the log ends at %+v, want one entry of the new term behind that of the old", last)
	}
	c.heal()
}

// TestTransfersOfManyGroups: leadership of sleeping groups moves at once, and each move
// shows in a status.
func TestTransfersOfManyGroups(t *testing.T) {
	const groups = 100
	c := led(t, groups, 3)
	for range 10 {
		c.round()
	}
	for g := range groups {
		c.nodes[0].shard.With(anchormesh.SegmentID(g+1), func(r *replica.Replica) { r.TransferLeader(anchormesh.ReplicaID(2 + g%2)) })
	}
	c.round()
	for node := 1; node <= 2; node++ {
		if n := c.leads(node); n != groups/2 {
			t.Errorf("node %d leads %d groups, want %d", node, n, groups/2)
		}
	}
	for g := range groups {
		if on, ok := c.leaders[[2]uint64{uint64(g + 1), 2}]; !ok || on.node != 1+g%2 {
			t.Errorf("group %d: no status says that node %d leads", g+1, 1+g%2)
		}
		c.nodes[0].shard.Look(anchormesh.SegmentID(g+1), func(r *replica.Replica) {
			if st := r.Status(); st.Role != raft.StateFollower || st.Leader != anchormesh.ReplicaID(2+g%2) {
				t.Errorf("group %d: the old leader sees %+v", g+1, st)
			}
		})
	}
}

// TestEarlyVotesAreBounded: nobody fills this node's memory with votes for groups that
// do not exist.
func TestEarlyVotesAreBounded(t *testing.T) {
	c := led(t, 1, 0)
	n := c.nodes[0]
	for i := range 3 * earlyMax {
		n.inbox.Messages = append(n.inbox.Messages, Inbound{
			From: nodeID(1), Segment: anchormesh.SegmentID(10 + i),
			Message: &raftpb.Message{Type: raftpb.MsgPreVote.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(1))},
		})
	}
	c.step(n)
	if len(n.shard.early) != earlyMax {
		t.Errorf("%d votes are kept, want %d", len(n.shard.early), earlyMax)
	}
	n.inbox.Ticks = earlyTicks + 1
	c.step(n)
	if len(n.shard.early) != 0 {
		t.Errorf("%d votes are kept after %d ticks", len(n.shard.early), earlyTicks+1)
	}
}
