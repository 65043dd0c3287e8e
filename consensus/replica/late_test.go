package replica

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// follower is replica 1 of two, led by replica 2 in term 3.
func follower(t *testing.T, boot uint64) *Replica {
	storage := raft.NewMemoryStorage()
	if err := storage.SetHardState(&raftpb.HardState{Term: new(uint64(3)), Vote: new(uint64(0)), Commit: new(uint64(0))}); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot = 1, boot
	cfg.Storage = withConf{storage, &raftpb.ConfState{Voters: []uint64{1, 2}}}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(3))})
	r.Ready()
	return r
}

// round asks for a read and returns the context of its round.
func round(t *testing.T, r *Replica) []byte {
	r.ReadIndex(func(uint64, error) {})
	rd, _ := r.Ready()
	for _, m := range rd.Messages {
		if m.GetType() == raftpb.MsgReadIndex {
			return m.GetEntries()[0].GetData()
		}
	}
	t.Fatal("no read round was begun")
	return nil
}

// confirms reports whether an answer of the leader confirms a read.
func confirms(r *Replica, context []byte) bool {
	r.Step(&raftpb.Message{
		Type: raftpb.MsgReadIndexResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(3)),
		Index: new(uint64(0)), Entries: []*raftpb.Entry{{Data: context}},
	})
	rd, _ := r.Ready()
	return len(rd.Reads) > 0
}

// TestLateReadIndexAnswerOfAnEarlierRun: an answer to a round that began before a
// restart says nothing about reads that came after it (traps.md 33).
func TestLateReadIndexAnswerOfAnEarlierRun(t *testing.T) {
	late := round(t, follower(t, 1))
	again := follower(t, 2)
	own := round(t, again)
	if confirms(again, late) {
		t.Error("an answer to an earlier run confirmed a read of this one")
	}
	if !confirms(again, own) {
		t.Error("the answer to its own round confirmed nothing")
	}
}

// TestForwardedEntryIsRefused: an entry that another leader stamped changes nothing,
// and stops nobody (counterexamples.md 4d).
func TestForwardedEntryIsRefused(t *testing.T) {
	r := follower(t, 1)
	stamped := Envelope{Term: 2, Generation: 1, Sequence: 1, Payloads: [][]byte{[]byte("x")}}
	good := Envelope{Term: 3, Generation: 1, Sequence: 1, Payloads: [][]byte{[]byte("y")}}
	out := r.committed([]*raftpb.Entry{
		{Index: new(uint64(1)), Term: new(uint64(3)), Data: stamped.append(nil)},
		{Index: new(uint64(2)), Term: new(uint64(3)), Data: good.append(nil)},
	})
	if !out[0].Refused || out[1].Refused {
		t.Errorf("refused: %v and %v, want only the first", out[0].Refused, out[1].Refused)
	}
	r.Step(&raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(1)), To: new(uint64(1)), Entries: []*raftpb.Entry{{Data: good.append(nil)}}})
	rd, _ := r.Ready()
	for _, m := range rd.Messages {
		if m.GetType() == raftpb.MsgProp {
			t.Error("a follower forwards proposals")
		}
	}
}
