package segments

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

// Approvals asks what approvals cost: the same load on a normal scope and on one whose
// writes its anchors approve, in one mesh, and the CPU of all its nodes per write.
type Approvals struct {
	Config
	Pairs int // of windows in a mesh, one on each scope, the order reversed in every second one
	Procs int // GOMAXPROCS of every node, see Classes
}

// What is good: CPU per write over normal's, where batches hold about so many writes.
// Smaller batches cost more and larger ones less, so these decide nothing.
const (
	approvalsAim      = 1.25
	approvalsBatchMin = 48.0
	approvalsBatchMax = 96.0
)

var approvalScopes = []scopeOf{
	{"normal", "approvals/normal/", "class: normal\nanchors: {count: 3}\n"},
	{"approved", "approvals/approved/", "class: strong\nanchors: {count: 3}\napprovals: {threshold: 1/2}\n"},
}

type approvalsSample struct {
	Side  string      `json:"side"`
	Round int         `json:"round"`
	Pair  int         `json:"pair"`
	Put   load.Result `json:"put"`
	Cost  Cost        `json:"cost"`
	CPU   float64     `json:"server_cpu_us_per_put"`
	Batch float64     `json:"puts_per_approved_batch"`
}

// Run performs the benchmark.
func (b Approvals) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Pairs < 1 || b.Procs < 1 {
		return nil, errors.New("segments: at least one pair of windows is needed, and a thread for a node")
	}
	if err := os.Setenv("GOMAXPROCS", strconv.Itoa(b.Procs)); err != nil { // of the processes it starts
		return nil, err
	}
	report, err := newReport("approvals", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("%d fresh meshes of %d nodes with GOMAXPROCS=%d each, in each %d pairs of windows of %s, one on a normal scope and one on a strong scope with approvals (1/2 of the trust, no acks), the order reversed in every second pair; puts of %d bytes by %d closed-loop clients; CPU is that of all nodes, user and system, without the clients'; ratios are of pairs",
		b.Rounds, b.Nodes, b.Procs, b.Pairs, b.Duration, b.ValueSize, b.Clients)
	var samples []approvalsSample
	for round := 1; round <= b.Rounds && err == nil; round++ {
		err = b.round(ctx, round, &samples)
	}
	b.judge(report, samples)
	return report, err
}

func (b Approvals) round(ctx context.Context, round int, out *[]approvalsSample) error {
	r, err := start(ctx, b.Config, cluster.Mesh, b.Nodes, nil)
	if err != nil {
		return err
	}
	defer r.close()
	for _, s := range approvalScopes {
		if err := r.create(ctx, s); err != nil {
			return err
		}
	}
	return inTurns(ctx, b.Pairs, approvalScopes, func(pair int, s scopeOf) error {
		sample, err := b.window(ctx, r, s)
		if err != nil {
			return err
		}
		sample.Round, sample.Pair = round, pair
		*out = append(*out, sample)
		b.say("round %d, pair %d  %s: %.1f us of server CPU per put, %.0f puts/s, %.0f puts per approved batch; %s",
			round, pair, s, sample.CPU, sample.Put.Throughput, sample.Batch, sample.Cost)
		return nil
	})
}

// approved is what the nodes have counted of approvals.
type approved struct{ writes, batches float64 }

func (r *rig) approved(ctx context.Context) (sum approved, err error) {
	for _, n := range r.c.Nodes {
		values, err := scrape(ctx, n, "anchormesh_approvals_")
		if err != nil {
			return sum, err
		}
		sum.writes += values[`anchormesh_approvals_requests_total{outcome="approved"}`]
		sum.batches += values["anchormesh_approvals_round_duration_seconds_count"]
	}
	return sum, nil
}

// window puts into one scope and looks what that cost.
func (b Approvals) window(ctx context.Context, r *rig, s scopeOf) (approvalsSample, error) {
	l := b.load("put", s.prefix, r.c.Endpoints())
	sample := approvalsSample{Side: s.name}
	var begin, end reading
	var before, after approved
	var errs [5]error
	l.Opened = func() { begin, errs[0] = r.read(); before, errs[1] = r.approved(ctx) }
	l.Closed = func() { end, errs[2] = r.read(); after, errs[3] = r.approved(ctx) }
	sample.Put, errs[4] = load.Run(ctx, l)
	sample.Cost = begin.until(end)
	sample.CPU = ratio(sample.Cost.Servers*1e6, sample.Put.Throughput)
	sample.Batch = ratio(after.writes-before.writes, after.batches-before.batches)
	return sample, errors.Join(errs[:]...)
}

// ratios returns approved over normal, by pair.
func approvalRatios(samples []approvalsSample) (out []float64) {
	for _, a := range samples {
		for _, n := range samples {
			if a.Side == approvalScopes[1].name && n.Side == approvalScopes[0].name && a.Round == n.Round && a.Pair == n.Pair {
				out = append(out, ratio(a.CPU, n.CPU))
			}
		}
	}
	return out
}

func (b Approvals) judge(report *Report, samples []approvalsSample) {
	report.Samples = samples
	report.Table = [][]string{{"side", "server CPU us/put", "puts/s", "p50 ms", "p99 ms", "puts per batch", "server cores", "load cores", "other cores", "errors", "windows"}}
	var batch float64
	for _, s := range approvalScopes {
		runs := slices.DeleteFunc(slices.Clone(samples), func(a approvalsSample) bool { return a.Side != s.name })
		of := func(f func(approvalsSample) float64) float64 { return median(column(runs, f)) }
		cost := medianCost(runs, func(a approvalsSample) Cost { return a.Cost })
		batch = of(func(a approvalsSample) float64 { return a.Batch }) // the last side's counts
		report.Table = append(report.Table, []string{
			s.name, fmt.Sprintf("%.1f", of(func(a approvalsSample) float64 { return a.CPU })),
			fmt.Sprintf("%.0f", of(func(a approvalsSample) float64 { return a.Put.Throughput })),
			millis(of(func(a approvalsSample) float64 { return a.Put.Latency.P50 })), millis(of(func(a approvalsSample) float64 { return a.Put.Latency.P99 })),
			fmt.Sprintf("%.0f", batch), fmt.Sprintf("%.2f", cost.Servers), fmt.Sprintf("%.2f", cost.Load), fmt.Sprintf("%.2f", cost.Other),
			fmt.Sprintf("%.0f", of(func(a approvalsSample) float64 { return float64(a.Put.Failed()) })), fmt.Sprint(len(runs)),
		})
	}
	ratios := approvalRatios(samples)
	found := median(ratios)
	v := Verdict{
		Aim:   fmt.Sprintf("at most %.2f times normal's CPU per write at batches of about 64", approvalsAim),
		Found: fmt.Sprintf("%.2f times (pairs: %.2f), at %.0f writes per batch", found, ratios, batch),
		Met:   found > 0 && found <= approvalsAim,
	}
	switch {
	case len(ratios) == 0:
		v.Void = "nothing was measured"
	case batch < approvalsBatchMin || batch > approvalsBatchMax:
		v.Void = fmt.Sprintf("batches are to hold %.0f to %.0f writes: change --clients", approvalsBatchMin, approvalsBatchMax)
	}
	report.Verdicts = []Verdict{v}
}
