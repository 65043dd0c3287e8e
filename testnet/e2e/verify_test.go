package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

type verifyJSON struct {
	Nodes    int        `json:"nodes"`
	Segments int        `json:"segments"`
	Revision int64      `json:"revision"`
	Findings []struct{} `json:"findings"`
	Notes    []string   `json:"notes"`
}

// verify runs the command against one node, which names the others.
func (l *lab) verify(n *labNode, args ...string) (v verifyJSON, err error) {
	l.t.Helper()
	out, errs, code := l.cli(append([]string{"verify", "-o", "json", "--endpoint", n.client}, args...)...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return v, fmt.Errorf("status %d, %s: %w", code, errs, err)
	}
	if code != 0 || len(v.Findings) > 0 {
		return v, fmt.Errorf("status %d, %s: %s", code, errs, out)
	}
	return v, nil
}

// A mesh that is written to, split, and loses a node and gets it back, is found whole
// at any time: no false alarm. The lineage of every key leads to genesis, signed.
func TestVerifyWhileTheMeshLives(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	w := startCounters(ctx, l, 4)
	defer w.wait.Wait()
	defer cancel()
	for i, at := range []string{"count/50000", "count/20000", "count/70000", "count/20001"} {
		w.more(l, 20)
		l.split(at)
		v, err := l.verify(l.nodes[i])
		if err != nil {
			t.Fatalf("after the split at %s: %v", at, err)
		}
		if v.Nodes != 4 || v.Segments != i+2 {
			t.Errorf("after split %d: %+v", i+1, v)
		}
	}
	killed, asked := l.nodes[1], l.nodes[0]
	killed.kill()
	w.more(l, 20)
	v, err := l.verify(asked)
	if err != nil || v.Nodes != 3 || !strings.Contains(strings.Join(v.Notes, "\n"), killed.name) {
		t.Errorf("with %s gone: %+v, %v", killed.name, v, err)
	}
	killed.start()
	w.more(l, 20)
	l.eventually(30*time.Second, killed.name+" to be asked", func() error {
		v, err := l.verify(asked)
		if err == nil && v.Nodes != 4 {
			err = fmt.Errorf("%+v", v)
		}
		return err
	})
	checkLineages(t, l)
	checkHashes(ctx, t, l)
}

// checkLineages follows the last key's segment down from every node.
func checkLineages(t *testing.T, l *lab) {
	t.Helper()
	type lineageJSON struct {
		Decisions []struct {
			Kind       string `json:"kind"`
			Signatures int    `json:"signatures"`
		} `json:"decisions"`
		Complete bool `json:"complete"`
	}
	for _, n := range l.nodes {
		l.eventually(20*time.Second, "the lineage of a key, signed", func() error {
			out, errs, code := l.cli("lineage", "count/99999", "-o", "json", "--endpoint", n.client)
			var v lineageJSON
			if err := json.Unmarshal([]byte(out), &v); err != nil || code != 0 {
				return fmt.Errorf("%s: status %d, %s", n.name, code, errs)
			}
			if !v.Complete || len(v.Decisions) < 5 || v.Decisions[0].Kind != "genesis" || v.Decisions[len(v.Decisions)-1].Kind != "split" {
				return fmt.Errorf("%s: %s", n.name, out)
			}
			for _, d := range v.Decisions {
				if d.Signatures == 0 {
					return fmt.Errorf("%s: a %s is not signed: %s", n.name, d.Kind, out)
				}
			}
			return nil
		})
	}
}

// checkHashes: HashKV of a scope of several segments is the same on all nodes, before
// and after a compaction.
func checkHashes(ctx context.Context, t *testing.T, l *lab) {
	t.Helper()
	got, err := l.dial().Get(ctx, "count/", clientv3.WithPrefix(), clientv3.WithLimit(1))
	must(t, err)
	at := got.Header.Revision
	same := func(when string) string {
		t.Helper()
		first := ""
		for _, n := range l.nodes {
			c := l.dial(n)
			h, err := c.HashKV(ctx, c.Endpoints()[0], at)
			must(t, err)
			text := fmt.Sprintf("%08x of %d, compacted %d", h.Hash, h.HashRevision, h.CompactRevision)
			if first == "" {
				first = text
			}
			if text != first {
				t.Errorf("%s %s answers %s, %s answered %s", when, n.name, text, l.nodes[0].name, first)
			}
		}
		return first
	}
	before := same("at first")
	_, err = l.dial().Compact(ctx, at-10)
	must(t, err)
	if after := same("after a compaction"); after == before {
		t.Errorf("the compaction is not seen: %s", after)
	}
}
