package segments

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

// Neighbour asks what a steady probe of one prefix feels while another is flooded.
type Neighbour struct {
	Config        // Clients flood
	Probe     int // puts per second, and as many gets
	FloodRate int // puts per second; 0: as fast as it goes
	Etcd      bool
}

// neighbourAim is the largest p99 under flood over that at rest that is good.
const neighbourAim = 1.3

// The prefixes. In "two segments" the cut is between them; the probe's is the left
// one, the home of revisions, but for "probe right".
const (
	quietLeft, floodRight = "neighbour/a/", "neighbour/b/"
	floodLeft, quietRight = "neighbour/0/", "neighbour/b/"
)

// neighbourSide is one layout under comparison.
type neighbourSide struct {
	name         string
	kind         cluster.Kind
	quiet, flood string
	cut          string // "" for none
}

func (s neighbourSide) String() string { return s.name }

func (b Neighbour) sides() []neighbourSide {
	out := []neighbourSide{
		{"mesh, one segment", cluster.Mesh, quietLeft, floodRight, ""},
		{"mesh, two segments", cluster.Mesh, quietLeft, floodRight, floodRight},
		{"mesh, two, flood at home", cluster.Mesh, quietRight, floodLeft, quietRight},
	}
	if b.Etcd {
		out = append(out, neighbourSide{"etcd", cluster.Etcd, quietLeft, floodRight, ""})
	}
	return out
}

// calm is what a probe saw in one window.
type calm struct {
	Put  load.Result `json:"put"`
	Get  load.Result `json:"get"`
	Cost Cost        `json:"cost"`
}

type neighbourSample struct {
	Side   string      `json:"side"`
	Round  int         `json:"round"`
	Spread Spread      `json:"spread"`
	Idle   calm        `json:"idle"`
	Loaded calm        `json:"loaded"`
	Flood  load.Result `json:"flood"`
}

// Run performs the benchmark.
func (b Neighbour) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Probe < 1 || b.FloodRate < 0 {
		return nil, errors.New("segments: the probe needs a rate above 0")
	}
	report, err := newReport("neighbour", b.Config)
	if err != nil {
		return nil, err
	}
	speed := "as fast as it goes"
	if b.FloodRate > 0 {
		speed = fmt.Sprintf("at %d per second", b.FloodRate)
	}
	report.Method = fmt.Sprintf("medians of %d alternating rounds, fresh clusters of %d nodes; a probe of %d puts and %d gets per second on a timetable, first at rest, then while %s floods another prefix with puts, %d clients, %s; values of %d bytes; windows of %s; latency from the moment a request was due",
		b.Rounds, b.Nodes, b.Probe, b.Probe, b.floods(), b.Clients, speed, b.ValueSize, b.Duration)
	var samples []neighbourSample
	err = inTurns(ctx, b.Rounds, b.sides(), func(round int, s neighbourSide) error {
		sample, err := b.measure(ctx, s)
		if err != nil {
			return err
		}
		sample.Round = round
		samples = append(samples, sample)
		b.say("round %d  %s: idle put p99 %s ms, get %s ms; loaded %s and %s ms; flood %.0f op/s; leaders %s; %s", round, s,
			millis(sample.Idle.Put.Latency.P99), millis(sample.Idle.Get.Latency.P99), millis(sample.Loaded.Put.Latency.P99), millis(sample.Loaded.Get.Latency.P99),
			sample.Flood.Throughput, sample.Spread, sample.Loaded.Cost)
		return nil
	})
	b.judge(report, samples)
	return report, err
}

func (b Neighbour) measure(ctx context.Context, s neighbourSide) (neighbourSample, error) {
	out := neighbourSample{Side: s.name}
	r, err := start(ctx, b.Config, s.kind, b.Nodes, nil)
	if err != nil {
		return out, err
	}
	defer r.close()
	if s.cut != "" {
		if _, err := r.split(ctx, s.cut); err != nil {
			return out, err
		}
		if out.Spread, err = r.spread(ctx); err != nil {
			return out, err
		}
	}
	if out.Idle, err = b.probe(ctx, r, s.quiet); err != nil {
		return out, err
	}
	flood := b.load("put", s.flood, r.c.Endpoints())
	flood.Rate = b.FloodRate
	flood.Warmup, flood.Duration = 0, 2*b.Warmup+b.Duration+time.Second
	var wg sync.WaitGroup
	var floodErr error
	wg.Go(func() { out.Flood, floodErr = b.flood(ctx, flood) })
	out.Loaded, err = b.probe(ctx, r, s.quiet)
	wg.Wait()
	out.Loaded.Cost = out.Loaded.Cost.and(ratio(out.Flood.LoadCPUSeconds, out.Flood.Seconds))
	return out, errors.Join(err, floodErr)
}

// probeClients is enough that a slow answer does not keep the next request waiting
// in the probe itself.
const probeClients = 8

// probe runs puts and gets for one window, side by side.
func (b Neighbour) probe(ctx context.Context, r *rig, prefix string) (calm, error) {
	var out calm
	var begin, end reading
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i, workload := range []string{"put", "get"} {
		l := b.load(workload, prefix+workload+"/", r.c.Endpoints())
		l.Clients, l.Rate, l.Conns, l.Keys = probeClients, b.Probe, b.Nodes, min(b.Keys, 500)
		result := &out.Get
		if workload == "put" {
			result = &out.Put
			l.Opened = func() { begin, errs[2] = r.read() }
			l.Closed = func() { end, errs[3] = r.read() }
		}
		wg.Go(func() { *result, errs[i] = load.Run(ctx, l) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return out, err
	}
	out.Cost = begin.until(end)
	return out, nil
}

func (b Neighbour) judge(report *Report, samples []neighbourSample) {
	report.Samples = samples
	report.Table = [][]string{{"side", "put p99 ms idle", "loaded", "ratio", "get p99 ms idle", "loaded", "ratio", "flood op/s", "server cores", "load cores", "other cores", "errors", "runs"}}
	for _, side := range b.sides() {
		runs := slices.DeleteFunc(slices.Clone(samples), func(s neighbourSample) bool { return s.Side != side.name })
		if len(runs) == 0 {
			continue
		}
		p99 := func(f func(neighbourSample) load.Result) float64 {
			return median(column(runs, func(s neighbourSample) float64 { return f(s).Latency.P99 }))
		}
		ip, lp := p99(func(s neighbourSample) load.Result { return s.Idle.Put }), p99(func(s neighbourSample) load.Result { return s.Loaded.Put })
		ig, lg := p99(func(s neighbourSample) load.Result { return s.Idle.Get }), p99(func(s neighbourSample) load.Result { return s.Loaded.Get })
		failed := median(column(runs, func(s neighbourSample) float64 {
			return float64(s.Idle.Put.Failed() + s.Idle.Get.Failed() + s.Loaded.Put.Failed() + s.Loaded.Get.Failed() + s.Flood.Failed())
		}))
		cost := medianCost(runs, func(s neighbourSample) Cost { return s.Loaded.Cost })
		report.Table = append(report.Table, []string{
			side.name, millis(ip), millis(lp), fmt.Sprintf("%.2f", ratio(lp, ip)), millis(ig), millis(lg), fmt.Sprintf("%.2f", ratio(lg, ig)),
			fmt.Sprintf("%.0f", median(column(runs, func(s neighbourSample) float64 { return s.Flood.Throughput }))),
			fmt.Sprintf("%.2f", cost.Servers), fmt.Sprintf("%.2f", cost.Load), fmt.Sprintf("%.2f", cost.Other), fmt.Sprintf("%.0f", failed), fmt.Sprint(len(runs)),
		})
		if side.cut == "" {
			continue
		}
		v := Verdict{
			Aim:   fmt.Sprintf("p99 of the probe under flood at most %.1f times that at rest (%s)", neighbourAim, side.name),
			Found: fmt.Sprintf("puts %.2f, gets %.2f times", ratio(lp, ip), ratio(lg, ig)),
			Met:   ratio(lp, ip) <= neighbourAim && ratio(lg, ig) <= neighbourAim,
		}
		for _, s := range runs {
			if !s.Spread.Even() || s.Spread.Missing != "" {
				v.Void = "one node led both: " + s.Spread.String()
			}
		}
		report.Verdicts = append(report.Verdicts, v)
	}
}
