package replica

import (
	"errors"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// alone is a group of one whose disk is quick and whose state machine waits.
type alone struct {
	t       *testing.T
	r       *Replica
	storage *raft.MemoryStorage
	applies []*Apply
}

func newAlone(t *testing.T) *alone {
	a := &alone{t: t, storage: raft.NewMemoryStorage()}
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot = 1, 1
	cfg.Storage = withConf{a.storage, &raftpb.ConfState{Voters: []uint64{1}}}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	a.r = r
	r.Campaign()
	a.run()
	a.apply()
	if !r.Leads() {
		t.Fatal("a group of one has no leader")
	}
	return a
}

type withConf struct {
	*raft.MemoryStorage
	conf *raftpb.ConfState
}

func (s withConf) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, _, err := s.MemoryStorage.InitialState()
	return hs, s.conf, err
}

// run carries everything out but applies, which it keeps.
func (a *alone) run() {
	for a.r.Pending() {
		rd, ok := a.r.Ready()
		if !ok {
			return
		}
		a.carryOut(rd)
	}
}

func (a *alone) carryOut(rd Ready) {
	if rd.Append != nil {
		if rd.Append.HardState != nil {
			if err := a.storage.SetHardState(rd.Append.HardState); err != nil {
				a.t.Fatal(err)
			}
		}
		if err := a.storage.Append(rd.Append.Entries); err != nil {
			a.t.Fatal(err)
		}
		a.r.Appended(rd.Append.Local)
	}
	if rd.Apply != nil {
		a.applies = append(a.applies, rd.Apply)
	}
}

// apply carries out what was kept.
func (a *alone) apply() {
	for _, ap := range a.applies {
		for _, e := range ap.Entries {
			for _, done := range e.Waiters {
				done(Result{Index: e.Index})
			}
		}
		a.r.Applied(ap.Response)
	}
	a.applies = nil
	a.run()
}

func (a *alone) addLearner(id uint64, done Waiter) {
	a.r.ProposeConfChange(1, &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{
		{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(id)},
	}}, []byte("context"), done)
	a.run()
}

// TestRefusedConfChangeEnds: raft does not take a second change before the first is
// applied and commits an empty entry instead. Whoever proposed it must be told, and
// requests behind it must not wait for it for ever.
func TestRefusedConfChangeEnds(t *testing.T) {
	a := newAlone(t)
	var first, second, write []Result
	a.addLearner(2, func(r Result) { first = append(first, r) })
	a.addLearner(3, func(r Result) { second = append(second, r) })
	a.r.Propose(Proposal{Payload: []byte("p"), Done: func(r Result) { write = append(write, r) }})
	a.run()
	a.apply()
	if len(first) != 1 || first[0].Err != nil {
		t.Errorf("first change ended as %+v", first)
	}
	if len(second) != 1 || !errors.Is(second[0].Err, ErrConfChangePending) {
		t.Errorf("second change ended as %+v, want %v", second, ErrConfChangePending)
	}
	if len(write) != 1 || write[0].Err != nil {
		t.Errorf("the write behind it ended as %+v", write)
	}
}

// TestConfChangeBeforeTheTermsFirstEntryCommits: the empty entry that begins a term
// must not be taken for a refused change.
func TestConfChangeBeforeTheTermsFirstEntryCommits(t *testing.T) {
	a := newAlone(t)
	a.addLearner(2, func(Result) {})
	a.apply()
	a.r.Step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: new(uint64(5))})
	a.run()
	if a.r.Leads() {
		t.Fatal("a higher term did not end the leadership")
	}
	a.r.Campaign()
	var begin Ready // holds the empty entry
	for !a.r.Leads() {
		begin, _ = a.r.Ready()
		if !a.r.Leads() {
			a.carryOut(begin)
		}
	}
	var got []Result
	a.r.ProposeConfChange(1, &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{
		{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(3))},
	}}, []byte("context"), func(r Result) { got = append(got, r) })
	a.carryOut(begin)
	a.run()
	a.apply()
	if len(got) != 1 || got[0].Err != nil {
		t.Errorf("the change ended as %+v", got)
	}
}
