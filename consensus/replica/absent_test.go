package replica

import (
	"slices"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// pairStorage has a durable state at an index of its own.
type pairStorage struct {
	withConf
	durable *uint64
}

func (s pairStorage) Snapshot() (*raftpb.Snapshot, error) {
	if *s.durable == 0 {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: s.durable, Term: new(uint64(1)), ConfState: s.conf}}, nil
}

// TestReplicaThatLostItsStateGetsASnapshot: a replica acknowledged entries, then an
// installation made it absent. Its rejections must not be answered with the same
// append over and over, and it must be offered a state that holds what it
// acknowledged.
func TestReplicaThatLostItsStateGetsASnapshot(t *testing.T) {
	durable := uint64(0)
	a := &alone{t: t, storage: raft.NewMemoryStorage()}
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot = 1, 1
	cfg.Storage = pairStorage{withConf{a.storage, &raftpb.ConfState{Voters: []uint64{1}, Learners: []uint64{2}}}, &durable}
	var err error
	if a.r, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	a.r.Campaign()
	a.run()
	a.apply()
	answer := func(index uint64, reject bool) Ready {
		a.r.Step(&raftpb.Message{
			Type: raftpb.MsgAppResp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(a.r.Status().Term),
			Index: new(index), Reject: new(reject), RejectHint: new(uint64(0)),
		})
		rd, _ := a.r.Ready()
		return rd
	}
	answer(0, true) // a replica that never had a state is raft's own business
	answer(1, false)
	appends := func(rd Ready) bool {
		return slices.ContainsFunc(rd.Messages, func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgApp })
	}
	if rd := answer(1, true); appends(rd) || len(rd.Snapshots) != 0 {
		t.Errorf("a state below what was acknowledged is offered, or the append repeated: %+v", rd)
	}
	durable = 1
	if rd := answer(1, true); appends(rd) || len(rd.Snapshots) != 1 || rd.Snapshots[0] != (SnapshotRequest{To: 2, Index: 1}) {
		t.Errorf("got %+v, want one offer to replica 2", rd)
	}
	if rd := answer(1, true); len(rd.Snapshots) != 0 {
		t.Error("a second offer while the first is on its way")
	}
	a.r.SnapshotDone(2, false)
	if rd := answer(1, true); len(rd.Snapshots) != 1 {
		t.Error("no offer after the first one failed")
	}
}
