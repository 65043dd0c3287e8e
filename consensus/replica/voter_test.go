package replica

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// ballot is what an answer says.
func ballot(m *raftpb.Message) string {
	if m == nil {
		return "silence"
	}
	return fmt.Sprintf("%v from %d to %d in term %d, reject %v", m.GetType(), m.GetFrom(), m.GetTo(), m.GetTerm(), m.GetReject())
}

// logOf is a log of random terms, with a hard state that fits it.
func logOf(rng *rand.Rand) *raft.MemoryStorage {
	log, term := raft.NewMemoryStorage(), uint64(0)
	for i := range rng.Uint64N(4) {
		term += rng.Uint64N(3)
		term = max(term, 1)
		_ = log.Append([]*raftpb.Entry{{Index: new(i + 1), Term: new(term)}})
	}
	_ = log.SetHardState(&raftpb.HardState{Term: new(term + rng.Uint64N(2)), Vote: new(rng.Uint64N(4)), Commit: new(uint64(0))})
	return log
}

// A voter answers random requests as raft does with the same log, and promises as much:
// both are started again from what they had written down now and then.
func TestAVoterVotesAsRaftDoes(t *testing.T) {
	granted := 0
	for seed := range uint64(300) {
		cryptotest.SetGlobalRandom(t, seed)
		rng := rand.New(rand.NewPCG(seed, 1))
		theirs := logOf(rng)
		ours := raft.NewMemoryStorage()
		entries, _ := theirs.Entries(1, 1+last(theirs), 1<<20)
		_ = ours.Append(entries)
		hs, _, _ := theirs.InitialState()
		_ = ours.SetHardState(hs)
		var (
			r *Replica
			v *Voter
		)
		for i := range 60 {
			if r == nil || rng.IntN(8) == 0 {
				r, v = startBoth(t, theirs, ours)
			}
			ask := raftpb.MsgVote
			if rng.IntN(3) == 0 {
				ask = raftpb.MsgPreVote
			}
			m := &raftpb.Message{
				Type: &ask, To: new(uint64(1)), From: new(2 + rng.Uint64N(2)), Term: new(1 + rng.Uint64N(6) + uint64(i)/8),
				LogTerm: new(rng.Uint64N(6)), Index: new(rng.Uint64N(6)),
			}
			var want *raftpb.Message
			r.Step(m)
			for {
				rd, ok := r.Ready()
				if !ok {
					break
				}
				for _, out := range rd.Messages {
					want = out
				}
				if rd.Append != nil {
					if rd.Append.HardState != nil {
						_ = theirs.SetHardState(rd.Append.HardState)
					}
					for _, out := range rd.Append.Remote {
						want = out
					}
					r.Appended(rd.Append.Local)
				}
			}
			got, save := v.Judge(m)
			if save != nil {
				_ = ours.SetHardState(save)
				granted++
			}
			if ballot(got) != ballot(want) {
				t.Fatalf("seed %d: to %v of term %d, at %d/%d, raft answers %s, the voter %s", seed, ask, m.GetTerm(), m.GetLogTerm(), m.GetIndex(), ballot(want), ballot(got))
			}
			if ask == raftpb.MsgVote && got != nil && !got.GetReject() && save == nil {
				t.Fatalf("seed %d: a vote that is not written down", seed)
			}
			// Raft writes a later term down also where it does not vote.
			_ = ours.SetHardState(&raftpb.HardState{Term: new(v.term), Vote: new(v.vote), Commit: new(uint64(0))})
		}
	}
	if granted < 300 {
		t.Errorf("%d votes in 300 runs: they show little", granted)
	}
}

func last(log *raft.MemoryStorage) uint64 {
	index, _ := log.LastIndex()
	return index
}

func startBoth(t *testing.T, theirs, ours *raft.MemoryStorage) (*Replica, *Voter) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.ID, cfg.Boot, cfg.Storage = 1, 1, withConf{theirs, &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v, err := NewVoter(1, ours)
	if err != nil {
		t.Fatal(err)
	}
	return r, v
}
