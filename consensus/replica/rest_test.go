package replica

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// TestRestMeansThatNothingIsUnderWay walks a group of one through everything that is to
// keep it awake.
func TestRestMeansThatNothingIsUnderWay(t *testing.T) {
	a := newAlone(t)
	rests := func(want bool, when string) {
		t.Helper()
		at, ok := a.r.AtRest()
		if ok != want {
			t.Errorf("%s: at rest is %v", when, ok)
		}
		if st := a.r.Status(); ok && at != (Rest{Term: st.Term, Index: st.Commit}) {
			t.Errorf("%s: at rest at %+v, but commit is %d in term %d", when, at, st.Commit, st.Term)
		}
	}
	rests(true, "after the election")
	a.r.Propose(Proposal{Generation: 1, Payload: []byte("x"), Done: func(Result) {}})
	rests(false, "with a proposal in the queue")
	a.run()
	rests(false, "with an entry that is committed and not applied")
	a.apply()
	a.run()
	rests(true, "after it was applied")
	a.r.ReadIndex(func(uint64, error) {})
	rests(false, "with a read that waits")
	a.run()
	rests(true, "after the read")
	a.r.offer(2)
	a.r.out.offered[2] = true
	rests(false, "with a snapshot on its way")
	a.r.SnapshotDone(2, true)
	a.r.out.offers = nil
	a.run()
	rests(true, "after the snapshot")
	if n, joint := a.r.Voters(); n != 1 || joint {
		t.Errorf("%d voters, joint is %v", n, joint)
	}
}

// TestFollowerRestsOnlyUnderALeader: who knows no leader goes on counting.
func TestFollowerRestsOnlyUnderALeader(t *testing.T) {
	r := follower(t, 1)
	for r.Pending() {
		r.Ready()
	}
	if at, ok := r.AtRest(); !ok || at.Term != 3 {
		t.Errorf("a follower without anything to do: %+v, %v", at, ok)
	}
	r.ForgetLeader()
	if _, ok := r.AtRest(); ok {
		t.Error("at rest without a leader")
	}
}

// TestNewLeaderDoesNotRest before an entry of its own term is committed.
func TestNewLeaderDoesNotRest(t *testing.T) {
	storage := raft.NewMemoryStorage()
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot = 1, 1
	cfg.Storage = withConf{storage, &raftpb.ConfState{Voters: []uint64{1, 2}}}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.Campaign()
	for _, typ := range []raftpb.MessageType{raftpb.MsgPreVoteResp, raftpb.MsgVoteResp} {
		for r.Pending() {
			if rd, _ := r.Ready(); rd.Append != nil {
				r.Appended(rd.Append.Local)
			}
		}
		r.Step(&raftpb.Message{Type: typ.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(1))})
	}
	for range 3 {
		r.Ready()
	}
	if !r.Leads() {
		t.Fatal("not elected")
	}
	if _, ok := r.AtRest(); ok {
		t.Error("at rest with its first entry under way")
	}
	var seen []anchormesh.ReplicaID
	r.Progress(func(id anchormesh.ReplicaID, _ PeerProgress) { seen = append(seen, id) })
	if len(seen) != 2 {
		t.Errorf("progress of %v", seen)
	}
}
