package segments

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// Split asks how long writers stand still when the segment under them is cut.
type Split struct {
	Config               // Clients write; Warmup is before the first split
	Splits int           // per round
	Pause  time.Duration // between splits, at least twice the window that is looked at
}

const (
	splitAim    = 50 * time.Millisecond
	splitWindow = 200 * time.Millisecond // from the request on: gaps that begin in it count
	splitPrefix = "split/"
)

type splitSample struct {
	Round    int             `json:"round"`
	First    time.Duration   `json:"first_ns"`    // gap at the split that switched the scope to stamps
	Gaps     []time.Duration `json:"gaps_ns"`     // at the others
	Quiet    []time.Duration `json:"quiet_ns"`    // in windows of the same length right before each
	Requests []time.Duration `json:"requests_ns"` // how long the requests to split took
	Puts     float64         `json:"puts_per_second"`
	Errors   int64           `json:"errors"`
	Cost     Cost            `json:"cost"`
}

// Run performs the benchmark.
func (b Split) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Splits < 2 || b.Splits >= b.Keys || b.Pause < 2*splitWindow {
		return nil, fmt.Errorf("segments: at least 2 splits, fewer than keys, and pauses of %s are needed", 2*splitWindow)
	}
	report, err := newReport("split", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("%d rounds with a fresh mesh of %d nodes; %d closed-loop writers put random keys of %d, values of %d bytes; %d splits, %s apart, each through the middle of a segment; "+
		"a split's gap is the longest time any writer went without an answer that began before the request to split plus %s and ended after it; beside it the same windows right before the splits; the first split, which begins the counting by stamps, by itself",
		b.Rounds, b.Nodes, b.Clients, b.Keys, b.ValueSize, b.Splits, b.Pause, splitWindow)
	var samples []splitSample
	err = inTurns(ctx, b.Rounds, []string{"mesh"}, func(round int, _ string) error {
		s, err := b.measure(ctx)
		if err != nil {
			return err
		}
		s.Round = round
		samples = append(samples, s)
		at, quiet := summarize(s.Gaps), summarize(s.Quiet)
		b.say("round %d  first %s ms; others p50 %s, p99 %s, max %s ms; without p50 %s, p99 %s, max %s ms; %.0f puts/s, %d errors", round,
			ms(s.First), ms(at.P50), ms(at.P99), ms(at.Max), ms(quiet.P50), ms(quiet.P99), ms(quiet.Max), s.Puts, s.Errors)
		return nil
	})
	b.judge(report, samples)
	return report, err
}

func (b Split) measure(ctx context.Context) (splitSample, error) {
	var out splitSample
	r, err := start(ctx, b.Config, cluster.Mesh, b.Nodes, nil)
	if err != nil {
		return out, err
	}
	defer r.close()
	w, err := startWriters(ctx, r.c, b.Config, splitPrefix)
	if err != nil {
		return out, err
	}
	begin, errBegin := r.read()
	moments, requests, errSplit := b.cut(ctx, r)
	end, errEnd := r.read()
	w.end()
	if err := errors.Join(errSplit, errBegin, errEnd); err != nil {
		return out, err
	}
	for _, at := range moments {
		out.Gaps = append(out.Gaps, worst(w.diaries, func(d *diary) time.Duration { return d.gap(at, at.Add(splitWindow)) }))
		out.Quiet = append(out.Quiet, worst(w.diaries, func(d *diary) time.Duration { return d.gapBefore(at.Add(-splitWindow), at) }))
	}
	out.First, out.Gaps = out.Gaps[0], out.Gaps[1:]
	out.Requests, out.Errors, out.Cost = requests, w.errors.Load(), begin.until(end)
	out.Puts = float64(w.puts()) / end.at.Sub(begin.at).Seconds()
	return out, nil
}

// cut splits again and again and returns when each request was sent and how long
// it took.
func (b Split) cut(ctx context.Context, r *rig) (moments []time.Time, requests []time.Duration, err error) {
	if err := pause(ctx, b.Warmup); err != nil {
		return nil, nil, err
	}
	for _, level := range bisecting(starts(splitPrefix, b.Keys, b.Splits+1)) {
		for _, key := range level {
			at := time.Now()
			took, err := r.split(ctx, key)
			if err != nil {
				return nil, nil, err
			}
			moments, requests = append(moments, at), append(requests, took)
			if err := pause(ctx, time.Until(at.Add(b.Pause))); err != nil {
				return nil, nil, err
			}
		}
	}
	return moments, requests, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (b Split) judge(report *Report, samples []splitSample) {
	report.Samples = samples
	var gaps, quiet, firsts, requests []time.Duration
	var failed int64
	for _, s := range samples {
		gaps, quiet, requests = append(gaps, s.Gaps...), append(quiet, s.Quiet...), append(requests, s.Requests...)
		firsts, failed = append(firsts, s.First), failed+s.Errors
	}
	report.Table = [][]string{{"longest gap of any writer", "p50 ms", "p99 ms", "max ms", "count"}}
	for _, row := range []struct {
		name string
		of   []time.Duration
	}{{"at a split", gaps}, {"right before", quiet}, {"at the first split", firsts}, {"request to split", requests}} {
		t := summarize(row.of)
		report.Table = append(report.Table, []string{row.name, ms(t.P50), ms(t.P99), ms(t.Max), fmt.Sprint(t.Count)})
	}
	cost := medianCost(samples, func(s splitSample) Cost { return s.Cost })
	report.Notes = []string{fmt.Sprintf("%.0f puts/s; %s; %d errors", median(column(samples, func(s splitSample) float64 { return s.Puts })), cost, failed)}
	at := summarize(gaps)
	report.Verdicts = []Verdict{{
		Aim:   fmt.Sprintf("writers stall at most %s ms at p99 of splits", ms(splitAim)),
		Found: fmt.Sprintf("%s ms over %d splits (without a split: %s ms)", ms(at.P99), at.Count, ms(summarize(quiet).P99)),
		Met:   at.Count > 0 && at.P99 <= splitAim,
	}}
}

// diary is when one writer's puts were answered, in order.
type diary struct {
	times []time.Time
}

// gap returns the longest time without an answer that began before to and ended
// after from: what began inside counts to its end, also behind to.
func (d *diary) gap(from, to time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(d.times); i++ {
		begin, end := d.times[i-1], d.times[i]
		if end.After(from) && begin.Before(to) {
			longest = max(longest, end.Sub(begin))
		}
	}
	return longest
}

// gapBefore is the same of gaps that began after from and ended before to: it sees
// nothing of what happens from then on.
func (d *diary) gapBefore(from, to time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(d.times); i++ {
		begin, end := d.times[i-1], d.times[i]
		if !begin.Before(from) && !end.After(to) {
			longest = max(longest, end.Sub(begin))
		}
	}
	return longest
}

// worst is the longest gap of any writer.
func worst(diaries []*diary, of func(*diary) time.Duration) time.Duration {
	var longest time.Duration
	for _, d := range diaries {
		longest = max(longest, of(d))
	}
	return longest
}

// writers put random keys in closed loops and keep diaries.
type writers struct {
	diaries []*diary
	errors  atomic.Int64
	stop    context.CancelFunc
	wait    sync.WaitGroup
	clients []*clientv3.Client
}

// startWriters starts n writers; writer i is a client of node i modulo nodes.
func startWriters(ctx context.Context, c *cluster.Cluster, cfg Config, prefix string) (*writers, error) {
	ctx, stop := context.WithCancel(ctx)
	w := &writers{stop: stop}
	for i := range cfg.Clients {
		client, err := c.Client(c.Nodes[i%len(c.Nodes)])
		if err != nil {
			w.end()
			return nil, err
		}
		w.clients = append(w.clients, client)
		d := &diary{}
		w.diaries = append(w.diaries, d)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		w.wait.Go(func() { w.write(ctx, client, d, rng, cfg, prefix) })
	}
	return w, nil
}

func (w *writers) write(ctx context.Context, c *clientv3.Client, d *diary, rng *rand.Rand, cfg Config, prefix string) {
	value := string(make([]byte, cfg.ValueSize))
	for ctx.Err() == nil {
		_, err := c.Put(ctx, fmt.Sprintf("%s%010d", prefix, rng.IntN(cfg.Keys)), value)
		if err == nil {
			d.times = append(d.times, time.Now())
		} else if ctx.Err() == nil {
			w.errors.Add(1)
		}
	}
}

// end stops the writers; only then may the diaries be read.
func (w *writers) end() {
	w.stop()
	w.wait.Wait()
	for _, c := range w.clients {
		c.Close()
	}
}

// puts is how many were answered.
func (w *writers) puts() (n int) {
	for _, d := range w.diaries {
		n += len(d.times)
	}
	return n
}
