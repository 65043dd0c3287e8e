package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// scopes runs `anchormesh scope` against a node; what it says if it fails.
func (l *lab) scope(n *labNode, args ...string) (string, error) {
	out, errs, code := l.cli(append([]string{"scope"}, append(args, "--endpoint", n.client)...)...)
	if code != 0 {
		return out, fmt.Errorf("scope %q: status %d: %s", args, code, errs)
	}
	return out, nil
}

func (l *lab) mustScope(n *labNode, args ...string) string {
	l.t.Helper()
	out, err := l.scope(n, args...)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

func (l *lab) document(name, text string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

// The life of a scope, through the program and any node: looked at beforehand,
// created, changed while clients write, its history read and an old policy set again,
// deleted; and the rules hold for etcd's clients meanwhile.
func TestScopesOnTheCommandLine(t *testing.T) {
	l := labMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := l.dial()
	for i := range 40 {
		if _, err := c.Put(ctx, fmt.Sprintf("/%c/%02d", "aps"[i%3], i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	writes := l.document("writes.yaml", "writes:\n  value_bytes_max: 4\n  rules:\n    - {name: lower, expr: 'deleted || !key.contains(\"X\")'}\n")

	var dry struct {
		Would    string
		Keys     uint64
		Watchers uint64
		Cuts     []any
		Changes  []struct{ Field, New string }
	}
	events := c.Watch(ctx, "/p/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-events
	decode(t, l.mustScope(l.nodes[1], "dry-run", "/p/", "-f", writes, "-o", "json"), &dry)
	if dry.Would != "create" || dry.Keys != 13 || len(dry.Cuts) != 2 || dry.Watchers == 0 || len(dry.Changes) != 2 {
		t.Errorf("dry run: %+v", dry)
	}
	stop := l.keepWriting(ctx, "/p/live")
	l.mustScope(l.nodes[1], "create", "/p/", "-f", writes)
	for key, want := range map[string]string{"/p/long": "value_bytes_max", "/p/X": "rule lower"} {
		if _, err := c.Put(ctx, key, strings.Repeat("v", len(key)-2)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a put of %s: %v", key, err)
		}
	}
	if out := l.mustScope(l.nodes[2], "list"); !strings.Contains(out, `"/p/"`) {
		t.Errorf("listed are\n%s", out)
	}
	l.mustScope(l.nodes[2], "set", "/p/", "--preset", "standard", "--expect", "1")
	if _, err := c.Put(ctx, "/p/long", "longer"); err != nil {
		t.Error(err)
	}
	var history struct {
		Versions []struct{ Version, Approved uint64 }
		Endings  []struct{ Outcome string }
	}
	decode(t, l.mustScope(l.nodes[0], "history", "/p/", "-o", "json"), &history)
	if len(history.Versions) != 2 || history.Versions[1].Version != 2 || history.Versions[1].Approved == 0 || len(history.Endings) != 1 {
		t.Errorf("history: %+v", history)
	}
	first := l.document("first.yaml", l.mustScope(l.nodes[0], "history", "/p/", "--version", "1"))
	l.mustScope(l.nodes[0], "set", "/p/", "-f", first)
	if shown := l.mustScope(l.nodes[1], "show", "/p/", "--policy"); !strings.Contains(shown, "value_bytes_max: 4") {
		t.Errorf("shown is\n%s", shown)
	}
	if out, errs, code := l.cli("trust", "/p/", "--endpoint", l.nodes[1].client); code != 0 || strings.Count(out, "\n") != 4 {
		t.Errorf("trust: status %d\n%s%s", code, out, errs)
	}
	l.mustScope(l.nodes[2], "delete", "/p/")
	if _, err := l.scope(l.nodes[0], "show", "/p/"); err == nil || !strings.Contains(err.Error(), `there is no scope "/p/"`) {
		t.Errorf("the deleted scope: %v", err)
	}
	stop()
	t.Run("by hand", func(t *testing.T) { scopesByHand(t, l) })
	t.Run("wrong", func(t *testing.T) { badScopes(t, l) })
	if got, err := c.Get(ctx, "/", clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || got.Count != 42 {
		t.Errorf("%v keys, %v", got, err)
	}
}

// scopesByHand walks through a scope in which operators vote: each vote is that of the
// nodes that it is sent to.
func scopesByHand(t *testing.T, l *lab) {
	n := l.nodes
	l.mustScope(n[0], "create", "/hand/", "-f", l.document("hand.yaml", "amend: {manual: true}\n"))
	propose := func(priority int) {
		t.Helper()
		policy := l.document("next.yaml", fmt.Sprintf("amend: {manual: true}\npriority: %d\n", priority))
		l.mustScope(n[priority%3], "set", "/hand/", "-f", policy, "--wait", "0")
	}
	open := func() (out struct {
		Proposals []struct {
			Approved, Needed, Total uint64
			Waiting                 []string
		}
	}) {
		t.Helper()
		decode(t, l.mustScope(n[2], "proposals", "/hand/", "-o", "json"), &out)
		return out
	}
	vote := func(by *labNode, args ...string) string {
		t.Helper()
		return l.mustScope(by, append([]string{"vote", "/hand/"}, args...)...)
	}
	propose(7)
	if out := vote(n[0], "1", "--approve"); strings.Count(out, "approves proposal 1") != 1 {
		t.Errorf("one vote:\n%s", out)
	}
	if p := open().Proposals; len(p) != 1 || p[0].Approved == 0 || p[0].Approved >= p[0].Needed || len(p[0].Waiting) != 2 {
		t.Errorf("after one vote: %+v", p)
	}
	vote(n[1], "1", "--approve")
	propose(8)
	l.mustScope(n[0], "withdraw", "/hand/", "2")
	propose(9)
	both := n[0].client + "," + n[1].client
	if out, errs, _ := l.cli("scope", "vote", "/hand/", "3", "--refuse", "--why", "not today", "--endpoints", both); strings.Count(out, "refuses proposal 3") != 2 {
		t.Errorf("two votes:\n%s%s", out, errs)
	}
	var history struct {
		Endings []struct{ Outcome, Note string }
	}
	decode(t, l.mustScope(n[1], "history", "/hand/", "-o", "json"), &history)
	var ends []string
	for _, e := range history.Endings {
		ends = append(ends, e.Outcome)
	}
	if got := strings.Join(ends, " "); got != "decided withdrawn refused" || !strings.Contains(history.Endings[2].Note, "not today") {
		t.Errorf("endings: %+v", history.Endings)
	}
	if shown := l.mustScope(n[0], "show", "/hand/", "--policy"); !strings.Contains(shown, "priority: 7") {
		t.Errorf("shown is\n%s", shown)
	}
	if out, errs, code := l.cli("trust", "/hand/", "--replay", "--endpoint", n[2].client); code != 0 || strings.Count(out, "the same") != 2 {
		t.Errorf("replay: status %d\n%s%s", code, out, errs)
	}
}

// keepWriting puts one key again and again until it is stopped: no put may fail for
// long, and none that was acknowledged may be lost.
func (l *lab) keepWriting(ctx context.Context, key string) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	c := l.dial()
	acked, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for i, since := 1, time.Now(); ctx.Err() == nil; {
			one, cancel := context.WithTimeout(ctx, 5*time.Second)
			_, err := c.Put(one, key, fmt.Sprint(i%1000))
			cancel()
			switch {
			case err == nil:
				acked, since, i = i, time.Now(), i+1
			case ctx.Err() == nil && time.Since(since) > 20*time.Second:
				l.t.Errorf("a writer is stuck: %v", err)
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
		got, err := l.dial().Get(l.t.Context(), key)
		switch {
		case err != nil || len(got.Kvs) != 1:
			l.t.Errorf("%v, %v", got, err)
		case !slices.Contains([]string{fmt.Sprint(acked % 1000), fmt.Sprint((acked + 1) % 1000)}, string(got.Kvs[0].Value)): // the last one's outcome is not known
			l.t.Errorf("%s is %s, acknowledged was %d", key, got.Kvs[0].Value, acked)
		case acked < 10:
			l.t.Errorf("only %d writes were acknowledged", acked)
		}
	}
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
}

// badScopes: what is wrong is refused with one clear sentence, and nothing has changed.
func badScopes(t *testing.T, l *lab) {
	n := l.nodes[0]
	bad := l.document("bad.yaml", "class: strong\nacks: {count: 2}\ncolour: red\n")
	rule := l.document("rule.yaml", "writes: {rules: [{name: odd, expr: 'now() > 3'}]}\n")
	small := l.document("small.yaml", "binding: [quota.keys]\nquota: {keys: 10}\n")
	l.mustScope(n, "create", "/a/", "-f", small)
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"create", "/b/"}, 2, "which policy?"},
		{[]string{"create", "/b/", "-f", bad}, 2, bad + `: line 3: colour: there is no such field`},
		{[]string{"create", "/b/", "-f", filepath.Join(l.dir, "nowhere")}, 2, "no such file"},
		{[]string{"create", "/b/", "-f", rule}, 1, `line 1: writes.rules[0].expr: rule "odd" does not compile`},
		{[]string{"create", "/b/", "--preset", "best"}, 2, `there is no "best"`},
		{[]string{"create", "/a/", "--preset", "standard"}, 1, `scope "/a/" exists already`},
		{[]string{"create", "/a/b/", "--preset", "standard"}, 1, "quota.keys: unbounded is laxer than 10"},
		{[]string{"set", "/b/", "--preset", "standard"}, 1, `there is no scope "/b/"`},
		{[]string{"set", "/a/", "--preset", "standard", "--expect", "9"}, 1, `the newest version of scope "/a/" is 1, not 9`},
		{[]string{"set", "", "--preset", "ephemeral"}, 2, "the root scope cannot be light"},
		{[]string{"delete", ""}, 1, "the root scope cannot be deleted"},
		{[]string{"delete", "/b/"}, 1, `there is no scope "/b/"`},
		{[]string{"vote", "/a/", "9", "--approve"}, 1, "9"},
		{[]string{"recover", "00000000000000ff", n.name}, 1, "no such segment"},
		{[]string{"show", strings.Repeat("x", 2000)}, 1, "there is no scope"},
	} {
		out, errs, code := l.cli(append(append([]string{"scope"}, c.args...), "--endpoint", n.client)...)
		first, _, _ := strings.Cut(errs, "\n")
		if code != c.code || out != "" || !strings.Contains(first, c.says) {
			t.Errorf("scope %.60q: status %d, want %d and %q\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
	}
	if out := l.mustScope(n, "list"); strings.Count(out, "\n") != 4 {
		t.Errorf("the scopes are\n%s", out)
	}
}
