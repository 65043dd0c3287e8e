package replica

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// A replica that was let go votes by what it knows to be committed; one that may still
// count, or be counted again, by all that it has.
func TestWhoLeftDoesNotVoteByWhatCountsNowhere(t *testing.T) {
	for name, c := range map[string]struct {
		conf    *raftpb.ConfState
		index   uint64 // where the candidate's log ends
		last    raftpb.EntryType
		granted bool
	}{
		"left, the candidate has what is committed": {&raftpb.ConfState{Voters: []uint64{2, 3}}, 3, raftpb.EntryNormal, true},
		"left, the candidate lacks some of that":    {&raftpb.ConfState{Voters: []uint64{2, 3}}, 2, raftpb.EntryNormal, false},
		"left, and so did the candidate":            {&raftpb.ConfState{Voters: []uint64{3}}, 3, raftpb.EntryNormal, false},
		"a voter":                                   {&raftpb.ConfState{Voters: []uint64{1, 2, 3}}, 3, raftpb.EntryNormal, false},
		"a learner":                                 {&raftpb.ConfState{Voters: []uint64{2, 3}, Learners: []uint64{1}}, 3, raftpb.EntryNormal, true},
		"a learner that may count again":            {&raftpb.ConfState{Voters: []uint64{2, 3}, Learners: []uint64{1}}, 3, raftpb.EntryConfChangeV2, false},
		"a voter of before":                         {&raftpb.ConfState{Voters: []uint64{2, 3}, VotersOutgoing: []uint64{1, 2, 3}}, 3, raftpb.EntryNormal, false},
		"a voter that has no more":                  {&raftpb.ConfState{Voters: []uint64{1, 2, 3}}, 4, raftpb.EntryNormal, true},
	} {
		for _, kind := range []raftpb.MessageType{raftpb.MsgPreVote, raftpb.MsgVote} {
			storage := raft.NewMemoryStorage()
			for i := range uint64(4) {
				kind := raftpb.EntryNormal
				if i == 3 {
					kind = c.last
				}
				if err := storage.Append([]*raftpb.Entry{{Type: &kind, Index: new(i + 1), Term: new(uint64(2))}}); err != nil {
					t.Fatal(err)
				}
			}
			if err := storage.SetHardState(&raftpb.HardState{Term: new(uint64(2)), Commit: new(uint64(3))}); err != nil {
				t.Fatal(err)
			}
			cfg := DefaultConfig()
			cfg.ID, cfg.Boot, cfg.Applied = 1, 1, 3
			cfg.Storage = withConf{storage, c.conf}
			r, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			r.Step(&raftpb.Message{Type: &kind, From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(3)), LogTerm: new(uint64(2)), Index: new(c.index)})
			if got := onlyAnswer(t, &alone{t: t, storage: storage, r: r}); got.GetReject() == c.granted {
				t.Errorf("%s: %v is answered with %v", name, kind, got)
			}
		}
	}
}

// onlyAnswer returns the one answer that a replica gives.
func onlyAnswer(t *testing.T, a *alone) *raftpb.Message {
	t.Helper()
	var out []*raftpb.Message
	for a.r.Pending() {
		rd, ok := a.r.Ready()
		if !ok {
			break
		}
		out = append(out, rd.Messages...)
		if rd.Append != nil {
			out = append(out, rd.Append.Remote...)
		}
		a.carryOut(rd)
	}
	if len(out) != 1 {
		t.Fatalf("%d answers: %v", len(out), out)
	}
	return out[0]
}
