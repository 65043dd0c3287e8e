package lease

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// sim is a segment with two nodes that take turns in leading. Proposals are
// lost, delayed past elections and applied in any order; a proposal of a former
// leader may still enter the log in a later term of the same node.
type sim struct {
	t       *testing.T
	seed    uint64
	rng     *rand.Rand
	now     time.Time
	term    uint64
	index   uint64 // of the last entry applied
	leader  int
	cores   [2]*Core
	table   map[int64]Lease
	promise map[int64]time.Time // no expiry before
	flying  []proposal
	renewed int
	expired int
}

type proposal struct {
	node       int
	expire     *codec.LeaseExpiry
	checkpoint *codec.LeaseCheckpoint
}

func (s *sim) step(node int, ev Event) {
	fx := s.cores[node].Step(s.now, ev)
	for _, a := range fx.Answers {
		if a.Verdict == Renewed {
			s.renewed++
			s.promised(a.ID, a.TTL)
		}
	}
	for _, e := range fx.Expire {
		s.flying = append(s.flying, proposal{node: node, expire: &e})
	}
	for _, c := range append(fx.Checkpoint, fx.Clear...) {
		s.flying = append(s.flying, proposal{node: node, checkpoint: &c})
	}
}

func (s *sim) promised(id, ttl int64) {
	if p := s.now.Add(seconds(ttl)); p.After(s.promise[id]) {
		s.promise[id] = p
	}
}

// apply is what the segment does with an entry of the current term.
func (s *sim) apply(p proposal) {
	s.index++
	switch {
	case p.expire != nil:
		l, ok := s.table[p.expire.ID]
		if !ok || p.expire.Term != s.term || p.expire.Epoch != l.Epoch {
			return
		}
		if s.now.Before(s.promise[l.ID]) {
			s.t.Fatalf("seed %d: lease %d expired at %v, promised until %v", s.seed, l.ID, s.now, s.promise[l.ID])
		}
		delete(s.table, l.ID)
		s.expired++
		s.step(s.leader, Revoked{l.ID})
	case p.checkpoint.Remaining == 0:
		l, ok := s.table[p.checkpoint.ID]
		if !ok {
			return
		}
		l.Remaining, l.Epoch = 0, s.index
		s.table[l.ID] = l
		s.step(s.leader, Checkpointed{l})
	default:
		l, ok := s.table[p.checkpoint.ID]
		if !ok || p.checkpoint.Term != s.term || p.checkpoint.Epoch != l.Epoch {
			return
		}
		l.Remaining = p.checkpoint.Remaining
		s.table[l.ID] = l
		s.step(s.leader, Checkpointed{l})
	}
}

func (s *sim) elect() {
	s.step(s.leader, Demote{})
	s.term++
	s.leader = s.rng.IntN(2)
	var leases []Lease
	for id := range int64(6) {
		if l, ok := s.table[id]; ok {
			leases = append(leases, l)
		}
	}
	s.step(s.leader, Lead{Term: s.term, Leases: leases})
}

func (s *sim) turn() {
	s.now = s.now.Add(time.Duration(s.rng.IntN(1500)) * time.Millisecond)
	switch s.rng.IntN(10) {
	case 0:
		id, ttl := s.rng.Int64N(6), 2+s.rng.Int64N(90)
		if _, ok := s.table[id]; !ok {
			s.index++
			s.table[id] = Lease{ID: id, TTL: ttl, Epoch: s.index}
			s.promised(id, ttl)
			s.step(s.leader, Granted{s.table[id]})
		}
	case 1, 2:
		s.step(s.leader, Renew{[]Renewal{{ID: s.rng.Int64N(6), Token: 1}, {ID: s.rng.Int64N(6), Token: 2}}})
	case 3:
		if s.rng.IntN(3) == 0 {
			s.elect()
		}
	case 4, 5, 6:
		if len(s.flying) == 0 {
			return
		}
		i := s.rng.IntN(len(s.flying))
		p := s.flying[i]
		if p.node != s.leader && s.rng.IntN(2) == 0 {
			return // may enter when that node leads again
		}
		s.flying = append(s.flying[:i], s.flying[i+1:]...)
		if p.node == s.leader && s.rng.IntN(5) > 0 {
			s.apply(p)
		}
	default:
		s.step(s.leader, Tick{})
	}
}

// TestPromisesHold: under lost, late and reordered proposals and any change of
// leaders no lease is revoked before the last answer promised, and in the end
// every lease nobody renews is gone.
func TestPromisesHold(t *testing.T) {
	cfg := DefaultConfig()
	cfg.CheckpointInterval, cfg.ExpireRate, cfg.ExpireMax = 3*time.Second, 2, 2
	var renewed, expired int
	for seed := range uint64(3000) {
		s := &sim{t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 11)), now: time.Unix(0, 1),
			table: map[int64]Lease{}, promise: map[int64]time.Time{}}
		s.cores = [2]*Core{New(cfg), New(cfg)}
		s.elect()
		for range 400 {
			s.turn()
		}
		renewed, expired = renewed+s.renewed, expired+s.expired
		for i := 0; len(s.table) > 0; i++ {
			if i > 200 {
				t.Fatalf("seed %d: %v never expire", seed, s.table)
			}
			s.now = s.now.Add(time.Second)
			s.step(s.leader, Tick{})
			for _, p := range s.flying {
				if p.node == s.leader {
					s.apply(p)
				}
			}
			s.flying = nil
		}
	}
	if renewed < 1000 || expired < 1000 {
		t.Fatalf("only %d renewals and %d expiries: the schedule tests nothing", renewed, expired)
	}
}

func BenchmarkRenew(b *testing.B) {
	b.ReportAllocs()
	c := New(DefaultConfig())
	lead := Lead{Term: 1}
	for id := range int64(100_000) {
		lead.Leases = append(lead.Leases, Lease{ID: id + 1, TTL: 60})
	}
	now := time.Unix(0, 1)
	c.Step(now, lead)
	batch := make([]Renewal, 100)
	n := int64(0)
	for b.Loop() {
		for i := range batch {
			batch[i].ID = 1 + n%100_000
			n += 7
		}
		now = now.Add(time.Millisecond)
		c.Step(now, Renew{batch})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/renewal")
}
