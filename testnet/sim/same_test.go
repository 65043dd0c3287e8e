package sim

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/clients"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// script draws what one client asks for, one thing after the other, and at last for
// everything. Nothing in it names a revision.
func script(seed uint64, length int) (out []check.Request) {
	rng := rand.New(rand.NewPCG(seed, 0x5a3e))
	for i := range length {
		key := fmt.Sprintf("a/%02d", rng.IntN(12))
		put := check.Request{Kind: check.Put, Key: key, Value: fmt.Sprint(i), Prev: rng.IntN(2) == 0}
		switch rng.IntN(8) {
		case 0, 1, 2:
			out = append(out, put)
		case 3:
			out = append(out, check.Request{Kind: check.Delete, Key: key, Prev: rng.IntN(2) == 0})
		case 4, 5:
			out = append(out, check.Request{Kind: check.Range, Key: key})
		case 6:
			out = append(out, check.Request{Kind: check.Range, Key: "a", End: "a0", Limit: int64(rng.IntN(4))})
		default:
			out = append(out, check.Request{Kind: check.Txn,
				If:   []check.Compare{{Key: key, Target: "version", Result: plan.Pick(rng, "=", "<", ">"), Int: rng.Int64N(3)}},
				Then: []check.Request{put}, Else: []check.Request{{Kind: check.Range, Key: key}}})
		}
	}
	return append(out, check.Request{Kind: check.Range, Key: "a", End: "a0"})
}

// names calls revisions by the request that made them: one line skips numbers, another
// does not.
type names map[int64]int

// answer words what was answered to the i-th request.
func (n names) answer(i int, op *check.Request, r *check.Result) string {
	if op.Kind == check.Put || op.Kind == check.Txn && r.Succeeded {
		n[r.Rev] = i
	}
	out := fmt.Sprint(op.Kind, r.Count, r.Succeeded)
	for _, kv := range r.KVs {
		made, known := n[kv.Create]
		changed, also := n[kv.Mod]
		out += fmt.Sprint(" ", kv.Key, "=", kv.Value, " v", kv.Version, " of ", made, known, " to ", changed, also)
	}
	for k := range r.Sub {
		out += "; " + n.answer(i, &check.Request{}, &r.Sub[k])
	}
	return out
}

// disturb does something to the mesh that no client may notice, between two requests.
func (m *world) disturb(rng *rand.Rand) {
	n := plan.Pick(rng, m.Computers...)
	switch whole := len(m.Running()) == len(m.Computers); {
	case rng.IntN(3) > 0 && m.Cfg.Mesh.SplitsMax > 0:
		m.splitSomewhere()
	case rng.IntN(3) == 0 && m.Cfg.Mesh.SplitsMax > 0:
		m.mergeSomewhere()
	case !whole || rng.IntN(3) == 0:
		m.hit(m.transfer)
	case rng.IntN(2) == 0:
		n.Kill()
	default:
		n.Crash()
	}
}

// led waits until every segment is led.
func (m *world) led() {
	for begin := m.K.Now(); m.Err == nil; m.K.Run(m.K.Now()+2*time.Second, m.stopped) {
		leaderless := len(m.Born) < len(m.Segments)
		for _, id := range m.Live {
			leader, unique := m.leaderOf(id)
			leaderless = leaderless || leader == nil || !unique
		}
		if m.K.Now() > begin && !leaderless {
			return
		}
		if m.K.Now() > begin+time.Minute {
			m.Fail(ErrStuck)
		}
	}
}

// play lets one client carry a script out and returns what it was answered.
func play(cfg plan.Config, ops []check.Request, disturbed bool) (answers []string, stats witness.Stats, err error) {
	report, err := simulate(cfg, nil, func(m *world) {
		for _, n := range m.Computers {
			n.Boot()
		}
		m.create()
		m.observe()
		m.led()
		rng, c, known := rand.New(rand.NewPCG(cfg.Seed, 0xd157)), clients.NewClient(m.Mesh, 0), names{}
		for i := range ops {
			if disturbed && i%4 == 3 {
				m.disturb(rng)
				m.led()
			}
			over := false
			c.Send(plan.Pick(rng, m.Running()...), check.Op{Line: node.LineOf(m.Segments[0].ID), Request: ops[i]}, func(ok bool) {
				over = true
				if !ok {
					m.Fail(fmt.Errorf("request %d, %+v, was not answered", i, ops[i]))
					return
				}
				answers = append(answers, known.answer(i, &ops[i], m.History.Ops[len(m.History.Ops)-1].Result))
			})
			m.K.Run(m.K.Now()+time.Hour, func() bool { return over || m.stopped() })
			if m.stopped() {
				return
			}
		}
		m.liveness()
	})
	return answers, report.Stats, err
}

// errOther: another configuration gave another answer.
var errOther = errors.New("another answer")

// differs compares what a client is answered under a configuration with what it is answered in the plainest one.
func differs(want []string, ops []check.Request, got []string) error {
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			return fmt.Errorf("%w to request %d, %+v:\n%s\n%s", errOther, i, ops[i], want[i], slices.Concat(got, []string{"none"})[min(i, len(got))])
		}
	}
	return nil
}

// steady is a mesh without faults.
func steady(seed uint64) plan.Config {
	c := rough(seed)
	c.Faults, c.Mesh.Groups, c.Load = plan.Faults{Down: 8 * time.Second}, 1, plan.LoadConfig{Keys: 12, Timeout: time.Minute, TTLMax: 1, Txn: 1}
	c.Mesh.BatchRequests, c.Mesh.InflightBatches, c.Mesh.Workers, c.Mesh.KeepEntries, c.Mesh.CommitEvery = 1024, 1, 1, 10_000, 5*time.Second
	return c
}

// TestEveryConfigurationAnswersAlike: the same requests, one after the other, get the same
// answers whatever the sizes of batches, the number of workers, the length of the log that
// is kept, and how often the store commits; whether segments are cut, merged, led from
// elsewhere, killed and sent snapshots between them, or nothing happens.
func TestEveryConfigurationAnswersAlike(t *testing.T) {
	const seed = 3
	ops := script(seed, 120)
	want, _, err := play(steady(seed), ops, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []scenario{
		{"small_batches", func(c *plan.Config) { c.Mesh.BatchRequests, c.Mesh.InflightBatches = 1, 4 }, func(s witness.Stats) bool { return s.Kills > 0 }},
		{"short_logs", func(c *plan.Config) { c.Mesh.KeepEntries, c.Mesh.CommitEvery = 0, 20*time.Millisecond }, func(s witness.Stats) bool { return s.Snapshots > 2 }},
		{"cut_and_merged", func(c *plan.Config) { c.Mesh.SplitsMax, c.Mesh.Window, c.Mesh.Workers = 12, 2, 3 },
			func(s witness.Stats) bool { return s.Splits > 3 && s.Merges > 0 }},
		{"all", func(c *plan.Config) {
			c.Mesh.BatchRequests, c.Mesh.InflightBatches, c.Mesh.Workers, c.Mesh.SplitsMax = 1, 4, 2, 12
			c.Mesh.KeepEntries, c.Mesh.CommitEvery, c.Mesh.SleepTicks, c.Mesh.Stall = 0, 200*time.Millisecond, 5, 0.05
		}, func(s witness.Stats) bool { return s.Splits > 3 && s.Slept > 3 }},
	} {
		t.Run(s.name, func(t *testing.T) {
			cfg := steady(seed)
			s.with(&cfg)
			got, stats, err := play(cfg, ops, true)
			if err == nil {
				err = differs(want, ops, got)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !s.shown(stats) {
				t.Errorf("the schedule did not come about: %+v", stats)
			}
		})
	}
	t.Run("planted", func(t *testing.T) {
		cfg := steady(seed)
		cfg.Plant, cfg.Mesh.Stall = plan.PlantStaleRead, 0.05
		got, _, err := play(cfg, ops, true)
		if err != nil {
			t.Fatal(err)
		}
		if err := differs(want, ops, got); !errors.Is(err, errOther) {
			t.Errorf("reads that are stale gave no other answer: %v", err)
		}
	})
}
