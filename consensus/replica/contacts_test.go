package replica

import (
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
)

// A learner answers each heartbeat before the next one. Whoever asks its leader at any moment,
// also at the one at which raft forgets whom it has heard of, is told that it is there, and
// soon after its last answer that it is not.
func TestWhoAnswersIsHeardOfAtEveryMoment(t *testing.T) {
	a := &alone{t: t, storage: raft.NewMemoryStorage()}
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot = 1, 1
	cfg.Storage = withConf{a.storage, &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.r = r
	r.Campaign()
	a.run()
	active := func() (is bool) {
		r.Progress(func(id anchormesh.ReplicaID, p PeerProgress) { is = is || id == 2 && p.RecentActive })
		return is
	}
	answer := func() {
		r.Step(&raftpb.Message{
			Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(r.Status().Term),
		})
		a.run()
	}
	answer()
	for i := range 5 * cfg.ElectionTicks {
		r.Tick()
		a.run()
		if !active() {
			t.Fatalf("at tick %d it is silent", i)
		}
		answer()
	}
	for range 2 * cfg.ElectionTicks {
		r.Tick()
		a.run()
	}
	if active() {
		t.Error("two election timeouts after its last answer it is there")
	}
}
