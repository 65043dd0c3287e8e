package pulse_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/pulse"
)

const segment anchormesh.SegmentID = 9

// config is that of a pulse whose group is well, and which splits nothing.
func config(log *testkit.Log) pulse.Config {
	return pulse.Config{
		Judge: entropy.DefaultConfig(), Window: 5 * time.Second, Asleep: time.Minute, Logger: slog.New(slog.NewTextHandler(log, nil)),
		Group: func(anchormesh.SegmentID) (degraded, changing bool) { return false, false },
		Alone: func() bool { return false },
		Birth: func(*host.Replica) entropy.Birth { return entropy.Birth{} },
		Split: func(context.Context, anchormesh.SegmentID, entropy.Decision) error { return errors.New("not here") },
		Gone:  func(anchormesh.SegmentID) {},
	}
}

// start runs a node with a segment and its pulse.
func start(t *testing.T, log *testkit.Log) (*hosttest.Node, *pulse.Pulse) {
	t.Helper()
	n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
	if err := n.Host.Genesis(7, segment, "", 3); err != nil {
		t.Fatal(err)
	}
	n.Put(segment, "k", "v")
	p := pulse.New(config(log), n.Host, n.Engine)
	ctx, stop := context.WithCancel(t.Context())
	t.Cleanup(stop)
	go p.Run(ctx)
	return n, p
}

// What the data path counted in a window comes out as a rate, and is counted once.
func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, p := start(t, new(testkit.Log))
		if _, ok := p.Last(segment); ok {
			t.Error("there is a judgement before the first window ended")
		}
		r, _ := n.Host.Get(segment)
		var busy, quiet pulse.Reading
		for range 120 { // ten minutes: longer than the memory of the averages, for a group that sleeps, too
			for i := range 500 {
				r.Meter.Write(fmt.Appendf(nil, "w%d", i), 10)
				if i%5 == 0 {
					r.Meter.Read([]byte("r"), 30)
				}
			}
			time.Sleep(5 * time.Second)
		}
		synctest.Wait()
		busy, _ = p.Last(segment)
		if w := busy.Numbers.WritesPerSec; w < 90 || w > 110 {
			t.Errorf("%d writes per second, 100 were counted", w)
		}
		if w := busy.Numbers.ReadsPerSec; w < 18 || w > 22 {
			t.Errorf("%d reads per second, 20 were counted", w)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if quiet, _ = p.Last(segment); quiet.Numbers.WritesPerSec != 0 || quiet.Numbers.Pressure >= busy.Numbers.Pressure {
			t.Errorf("after ten quiet minutes %+v, before %+v", quiet.Numbers, busy.Numbers)
		}
	})
}

// load writes so much more to all of 64 keys that a split is decided.
func load(n *hosttest.Node, r *host.Replica, windows int) {
	for i := range windows {
		for j := range 60_000 {
			r.Meter.Write(fmt.Appendf(nil, "k%02d", j%64), 100)
		}
		for range 5 {
			n.Put(segment, fmt.Sprintf("k%02d", i%64), "v") // it does not sleep
			time.Sleep(time.Second)
		}
	}
}

// A split that the load asks for is handed over with its key and numbers, once at a
// time; not while the group is degraded, changing or alone.
func TestSplitsAreHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
		if err := n.Host.Genesis(7, segment, "", 3); err != nil {
			t.Fatal(err)
		}
		n.Put(segment, "k", "v")
		var degraded, alone atomic.Bool
		var asked, under atomic.Int64
		degraded.Store(true)
		cfg := config(new(testkit.Log))
		cfg.Judge.SplitAfter, cfg.Judge.MinAge = 10*time.Second, 10*time.Second
		cfg.Group = func(anchormesh.SegmentID) (bool, bool) { return degraded.Load(), false }
		cfg.Alone = alone.Load
		cfg.Split = func(ctx context.Context, id anchormesh.SegmentID, d entropy.Decision) error {
			if under.Add(1) > 1 {
				t.Error("two splits at once")
			}
			defer under.Add(-1)
			asked.Add(1)
			if id != segment || len(d.At) == 0 || d.Numbers.Load < 1000 {
				t.Errorf("segment %s: %+v", id, d)
			}
			<-ctx.Done()
			return ctx.Err()
		}
		p := pulse.New(cfg, n.Host, n.Engine)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go p.Run(ctx)
		r, _ := n.Host.Get(segment)
		load(n, r, 12)
		if d, _ := p.Last(segment); asked.Load() != 0 || d.Action != entropy.None || !strings.Contains(d.Reason, "anchor") {
			t.Errorf("degraded: %d splits, %+v", asked.Load(), d)
		}
		degraded.Store(false)
		alone.Store(true)
		load(n, r, 6)
		if d, _ := p.Last(segment); asked.Load() != 0 || !strings.Contains(d.Reason, "another node") {
			t.Errorf("alone: %d splits, %+v", asked.Load(), d)
		}
		alone.Store(false)
		load(n, r, 6)
		if asked.Load() == 0 {
			d, _ := p.Last(segment)
			t.Errorf("no split was asked for: %+v", d)
		}
	})
}

// Where operators vote on structure a split that the load asks for is advice: it is shown
// with the reason, logged once, and never tried.
func TestWhereOperatorsVoteASplitIsAdvice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
		if err := n.Host.Genesis(7, segment, "", 3); err != nil {
			t.Fatal(err)
		}
		n.Put(segment, "k", "v")
		n.Govern(segment, &policy.Policy{Anchors: policy.Anchors{Count: 3}, Amend: policy.Amend{Manual: true}})
		log := new(testkit.Log)
		cfg := config(log)
		cfg.Judge.SplitAfter, cfg.Judge.MinAge = 10*time.Second, 10*time.Second
		var asked atomic.Int64
		cfg.Split = func(context.Context, anchormesh.SegmentID, entropy.Decision) error { asked.Add(1); return nil }
		p := pulse.New(cfg, n.Host, n.Engine)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go p.Run(ctx)
		r, _ := n.Host.Get(segment)
		load(n, r, 12)
		d, _ := p.Last(segment)
		if asked.Load() != 0 || d.Action != entropy.Split || !d.Advice || !strings.Contains(d.Reason, "operators vote") {
			t.Errorf("%d splits were tried: %+v", asked.Load(), d)
		}
		if got := strings.Count(log.String(), "action=split"); got != 1 || strings.Contains(log.String(), "WARN") {
			t.Errorf("%d lines about it:\n%s", got, log.String())
		}
		n.Govern(segment, &policy.Policy{Anchors: policy.Anchors{Count: 3}})
		load(n, r, 2)
		if asked.Load() == 0 {
			t.Error("nothing is split now that nobody votes by hand")
		}
	})
}

// A segment that keeps too much is cut at its middle, which is looked for when the
// judge wants it.
func TestFullSegmentsAreCutAtTheirMiddle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
		if err := n.Host.Genesis(7, segment, "", 3); err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			n.Put(segment, fmt.Sprintf("k%03d", i), "v")
		}
		cut := make(chan string, 1)
		cfg := config(new(testkit.Log))
		cfg.Judge.Thresholds.Keys, cfg.Judge.MinAge = 100, 10*time.Second
		cfg.Split = func(_ context.Context, _ anchormesh.SegmentID, d entropy.Decision) error {
			if d.Cause != entropy.ByKeys || d.Numbers.Keys != 200 {
				t.Errorf("%+v", d)
			}
			select {
			case cut <- string(d.At):
			default:
			}
			return nil
		}
		p := pulse.New(cfg, n.Host, n.Engine)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go p.Run(ctx)
		time.Sleep(5 * time.Minute)
		select {
		case at := <-cut:
			if at < "k080" || at > "k120" {
				t.Errorf("cut at %q", at)
			}
		default:
			d, _ := p.Last(segment)
			t.Errorf("not cut: %+v", d)
		}
	})
}

// A change of the judgement is logged, once and with its reason.
func TestChangesAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(testkit.Log)
		n, p := start(t, log)
		r, _ := n.Host.Get(segment)
		for range 60 {
			for range 100_000 {
				r.Meter.Write([]byte("hot"), 100)
			}
			time.Sleep(5 * time.Second)
		}
		synctest.Wait()
		d, _ := p.Last(segment)
		if got := strings.Count(log.String(), fmt.Sprintf("action=%s", d.Action)); got != 1 || !strings.Contains(log.String(), "why=") {
			t.Errorf("%d lines about %s (%s):\n%s", got, d.Action, d.Reason, log.String())
		}
	})
}

// What was known of a replica ends with it.
func TestReplicasThatLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Int64
		n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
		if err := n.Host.Genesis(7, segment, "", 3); err != nil {
			t.Fatal(err)
		}
		cfg := config(new(testkit.Log))
		cfg.Gone = func(anchormesh.SegmentID) { gone.Add(1) }
		p := pulse.New(cfg, n.Host, n.Engine)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go p.Run(ctx)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if _, ok := p.Last(segment); !ok {
			t.Fatal("no judgement after a window")
		}
		if err := n.Host.Retire(segment, 1); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if d, ok := p.Last(segment); ok || gone.Load() != 1 {
			t.Errorf("a segment that left is still judged: %+v", d)
		}
	})
}
