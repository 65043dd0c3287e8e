package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var everyStep = flag.Bool("every-step", false, "crash at every step of scopes and transactions: minutes")

// steps are the failpoints of scopes and of transactions over several segments.
var steps = []string{
	"txn/before-prepare", "txn/after-prepare", "txn/before-decide", "txn/after-decide", "txn/before-commit", "txn/after-commit", "txn/before-forget", "txn/after-forget",
	"scope/before-propose", "scope/after-propose", "scope/before-vote", "scope/after-vote", "scope/before-adopt", "scope/after-adopt",
	"scope/before-in-force", "scope/after-in-force", "scope/before-finish", "scope/after-finish",
	"line/before-turn", "line/after-turn", "line/before-begin", "line/after-begin", "line/before-switch", "line/after-switch", "line/before-settle", "line/after-settle",
}

// A node kills itself at a step of a scope's life, of a hand-over of its line, or of a
// transaction: the others go on, what was begun ends by itself, no transaction is seen
// half done, and verify finds nothing, then and after the node is back.
func TestCrashAtEveryStepOfAScope(t *testing.T) {
	if !*everyStep {
		t.Skip("takes minutes: -args -every-step, which make soak gives")
	}
	l := newFailpointLab(t)
	l.split("m")
	s := &stepper{lab: l, own: l.document("own.yaml", "line: own\n"), shared: l.document("shared.yaml", "quota: {keys: 1000}\n")}
	for i, step := range steps {
		s.crashAt(i, step)
	}
	l.eventually(60*time.Second, "a whole mesh", l.proved)
}

// stepper does to scopes and keys what can be done.
type stepper struct {
	*lab
	own, shared string // documents
	pairs       int
}

func (s *stepper) crashAt(i int, step string) {
	s.t.Helper()
	victim, other := s.nodes[i%len(s.nodes)], s.nodes[(i+1)%len(s.nodes)]
	victim.stop()
	victim.env = []string{"ANCHORMESH_FAILPOINTS=" + step + "=crash"}
	victim.start()
	prefix := fmt.Sprintf("scope%02d/", i)
	ctx, stop := context.WithTimeout(s.t.Context(), 60*time.Second)
	defer stop()
	for round := 0; victim.running(); round++ {
		if ctx.Err() != nil {
			s.t.Fatalf("%s was not reached", step)
		}
		s.pair(other)
		s.live(other, prefix, round)
	}
	began := time.Now()
	for _, n := range s.nodes {
		if n != victim {
			s.eventually(10*time.Second, "writes everywhere", func() error {
				return errors.Join(s.put(n, "a"), s.put(n, prefix+"k"), s.put(n, "z"), s.pair(n))
			})
		}
	}
	s.t.Logf("%s: written everywhere %v after the end of %s", step, time.Since(began).Round(time.Millisecond), victim.name)
	victim.env = nil
	victim.start()
	s.eventually(30*time.Second, "the victim to serve again", func() error { return errors.Join(s.put(victim, prefix+"k"), s.whole(victim)) })
	s.eventually(60*time.Second, "the end of what was begun", func() error { return s.settled(other, prefix) })
}

// settled says what is under way with a scope.
func (s *stepper) settled(by *labNode, prefix string) error {
	out, err := s.scope(by, "show", prefix, "-o", "json")
	if err != nil {
		if strings.Contains(err.Error(), "there is no scope") {
			return nil
		}
		return err
	}
	var shown struct {
		Version uint64
		InForce uint64 `json:"in_force"`
		Doing   any
	}
	if err := json.Unmarshal([]byte(out), &shown); err != nil {
		return err
	}
	if shown.Doing != nil || shown.Version != shown.InForce {
		return errors.New(out)
	}
	return nil
}

// live takes a scope one step on in its life.
func (s *stepper) live(by *labNode, prefix string, round int) {
	at := []string{"--wait", "4s", "--endpoint", by.client}
	switch round % 3 {
	case 0:
		s.cli(append([]string{"scope", "create", prefix, "-f", s.own}, at...)...)
	case 1:
		s.cli(append([]string{"scope", "set", prefix, "-f", s.shared}, at...)...)
	case 2:
		s.cli(append([]string{"scope", "delete", prefix}, at...)...)
	}
}

// pair writes one number into two keys that lie in two segments, at once.
func (s *stepper) pair(n *labNode) error {
	c := s.dial(n)
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Second)
	defer cancel()
	s.pairs++
	number := fmt.Sprint(s.pairs)
	_, err := c.Txn(ctx).Then(clientv3.OpPut("pair/a", number), clientv3.OpPut("zpair/b", number)).Commit()
	return err
}

// whole says what is wrong if only half of a transaction is to be seen.
func (s *stepper) whole(n *labNode) error {
	c := s.dial(n)
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 3*time.Second)
	defer cancel()
	got, err := c.Txn(ctx).Then(clientv3.OpGet("pair/a"), clientv3.OpGet("zpair/b")).Commit()
	if err != nil {
		return err
	}
	a, b := got.Responses[0].GetResponseRange().GetKvs(), got.Responses[1].GetResponseRange().GetKvs()
	if len(a) != 1 || len(b) != 1 || string(a[0].GetValue()) != string(b[0].GetValue()) || a[0].GetModRevision() != b[0].GetModRevision() {
		s.t.Fatalf("half of a transaction: %v beside %v", a, b)
	}
	return nil
}

// While a group grows from three anchors to five, each step of it stretched by a failpoint,
// no scope is made of its segment's keys: refused because an anchor learns, then because
// the configuration is joint. Whoever asks again gets the scope when the group is whole.
func TestNoScopeWhileAGroupChanges(t *testing.T) {
	if !*everyStep {
		t.Skip("builds a program of its own: -args -every-step, which make soak gives")
	}
	l := newFailpointLab(t, "anchors/after-change=sleep(700ms)")
	for range 2 {
		n := l.add()
		n.env = l.nodes[0].env
		n.start()
	}
	l.awaitVoters(3)
	s, err := l.nodes[0].segment()
	must(t, err)
	l.mustScope(l.nodes[0], "set", "", "-f", l.document("five.yaml", "anchors: {count: 5}\n"), "--wait", "0")
	l.eventually(20*time.Second, "a learner", func() error {
		s, err := l.nodes[0].segment()
		if err == nil && len(s.voters()) == len(s.Anchors) {
			err = fmt.Errorf("anchors %+v", s.Anchors)
		}
		return err
	})
	document, said := l.document("inner.yaml", "priority: 7\n"), ""
	l.eventually(60*time.Second, "the scope", func() error {
		_, err := l.scope(l.nodes[1], "create", "inner/", "-f", document, "--wait", "0")
		if err != nil {
			said += err.Error()
		}
		return err
	})
	for _, why := range []string{"an anchor of segment " + s.ID + `, which holds keys of "inner/", is still learning`, "the anchor group of segment " + s.ID + `, which holds keys of "inner/", is changing`} {
		if !strings.Contains(said, why) {
			t.Errorf("nobody was told %q, but\n%s", why, said)
		}
	}
	l.eventually(30*time.Second, "the scope in force", func() error {
		out, err := l.scope(l.nodes[2], "show", "inner/")
		if err == nil && !strings.Contains(out, "1 (in force)") {
			err = errors.New(out)
		}
		return err
	})
	l.eventually(30*time.Second, "a whole mesh", l.proved)
}
