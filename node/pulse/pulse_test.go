package pulse_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/pulse"
)

const segment anchormesh.SegmentID = 9

// start runs a node with a segment and its pulse.
func start(t *testing.T, log *testkit.Log) (*hosttest.Node, *pulse.Pulse) {
	t.Helper()
	n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
	if err := n.Host.Genesis(7, segment, "", 3); err != nil {
		t.Fatal(err)
	}
	n.Put(segment, "k", "v")
	p := pulse.New(entropy.DefaultConfig(), n.Host, slog.New(slog.NewTextHandler(log, nil)))
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
		var busy, quiet entropy.Decision
		for range 24 { // two minutes: longer than the memory of the averages
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
		n, p := start(t, new(testkit.Log))
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
		if d, ok := p.Last(segment); ok {
			t.Errorf("a segment that left is still judged: %+v", d)
		}
	})
}
