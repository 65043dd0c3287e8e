package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/binaries"
)

// phases are the failpoints of splits and merges, in the order in which they are hit.
var phases = []string{
	"split/before-apply", "split/after-apply", "split/before-commit", "split/before-birth", "split/before-run",
	"merge/before-open", "merge/after-open", "merge/before-freeze", "merge/after-freeze", "merge/before-confirm", "merge/noted",
	"merge/confirmed", "merge/before-absorb", "merge/after-absorb", "merge/before-commit", "merge/before-drop",
}

// A node kills itself at each step of a split and of a merge in turn: what was begun
// ends by itself, keys on both sides can be written within seconds, and verify finds
// nothing, then and after the node is back.
func TestCrashAtEveryPhase(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	l := newFailpointLab(t)
	l.split("c")
	for i, point := range phases {
		l.crashAt(i, point)
	}
	// Two of what TestPartitionAtEveryPhase does at length.
	l.partitionAt(len(phases), "merge/after-freeze", cutOff, true)
	l.partitionAt(len(phases)+1, "merge/before-absorb", deposed, true)
	l.eventually(30*time.Second, "a whole mesh", l.proved)
}

// crashAt has one of the nodes die at a step, while a split and a merge are asked for.
func (l *lab) crashAt(i int, point string) {
	l.t.Helper()
	victim := l.nodes[i%len(l.nodes)]
	victim.stop() // in order: what it replays at its start must not hit the point
	victim.env = []string{"ANCHORMESH_FAILPOINTS=" + point + "=crash"}
	victim.start()
	boundary := fmt.Sprintf("k/%02d", i)
	l.eventually(30*time.Second, "the victim to serve", func() error { return l.put(victim, boundary) })
	ctx, stop := context.WithTimeout(l.t.Context(), 60*time.Second)
	defer stop()
	for victim.running() {
		if ctx.Err() != nil {
			l.t.Fatalf("%s was not reached", point)
		}
		other := l.nodes[(i+1)%len(l.nodes)]
		l.cli("split", boundary, "--endpoint", other.client, "--timeout", "5s")
		l.mergeAt(other, boundary)
	}
	began := time.Now()
	for _, n := range l.nodes {
		if n != victim {
			l.eventually(10*time.Second, "writes on both sides of "+boundary, func() error {
				return errors.Join(l.put(n, "a"), l.put(n, boundary+"/x"))
			})
		}
	}
	l.t.Logf("%s: written on both sides %v after the end of %s", point, time.Since(began).Round(time.Millisecond), victim.name)
	victim.env = nil
	victim.start()
	l.eventually(30*time.Second, "the victim to serve again", func() error { return l.put(victim, boundary) })
	l.eventually(30*time.Second, "one segment less", func() error {
		if l.mergeAt(l.nodes[(i+1)%len(l.nodes)], boundary) {
			return nil
		}
		return errors.New("not merged")
	})
}

// mergeAt joins the segment that begins at a key with the one before it, and reports
// whether none begins there any more.
func (l *lab) mergeAt(by *labNode, boundary string) bool {
	return l.mergeUntil(l.t.Context(), by, boundary)
}

// mergeUntil is mergeAt for somebody whose patience ends with ctx.
func (l *lab) mergeUntil(ctx context.Context, by *labNode, boundary string) bool {
	out, _, code := l.cliUntil(ctx, "segments", "-o", "json", "--endpoint", by.client, "--timeout", "2s")
	var answer struct {
		Segments []struct {
			ID    string
			Start []byte
			End   []byte
		}
	}
	if code != 0 || json.Unmarshal([]byte(out), &answer) != nil {
		return false
	}
	left, right := "", ""
	for _, s := range answer.Segments {
		switch boundary {
		case string(s.Start):
			right = s.ID
		case string(s.End):
			left = s.ID
		}
	}
	if right == "" {
		return len(answer.Segments) > 0
	}
	_, _, code = l.cliUntil(ctx, "merge", left, right, "--endpoint", by.client, "--timeout", "10s")
	return code == 0
}

func (l *lab) put(n *labNode, key string) error {
	c := l.dial(n)
	defer c.Close()
	ctx, cancel := context.WithTimeout(l.t.Context(), 3*time.Second)
	defer cancel()
	_, err := c.Put(ctx, key, "v")
	return err
}

func (l *lab) proved() error {
	out, errs, code := l.cli("verify", "--endpoint", l.nodes[0].client)
	if code != 0 {
		return errors.New(out + errs)
	}
	return nil
}

// newFailpointLab returns three voters of a program that obeys failpoints, such as to kill
// itself; those that are given are so from the beginning and on all three.
func newFailpointLab(t *testing.T, points ...string) *lab {
	t.Helper()
	l := newLab(t)
	program, err := binaries.Failpoints(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.program = program
	for range 3 {
		n := l.add()
		if len(points) > 0 {
			n.env = []string{"ANCHORMESH_FAILPOINTS=" + strings.Join(points, ";")}
		}
		n.start()
	}
	l.awaitVoters(3)
	return l
}
