package segments

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
	"github.com/anchormesh/anchormesh/testnet/share"
)

// Scale asks what more nodes are worth: puts of random keys on meshes of several
// sizes, every node held to the same share of a core, the keyspace cut into as many
// equal segments as there are nodes (times PerNode), beside an etcd of three.
type Scale struct {
	Config
	Sizes   []int   // nodes of the meshes, ascending
	Share   float64 // of a core, per node
	PerNode int     // segments per node
	Etcd    bool
}

// scaleAim is the least part of linear growth that is good.
const scaleAim = 0.7

// scaleSide is one cluster under comparison.
type scaleSide struct {
	kind cluster.Kind
	size int
}

func (s scaleSide) String() string { return fmt.Sprintf("%s %d", s.kind, s.size) }

type scaleSample struct {
	Side     string      `json:"side"`
	Round    int         `json:"round"`
	Segments int         `json:"segments"`
	Spread   Spread      `json:"spread"`
	Load     load.Result `json:"load"`
	Cost     Cost        `json:"cost"`
}

func (b Scale) sides() []scaleSide {
	var out []scaleSide
	for _, n := range b.Sizes {
		out = append(out, scaleSide{cluster.Mesh, n})
	}
	if b.Etcd {
		out = append(out, scaleSide{cluster.Etcd, 3})
	}
	return out
}

// Run performs the benchmark.
func (b Scale) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if len(b.Sizes) == 0 || b.Share <= 0 || b.PerNode < 1 || !slices.IsSorted(b.Sizes) {
		return nil, errors.New("segments: scale needs ascending sizes, a share above 0 and a segment per node")
	}
	limiter, err := share.Detect()
	if err != nil {
		return nil, err
	}
	report, err := newReport("scale", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("medians of %d alternating rounds, fresh clusters; every node held to %.0f %% of a core by %s; closed-loop puts, %d clients per node; "+
		"the same key space of %d keys, values of %d bytes, cut into %d equal segment(s) per node; warm-up %s, window %s",
		b.Rounds, 100*b.Share, limiter, b.Clients, b.Keys, b.ValueSize, b.PerNode, b.Warmup, b.Duration)
	var samples []scaleSample
	err = inTurns(ctx, b.Rounds, b.sides(), func(round int, s scaleSide) error {
		sample, err := b.measure(ctx, s, &limiter)
		if err != nil {
			return err
		}
		sample.Round = round
		samples = append(samples, sample)
		b.say("round %d  %s: %s; %s; leaders %s", round, s, sample.Load, sample.Cost, sample.Spread)
		return nil
	})
	b.judge(report, samples)
	return report, err
}

func (b Scale) measure(ctx context.Context, s scaleSide, limiter *share.Limiter) (scaleSample, error) {
	out := scaleSample{Side: s.String(), Segments: 1}
	r, err := start(ctx, b.Config, s.kind, s.size, limiter)
	if err != nil {
		return out, err
	}
	defer r.close()
	if s.kind == cluster.Mesh {
		out.Segments = s.size * b.PerNode
		if _, err := r.cutAll(ctx, starts(scalePrefix, b.Keys, out.Segments)); err != nil {
			return out, err
		}
		if out.Spread, err = r.spread(ctx); err != nil {
			return out, err
		}
	}
	if err := r.limit(b.Share); err != nil {
		return out, err
	}
	l := b.load("put", scalePrefix, r.c.Endpoints())
	l.Clients = b.Clients * s.size
	var begin, end reading
	var errs [2]error
	l.Opened = func() { begin, errs[0] = r.read() }
	l.Closed = func() { end, errs[1] = r.read() }
	out.Load, err = load.Run(ctx, l)
	if err := errors.Join(err, errs[0], errs[1]); err != nil {
		return out, err
	}
	out.Cost = begin.until(end)
	return out, nil
}

const scalePrefix = "scale/"

// saturated is the share of the machine from which on it, and not the nodes'
// shares, may be what limits.
const saturated = 0.92

func (b Scale) judge(report *Report, samples []scaleSample) {
	report.Samples = samples
	report.Table = [][]string{{"side", "segments", "op/s", "per node", "of linear", "p50 ms", "p99 ms", "server cores", "load cores", "other cores", "at quota %", "errors", "runs"}}
	least := b.throughput(samples, scaleSide{cluster.Mesh, b.Sizes[0]})
	for _, s := range b.sides() {
		runs := of(samples, s)
		if len(runs) == 0 {
			continue
		}
		rate := b.throughput(samples, s)
		linear := "-"
		if s.kind == cluster.Mesh {
			linear = fmt.Sprintf("%.2f", linearity(least, rate, b.Sizes[0], s.size))
		}
		cost := medianCost(runs, func(s scaleSample) Cost { return s.Cost })
		report.Table = append(report.Table, []string{
			s.String(), fmt.Sprint(runs[0].Segments), fmt.Sprintf("%.0f", rate), fmt.Sprintf("%.0f", rate/float64(s.size)), linear,
			millis(median(column(runs, func(s scaleSample) float64 { return s.Load.Latency.P50 }))),
			millis(median(column(runs, func(s scaleSample) float64 { return s.Load.Latency.P99 }))),
			fmt.Sprintf("%.2f", cost.Servers), fmt.Sprintf("%.2f", cost.Load), fmt.Sprintf("%.2f", cost.Other), fmt.Sprintf("%.0f", 100*cost.Stopped),
			fmt.Sprintf("%.0f", median(column(runs, func(s scaleSample) float64 { return float64(s.Load.Failed()) }))), fmt.Sprint(len(runs)),
		})
	}
	small, large := b.Sizes[0], b.Sizes[len(b.Sizes)-1]
	most := b.throughput(samples, scaleSide{cluster.Mesh, large})
	v := Verdict{
		Aim:   fmt.Sprintf("write throughput from %d to %d nodes at least %.1f of linear", small, large, scaleAim),
		Found: fmt.Sprintf("%.2f of linear (%.0f to %.0f op/s, %.2f times)", linearity(least, most, small, large), least, most, ratio(most, least)),
		Met:   linearity(least, most, small, large) >= scaleAim,
	}
	v.Void = doubts(samples)
	if b.Etcd {
		etcd := b.throughput(samples, scaleSide{cluster.Etcd, 3})
		v.Found += fmt.Sprintf("; etcd of 3: %.0f op/s, its other members add none; mesh of %d over etcd: %.2f", etcd, large, ratio(most, etcd))
	}
	report.Verdicts = append(report.Verdicts, v)
}

// doubts says why the samples decide nothing, or nothing.
func doubts(samples []scaleSample) string {
	if len(samples) == 0 {
		return "nothing was measured"
	}
	var spread, full string
	for _, s := range samples {
		if s.Spread.Leaders != nil && (!s.Spread.Even() || s.Spread.Missing != "") {
			spread = fmt.Sprintf("leaders of %s lay at %s", s.Side, s.Spread)
		}
		if used := s.Cost.Servers + s.Cost.Load + s.Cost.Other; used > saturated*float64(runtime.NumCPU()) {
			full = fmt.Sprintf("%s left no idle CPU (%.2f cores used): a smaller --share is needed", s.Side, used)
		}
	}
	return words(spread, full)
}

func of(samples []scaleSample, side scaleSide) []scaleSample {
	return slices.DeleteFunc(slices.Clone(samples), func(s scaleSample) bool { return s.Side != side.String() })
}

func (b Scale) throughput(samples []scaleSample, side scaleSide) float64 {
	return median(column(of(samples, side), func(s scaleSample) float64 { return s.Load.Throughput }))
}

// linearity is the growth of throughput over the growth of nodes.
func linearity(least, most float64, small, large int) float64 {
	return ratio(ratio(most, least), float64(large)/float64(small))
}
