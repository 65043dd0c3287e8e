package segments

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

// Watch asks what a watch over several segments costs: the delay of its events
// beside that of a watch over one, in turns on the same mesh.
type Watch struct {
	Config       // Clients watch
	Segments int // of the wide watch
	Rate     int // puts per second
}

const (
	watchAim    = 2.0
	watchNarrow = "watch/1/"
	watchWide   = "watch/4/"
)

type watchSample struct {
	Side  string      `json:"side"`
	Round int         `json:"round"`
	Load  load.Result `json:"load"`
	Cost  Cost        `json:"cost"`
	Error string      `json:"error,omitempty"`
}

// Run performs the benchmark.
func (b Watch) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Segments < 2 || b.Rate < 1 {
		return nil, errors.New("segments: a wide watch needs two segments and a rate above 0")
	}
	report, err := newReport("watch-segments", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("one mesh of %d nodes; medians of %d alternating rounds; %d watches of one prefix, %d puts per second into it at random keys; the prefix is one segment or %d, neither is the home of revisions; "+
		"delay from before the put was sent to the event's arrival; warm-up %s, window %s", b.Nodes, b.Rounds, b.Clients, b.Rate, b.Segments, b.Warmup, b.Duration)
	r, err := start(ctx, b.Config, cluster.Mesh, b.Nodes, nil)
	if err != nil {
		return nil, err
	}
	defer r.close()
	spread, err := b.layOut(ctx, r)
	if err != nil {
		return nil, err
	}
	report.Notes = append(report.Notes, "leaders by node: "+spread.String())
	var samples []watchSample
	err = inTurns(ctx, b.Rounds, []string{watchNarrow, watchWide}, func(round int, prefix string) error {
		s := b.measure(ctx, r, prefix)
		s.Round = round
		samples = append(samples, s)
		b.say("round %d  %s: %s %s; %s", round, s.Side, s.Load, s.Error, s.Cost)
		return nil
	})
	b.judge(report, samples)
	return report, err
}

// layOut cuts the prefixes out of the home and the wide one into segments.
func (b Watch) layOut(ctx context.Context, r *rig) (Spread, error) {
	cuts := append([]string{watchNarrow, watchWide}, starts(watchWide, b.Keys, b.Segments)...)
	cuts = append(cuts, prefixEnd(watchWide))
	if _, err := r.cutAll(ctx, cuts); err != nil {
		return Spread{}, err
	}
	return r.spread(ctx)
}

func (b Watch) side(prefix string) string {
	if prefix == watchNarrow {
		return "1 segment"
	}
	return fmt.Sprintf("%d segments", b.Segments)
}

func (b Watch) measure(ctx context.Context, r *rig, prefix string) watchSample {
	out := watchSample{Side: b.side(prefix)}
	l := b.load("watch", prefix, r.c.Endpoints())
	l.WatchRate = b.Rate
	var begin, end reading
	errs := make([]error, 3)
	l.Opened = func() { begin, errs[0] = r.read() }
	l.Closed = func() { end, errs[1] = r.read() }
	out.Load, errs[2] = load.Run(ctx, l)
	if err := errors.Join(errs...); err != nil {
		out.Error = err.Error()
		return out
	}
	out.Cost = begin.until(end)
	return out
}

func (b Watch) judge(report *Report, samples []watchSample) {
	report.Samples = samples
	report.Table = [][]string{{"watch over", "events/s", "p50 ms", "p99 ms", "max ms", "server cores", "load cores", "other cores", "errors", "runs"}}
	p99 := map[string]float64{}
	var failure string
	for _, prefix := range []string{watchNarrow, watchWide} {
		side := b.side(prefix)
		runs := slices.DeleteFunc(slices.Clone(samples), func(s watchSample) bool { return s.Side != side })
		for _, s := range runs {
			if s.Error != "" || s.Load.Failed() > 0 {
				failure = fmt.Sprintf("%s: %d errors %v %s", side, s.Load.Failed(), s.Load.Errors, s.Error)
			}
		}
		at := func(f func(load.Result) float64) float64 {
			return median(column(runs, func(s watchSample) float64 { return f(s.Load) }))
		}
		p99[prefix] = at(func(r load.Result) float64 { return r.Latency.P99 })
		cost := medianCost(runs, func(s watchSample) Cost { return s.Cost })
		report.Table = append(report.Table, []string{
			side, fmt.Sprintf("%.0f", at(func(r load.Result) float64 { return r.Throughput })),
			millis(at(func(r load.Result) float64 { return r.Latency.P50 })), millis(p99[prefix]), millis(at(func(r load.Result) float64 { return r.Latency.Max })),
			fmt.Sprintf("%.2f", cost.Servers), fmt.Sprintf("%.2f", cost.Load), fmt.Sprintf("%.2f", cost.Other),
			fmt.Sprintf("%.0f", at(func(r load.Result) float64 { return float64(r.Failed()) })), fmt.Sprint(len(runs)),
		})
	}
	times := ratio(p99[watchWide], p99[watchNarrow])
	report.Verdicts = []Verdict{{
		Aim:   fmt.Sprintf("p99 of events over %d segments at most %.0f times that over one", b.Segments, watchAim),
		Found: fmt.Sprintf("%.2f times (%s and %s ms)", times, millis(p99[watchWide]), millis(p99[watchNarrow])),
		Met:   times > 0 && times <= watchAim,
		Void:  failure,
	}}
}
