package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

var ownLoad = flag.Bool("own-load", false, "watch what a mesh decides about hot keys, edges and waves of load: minutes")

// Nodes whose waits are sixty times shorter see, of load far above a policy's threshold,
// one hot key, then keys that grow at one end: neither is split, and `anchormesh segments`
// says why. The same load over many keys is split; when it comes and goes, faster than the
// wait before a merge, the parts stay as they are.
func TestOnlyLoadThatASplitHelpsIsSplit(t *testing.T) {
	if !*ownLoad {
		t.Skip("takes minutes: -args -own-load, which make soak gives")
	}
	l := labMesh(t, 3, "--structure-haste=60")
	policy := l.document("touchy.yaml", "preset: standard\nstructure: {split_writes_per_second: 100, dormant_seconds: 30}\n")
	l.mustScope(l.nodes[0], "set", "", "-f", policy)
	var n atomic.Int64

	stop := l.writes(func() string { return "hot/key" })
	l.decided("cool shed", "one key")
	stop()
	stop = l.writes(func() string { return fmt.Sprintf("log/%012d", n.Add(1)) })
	l.decided("cool shed", "moving edge")
	stop()
	if got := l.changes("segment was split"); got != 0 {
		t.Fatalf("%d splits, want none: no split helps", got)
	}

	spread := func() string { return fmt.Sprintf("spread/%03d", n.Add(1)*7%1000) }
	stop = l.writes(spread)
	l.eventually(90*time.Second, "a split", func() error {
		if l.changes("segment was split") == 0 {
			return errors.New(l.table())
		}
		return nil
	})
	stop()
	for range 8 {
		stop = l.writes(spread)
		l.pass(5 * time.Second)
		stop()
		l.pass(5 * time.Second)
	}
	if splits, merges := l.changes("segment was split"), l.changes("segments were merged"); splits > 3 || merges > 0 {
		t.Errorf("%d splits and %d merges under waves of load, want 1 to 3 and none", splits, merges)
	}
	t.Logf("after the waves:\n%s", l.table())
}

// writes puts 200 keys per second, if the machine is fast enough, until stop.
func (l *lab) writes(key func() string) (stop func()) {
	ctx, cancel := context.WithCancel(l.t.Context())
	var writers sync.WaitGroup
	for range 20 {
		c := l.dial()
		writers.Go(func() {
			defer c.Close()
			for tick := time.NewTicker(100 * time.Millisecond); ctx.Err() == nil; <-tick.C {
				putWithin(ctx, c, key())
			}
		})
	}
	return func() {
		cancel()
		writers.Wait()
	}
}

// putWithin puts a key; what fails is load that did not come about.
func putWithin(ctx context.Context, c *clientv3.Client, key string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, _ = c.Put(ctx, key, "v")
}

// decided waits until the only segment's leader shows one of some decisions for a reason.
func (l *lab) decided(actions, reason string) {
	l.t.Helper()
	l.eventually(90*time.Second, "the decision "+actions+": "+reason, func() error {
		for _, n := range l.nodes {
			out, _, code := l.cli("segments", "-o", "json", "--endpoint", n.client)
			var answer struct {
				Segments []struct{ Decision, Reason string }
			}
			if code != 0 || json.Unmarshal([]byte(out), &answer) != nil || len(answer.Segments) != 1 {
				continue
			}
			if s := answer.Segments[0]; s.Decision != "" && strings.Contains(actions, s.Decision) && strings.Contains(s.Reason, reason) {
				l.t.Logf("%s: %s", s.Decision, s.Reason)
				return nil
			}
		}
		return errors.New(l.table())
	})
}

// changes counts a line in the log of the first node, which has every replica.
func (l *lab) changes(line string) int { return strings.Count(l.nodes[0].run.output.String(), line) }

// table is what all nodes say of the segments.
func (l *lab) table() (all string) {
	for _, n := range l.nodes {
		out, errs, _ := l.cli("segments", "--endpoint", n.client)
		all += out + errs
	}
	return all
}

// pass lets time pass.
func (l *lab) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-l.t.Context().Done():
	}
}
