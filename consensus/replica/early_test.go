package replica

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// A group's only voter starts again. The commit index on its disk is behind what it had
// acknowledged, and it leads before the first entry of its term is written: a learner that asks
// how far a read has to see is not told of that old index.
func TestALearnersReadWaitsForTheTermsFirstEntry(t *testing.T) {
	a := &alone{t: t, storage: raft.NewMemoryStorage()}
	var entries []*raftpb.Entry
	for i := range uint64(3) {
		entries = append(entries, &raftpb.Entry{Index: new(i + 1), Term: new(uint64(1))})
	}
	if err := a.storage.Append(entries); err != nil {
		t.Fatal(err)
	}
	if err := a.storage.SetHardState(&raftpb.HardState{Term: new(uint64(1)), Vote: new(uint64(1)), Commit: new(uint64(2))}); err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot = 1, 1
	cfg.Storage = withConf{a.storage, &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.r = r
	r.Campaign()
	var slow *Append // of the term's first entry: the disk takes its time
	answer := func() *raftpb.Message {
		r.Step(&raftpb.Message{
			Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), To: new(uint64(1)), Entries: []*raftpb.Entry{{Data: []byte("context")}},
		})
		var found *raftpb.Message
		for r.Pending() {
			rd, ok := r.Ready()
			if !ok {
				break
			}
			for _, m := range rd.Messages {
				if m.GetType() == raftpb.MsgReadIndexResp {
					found = m
				}
			}
			if rd.Append != nil && len(rd.Append.Entries) > 0 && slow == nil {
				slow, rd.Append = rd.Append, nil
			}
			a.carryOut(rd)
		}
		return found
	}
	for range 2 {
		if m := answer(); m != nil {
			t.Fatalf("a read is to see up to %d, and 3 was acknowledged", m.GetIndex())
		}
	}
	if !r.Leads() || slow == nil {
		t.Fatal("it does not lead yet: that shows nothing")
	}
	a.carryOut(Ready{Append: slow})
	a.run()
	if m := answer(); m == nil || m.GetIndex() < 4 {
		t.Errorf("behind the first entry of the term a read is to see up to %v", m)
	}
}
