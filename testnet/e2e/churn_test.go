package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var (
	churnRounds = flag.Int("scope-rounds", 2, "changes of scopes while nodes are killed")
	churnSeed   = flag.Uint64("scope-seed", 0, "what changes, and who is killed when; 0: another one each time")
)

// Scopes are made, amended and deleted through any node while nodes, at times all of them,
// are killed and started again in the middle of it. What a command said is done stays
// done; what it did not know is as it was or as it was asked for; everything begun ends by
// itself, and votes and weights can be counted again.
func TestScopesWhileNodesAreKilled(t *testing.T) {
	seed := *churnSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d", seed)
	c := &churn{lab: labMesh(t, 3), rng: rand.New(rand.NewPCG(seed, 1)), has: make(map[string]int)}
	c.clock = c.dial()
	for round := range *churnRounds {
		c.change(round)
	}
	t.Logf("%d changes, %d of them told as done, %d kills", *churnRounds, c.done, c.kills)
	c.eventually(60*time.Second, "a whole mesh", c.proved)
	for prefix, keys := range c.has {
		if keys == 0 {
			prefix = "" // it is gone: its votes were those of the scope around it
		}
		c.eventually(30*time.Second, "a replay", func() error {
			_, errs, status := c.cli("trust", prefix, "--replay", "--endpoint", c.nodes[0].client)
			if status != 0 {
				return errors.New(errs)
			}
			return nil
		})
	}
}

// churn knows what each scope must be: its quota of keys, 0 if there is none.
type churn struct {
	*lab
	rng         *rand.Rand
	has         map[string]int
	clock       *clientv3.Client
	done, kills int
}

// change has one scope changed and nodes killed meanwhile.
func (c *churn) change(round int) {
	c.t.Helper()
	prefix := fmt.Sprintf("s%d/", c.rng.IntN(3))
	was, next := c.has[prefix], 1+round
	if was > 0 && c.rng.IntN(3) == 0 {
		next = 0
	}
	args := []string{"set", prefix, "--wait", "20s"}
	switch {
	case next == 0:
		args[0] = "delete"
	case was == 0:
		args[0] = "create"
	}
	if next > 0 {
		args = append(args, "-f", c.document(fmt.Sprintf("%d.yaml", next), fmt.Sprintf("quota: {keys: %d}\n", next)))
	}
	by := c.nodes[c.rng.IntN(len(c.nodes))]
	told := make(chan error, 1)
	go func() {
		_, err := c.scope(by, args...)
		told <- err
	}()
	c.kill()
	err := <-told
	may := []int{next}
	if err != nil {
		may = append(may, was)
	} else {
		c.done++
	}
	var now int
	c.eventually(60*time.Second, fmt.Sprintf("end of round %d: %s %s", round, args[0], prefix), func() (err error) {
		now, err = c.settled(c.nodes[round%len(c.nodes)], prefix)
		return err
	})
	if !slices.Contains(may, now) {
		c.t.Fatalf("round %d: %s of %s: a quota of %d, may be %v; the command said %v", round, args[0], prefix, now, may, err)
	}
	c.has[prefix] = now
}

// kill kills one node, or all, once clients have come so far, and starts them again.
func (c *churn) kill() {
	victims := []*labNode{c.nodes[c.rng.IntN(len(c.nodes))]}
	if c.rng.IntN(5) == 0 {
		victims = c.nodes
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
	defer cancel()
	for range c.rng.IntN(60) {
		_, _ = c.clock.Put(ctx, "clock", "v") // what it takes is the pause
	}
	for _, n := range victims {
		n.kill()
		c.kills++
	}
	for _, n := range victims {
		n.start()
	}
}

// settled returns a scope's quota of keys, 0 if there is none, once nothing is under way with
// it.
func (c *churn) settled(by *labNode, prefix string) (keys int, err error) {
	for _, p := range []string{"", prefix} {
		out, err := c.scope(by, "show", p, "-o", "json")
		if err != nil {
			if p != "" && strings.Contains(err.Error(), "there is no scope") {
				return 0, nil
			}
			return 0, err
		}
		var shown struct {
			Version           uint64
			InForce           uint64 `json:"in_force"`
			Doing, Recovering any
			Open              []any
			Policy            struct{ Quota struct{ Keys int } }
		}
		if err := json.Unmarshal([]byte(out), &shown); err != nil {
			return 0, err
		}
		if shown.Doing != nil || shown.Recovering != nil || len(shown.Open) > 0 || shown.Version != shown.InForce {
			return 0, errors.New(out)
		}
		keys = shown.Policy.Quota.Keys
	}
	return keys, nil
}
