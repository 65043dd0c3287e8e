package segments

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

// Classes puts the same load on a light, a normal and a strong scope of one mesh, and on
// an etcd. Then it asks what a probe of the strong scope feels while the light one is
// flooded.
type Classes struct {
	Config
	Probe int // puts per second of the probe
	// Procs is GOMAXPROCS of every node, and of the flood's process: on one machine each
	// has its share of the cores. With more, each node's threads look for work on cores
	// that another node needs, which costs most where there is least to do.
	Procs int
	Etcd  bool
}

// What is good, against normal; and of the probe under flood, against rest.
const (
	lightThroughputAim = 2.0
	lightMedianAim     = 0.5
	strongMedianAim    = 2.5
	floodAim           = neighbourAim
)

// scopeOf is one scope under comparison.
type scopeOf struct{ name, prefix, policy string }

func (s scopeOf) String() string { return s.name }

var classScopes = []scopeOf{
	{"light", "classes/light/", "class: light\nanchors: {count: 3}\n"},
	{"normal", "classes/normal/", "class: normal\nanchors: {count: 3}\n"},
	{"strong", "classes/strong/", "class: strong\nanchors: {count: 3}\nacks: {all: true}\n"},
}

// etcdSide stands for the etcd of the same run.
const etcdSide = "etcd"

type classSample struct {
	Side  string      `json:"side"`
	Round int         `json:"round"`
	Put   load.Result `json:"put"`
	Cost  Cost        `json:"cost"`
}

type floodSample struct {
	Round  int         `json:"round"`
	Idle   load.Result `json:"idle"`
	Loaded load.Result `json:"loaded"`
	Flood  load.Result `json:"flood"`
}

type classSamples struct {
	Classes []classSample `json:"classes"`
	Floods  []floodSample `json:"floods"`
}

// Run performs the benchmark.
func (b Classes) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Probe < 1 || b.Procs < 1 {
		return nil, errors.New("segments: the probe needs a rate above 0, and a node a thread")
	}
	if err := os.Setenv("GOMAXPROCS", strconv.Itoa(b.Procs)); err != nil { // of the processes it starts
		return nil, err
	}
	report, err := newReport("classes", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("medians of %d rounds, fresh clusters of %d nodes with GOMAXPROCS=%d each; puts of %d bytes by %d closed-loop clients into each scope in turn, windows of %s; strong is acks by all anchors, without approvals; the flood is %d clients that put into the light scope as fast as it goes, from %s, and the probe of the strong scope %d puts per second on a timetable",
		b.Rounds, b.Nodes, b.Procs, b.ValueSize, b.Clients, b.Duration, b.Clients, b.floods(), b.Probe)
	if b.SyncDelay > 0 {
		report.Method += fmt.Sprintf("; each sync of a node's log is preceded by a sleep of %s (a failpoint), the stores' commits are not", b.SyncDelay)
	}
	var samples classSamples
	for round := 1; round <= b.Rounds && err == nil; round++ {
		err = b.round(ctx, round, &samples)
	}
	b.judge(report, &samples)
	return report, err
}

func (b Classes) round(ctx context.Context, round int, out *classSamples) error {
	r, err := start(ctx, b.Config, cluster.Mesh, b.Nodes, nil)
	if err != nil {
		return err
	}
	defer r.close()
	for _, s := range classScopes {
		if err := r.create(ctx, s); err != nil {
			return err
		}
	}
	for _, s := range classScopes {
		if err := b.puts(ctx, r, round, s.name, s.prefix, out); err != nil {
			return err
		}
	}
	if err := b.flooded(ctx, r, round, out); err != nil || !b.Etcd {
		return err
	}
	r.close()
	e, err := start(ctx, b.Config, cluster.Etcd, b.Nodes, nil)
	if err != nil {
		return err
	}
	defer e.close()
	return b.puts(ctx, e, round, etcdSide, classScopes[1].prefix, out)
}

func (b Classes) puts(ctx context.Context, r *rig, round int, side, prefix string, out *classSamples) error {
	l := b.load("put", prefix, r.c.Endpoints())
	sample := classSample{Side: side, Round: round}
	var begin, end reading
	var errs [3]error
	l.Opened = func() { begin, errs[0] = r.read() }
	l.Closed = func() { end, errs[1] = r.read() }
	sample.Put, errs[2] = load.Run(ctx, l)
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	sample.Cost = begin.until(end)
	out.Classes = append(out.Classes, sample)
	b.say("round %d  %s: %.0f puts/s, p50 %s ms, p99 %s ms; %s", round, side, sample.Put.Throughput,
		millis(sample.Put.Latency.P50), millis(sample.Put.Latency.P99), sample.Cost)
	return nil
}

// flooded probes the strong scope, at rest and while the light one is flooded.
func (b Classes) flooded(ctx context.Context, r *rig, round int, out *classSamples) error {
	light, critical := classScopes[0], classScopes[2]
	probe := b.load("put", critical.prefix+"probe/", r.c.Endpoints())
	probe.Clients, probe.Rate, probe.Conns, probe.Keys = probeClients, b.Probe, b.Nodes, min(b.Keys, 500)
	sample := floodSample{Round: round}
	var err error
	if sample.Idle, err = load.Run(ctx, probe); err != nil {
		return err
	}
	flood := b.load("put", light.prefix, r.c.Endpoints())
	flood.Warmup, flood.Duration = 0, 2*b.Warmup+b.Duration+time.Second
	var wg sync.WaitGroup
	var floodErr error
	wg.Go(func() { sample.Flood, floodErr = b.flood(ctx, flood) })
	sample.Loaded, err = load.Run(ctx, probe)
	wg.Wait()
	if err := errors.Join(err, floodErr); err != nil {
		return err
	}
	out.Floods = append(out.Floods, sample)
	b.say("round %d  probe of the strong scope: p99 %s ms at rest, %s ms under a flood of %.0f puts/s", round,
		millis(sample.Idle.Latency.P99), millis(sample.Loaded.Latency.P99), sample.Flood.Throughput)
	return nil
}

// create makes a scope and waits until all its segments have adopted it.
func (k *control) create(ctx context.Context, s scopeOf) error {
	asked := false
	return patiently(ctx, "scope "+s.prefix, func(ctx context.Context) error {
		return k.any(func(conn grpc.ClientConnInterface) error {
			scopes := meshpb.NewScopesClient(conn)
			if !asked {
				if _, err := scopes.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte(s.prefix), Policy: s.policy, Operator: "bench"}); err != nil {
					return err
				}
				asked = true
			}
			got, err := scopes.Show(ctx, &meshpb.ShowScopeRequest{Prefix: []byte(s.prefix)})
			if err == nil && got.GetScope().GetInForce() == 0 {
				err = errors.New("it is not in force yet")
			}
			return err
		})
	})
}

func (b Classes) judge(report *Report, samples *classSamples) {
	report.Samples = samples
	report.Table = [][]string{{"side", "puts/s", "p50 ms", "p99 ms", "server cores", "load cores", "other cores", "errors", "runs"}}
	throughput, p50 := map[string]float64{}, map[string]float64{}
	for _, side := range []string{"light", "normal", "strong", etcdSide} {
		runs := slices.DeleteFunc(slices.Clone(samples.Classes), func(s classSample) bool { return s.Side != side })
		if len(runs) == 0 {
			continue
		}
		of := func(f func(load.Result) float64) float64 {
			return median(column(runs, func(s classSample) float64 { return f(s.Put) }))
		}
		throughput[side] = of(func(r load.Result) float64 { return r.Throughput })
		p50[side] = of(func(r load.Result) float64 { return r.Latency.P50 })
		cost := medianCost(runs, func(s classSample) Cost { return s.Cost })
		report.Table = append(report.Table, []string{
			side, fmt.Sprintf("%.0f", throughput[side]), millis(p50[side]), millis(of(func(r load.Result) float64 { return r.Latency.P99 })),
			fmt.Sprintf("%.2f", cost.Servers), fmt.Sprintf("%.2f", cost.Load), fmt.Sprintf("%.2f", cost.Other),
			fmt.Sprintf("%.0f", of(func(r load.Result) float64 { return float64(r.Failed()) })), fmt.Sprint(len(runs)),
		})
	}
	more, less, strong := ratio(throughput["light"], throughput["normal"]), ratio(p50["light"], p50["normal"]), ratio(p50["strong"], p50["normal"])
	idle := median(column(samples.Floods, func(s floodSample) float64 { return s.Idle.Latency.P99 }))
	loaded := median(column(samples.Floods, func(s floodSample) float64 { return s.Loaded.Latency.P99 }))
	report.Verdicts = []Verdict{
		{Aim: fmt.Sprintf("light has at least %.1f times normal's throughput", lightThroughputAim), Found: fmt.Sprintf("%.2f times", more), Met: more >= lightThroughputAim},
		{Aim: fmt.Sprintf("light has at most %.1f of normal's median latency", lightMedianAim), Found: fmt.Sprintf("%.2f of it", less), Met: less > 0 && less <= lightMedianAim},
		{Aim: fmt.Sprintf("strong has at most %.1f times normal's median latency", strongMedianAim), Found: fmt.Sprintf("%.2f times", strong), Met: strong > 0 && strong <= strongMedianAim},
		{
			Aim:   fmt.Sprintf("p99 of the strong scope while the light one is flooded at most %.1f times that at rest", floodAim),
			Found: fmt.Sprintf("%s and %s ms, %.2f times", millis(loaded), millis(idle), ratio(loaded, idle)),
			Met:   idle > 0 && ratio(loaded, idle) <= floodAim,
		},
	}
}
