package shard

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// TestAnswersOfAnEarlierStayAreDropped: a replica that was stopped, given a snapshot
// and started again has the same ID, but what it asked for before means nothing now.
// Raft stops the process if it is told of an apply beyond what is committed now.
func TestAnswersOfAnEarlierStayAreDropped(t *testing.T) {
	s := New()
	add := func(storage *diskLog, applied uint64) {
		cfg := replica.DefaultConfig()
		cfg.ID, cfg.Storage, cfg.Boot, cfg.Applied = 1, storage, applied+1, applied
		r, err := replica.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.Add(1, r, map[anchormesh.ReplicaID]anchormesh.NodeID{1: "n"})
	}
	conf := &raftpb.ConfState{Voters: []uint64{1}}
	log := &diskLog{raft.NewMemoryStorage(), conf}
	add(log, 0)
	s.With(1, (*replica.Replica).Campaign)
	var in Inbox
	var late []Applied
	for range 10 {
		fx := s.Step(&in)
		in = Inbox{}
		for _, a := range fx.Appends {
			if a.HardState != nil {
				if err := log.SetHardState(a.HardState); err != nil {
					t.Fatal(err)
				}
			}
			if err := log.Append(a.Entries); err != nil {
				t.Fatal(err)
			}
			in.Appended = append(in.Appended, a.Done)
		}
		for _, a := range fx.Applies {
			late = append(late, a.Done)
		}
	}
	if len(late) == 0 {
		t.Fatal("nothing was to be applied")
	}
	s.Remove(1)
	add(&diskLog{raft.NewMemoryStorage(), conf}, 0) // an older state than what was to be applied
	s.Step(&Inbox{Applied: late})                   // must not panic
}

func TestReplicasSpeakFromTheirOwnNodeOnly(t *testing.T) {
	c := newCluster(t, 1, 3, 1, 0)
	n := c.nodes[2]
	beat := func(from anchormesh.NodeID) uint64 {
		n.inbox.Messages = append(n.inbox.Messages, Inbound{From: from, Segment: 1, Message: &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(1)), To: new(uint64(3)), Term: new(uint64(5)),
		}})
		c.step(n)
		var term uint64
		n.shard.With(1, func(r *replica.Replica) { term = r.Status().Term })
		return term
	}
	if term := beat(nodeID(1)); term != 0 {
		t.Errorf("node 1 spoke for node 0's replica: term %d", term)
	}
	if term := beat(nodeID(0)); term != 5 {
		t.Errorf("node 0 was not heard: term %d", term)
	}
}

// A replica that was away does not know of those that were added meanwhile, one of which
// leads now. It answers where the message came from, and is heard of nowhere else.
func TestAnUnknownLeaderIsAnswered(t *testing.T) {
	c := newCluster(t, 1, 3, 1, 0)
	n := c.nodes[2]
	beat := func(from anchormesh.NodeID) map[anchormesh.NodeID]int {
		in := Inbox{Messages: []Inbound{{From: from, Segment: 1, Message: &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(4)), To: new(uint64(3)), Term: new(uint64(5)), Context: []byte("c"),
		}}}}
		frames := make(map[anchormesh.NodeID]int)
		for range 3 {
			fx := n.shard.Step(&in)
			in = Inbox{}
			for _, f := range fx.Frames {
				frames[f.To]++
			}
			for _, a := range fx.Appends {
				for _, f := range a.Frames {
					frames[f.To]++
				}
				in.Appended = append(in.Appended, a.Done)
			}
		}
		return frames
	}
	if frames := beat("node-3"); frames["node-3"] == 0 || len(frames) != 1 {
		t.Errorf("an unknown leader got no answer: %v", frames)
	}
	if frames := beat("node-4"); len(frames) != 0 {
		t.Errorf("another node spoke for the same replica: %v", frames)
	}
	n.shard.SetPeers(1, map[anchormesh.ReplicaID]anchormesh.NodeID{3: nodeID(2), 4: "node-4"})
	if frames := beat("node-4"); frames["node-4"] == 0 {
		t.Errorf("what the state says does not win: %v", frames)
	}
}
