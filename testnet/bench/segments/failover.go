package segments

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// Failover asks how long segments are away when a node is killed.
type Failover struct {
	Config
	Segments int
	Beat     time.Duration // between two puts into each segment: that makes it active
	Stop     bool          // SIGSTOP in place of SIGKILL: no connection ends
}

const (
	failoverAim    = 2 * time.Second
	failoverPrefix = "failover/"
	failoverGiveUp = 30 * time.Second
)

// outage is how one segment lived through a kill.
type outage struct {
	Segment int           `json:"segment"` // by range
	Led     bool          `json:"led"`     // by the killed node
	Away    time.Duration `json:"away_ns"` // from the kill to the first answer of a put sent after it
	Errors  int           `json:"errors"`
}

type failoverSample struct {
	Round   int      `json:"round"`
	Killed  string   `json:"killed"`
	Spread  Spread   `json:"spread"`
	Outages []outage `json:"outages"`
}

// Run performs the benchmark.
func (b Failover) Run(ctx context.Context) (*Report, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	if b.Segments < 1 || b.Segments > b.Keys || b.Beat <= 0 || b.Nodes < 3 {
		return nil, fmt.Errorf("segments: failover needs three nodes, at least one segment, a key for each and a beat above 0")
	}
	report, err := newReport("failover", b.Config)
	if err != nil {
		return nil, err
	}
	report.Method = fmt.Sprintf("%d kills on one mesh of %d nodes with %d segments, each put into every %s; one node at a time is ended by %s and comes back; "+
		"from that moment every segment is asked, by puts through the other nodes repeated until one is answered; time from the kill to that answer",
		b.Rounds, b.Nodes, b.Segments, b.Beat, b.signal())
	r, err := start(ctx, b.Config, cluster.Mesh, b.Nodes, nil)
	if err != nil {
		return nil, err
	}
	defer r.close()
	begun := time.Now()
	if _, err := r.cutAll(ctx, starts(failoverPrefix, b.Keys, b.Segments)); err != nil {
		return nil, err
	}
	b.say("%d segments after %s", b.Segments, time.Since(begun).Round(time.Millisecond))
	begin, err := r.read()
	if err != nil {
		return nil, err
	}
	var samples []failoverSample
	err = inTurns(ctx, b.Rounds, []string{"mesh"}, func(round int, _ string) error {
		s, err := b.measure(ctx, r, r.c.Nodes[(round-1)%b.Nodes])
		if err != nil {
			return err
		}
		s.Round = round
		samples = append(samples, s)
		led, all := summarize(s.aways(true)), summarize(s.aways(false))
		b.say("round %d  %s killed, leaders were %s: of %d it led p50 %s, p99 %s, max %s ms; of all p50 %s, p99 %s, max %s ms", round, s.Killed, s.Spread,
			led.Count, ms(led.P50), ms(led.P99), ms(led.Max), ms(all.P50), ms(all.P99), ms(all.Max))
		return nil
	})
	if end, errEnd := r.read(); errEnd == nil {
		report.Notes = append(report.Notes, "whole run: "+begin.until(end).String())
	}
	b.judge(report, samples)
	return report, err
}

func (b Failover) signal() string {
	if b.Stop {
		return "SIGSTOP"
	}
	return "SIGKILL"
}

// aways returns the times of segments that the killed node led, or of all.
func (s failoverSample) aways(led bool) (out []time.Duration) {
	for _, o := range s.Outages {
		if o.Led || !led {
			out = append(out, o.Away)
		}
	}
	return out
}

func (b Failover) measure(ctx context.Context, r *rig, victim *cluster.Node) (failoverSample, error) {
	out := failoverSample{Killed: victim.Name}
	ready, cancel := context.WithTimeout(ctx, clusterStart)
	defer cancel()
	if err := r.c.Ready(ready); err != nil {
		return out, err
	}
	var err error
	if out.Spread, err = r.spread(ctx); err != nil {
		return out, err
	}
	led, err := r.ledBy(ctx, victim)
	if err != nil {
		return out, err
	}
	others := slices.DeleteFunc(slices.Clone(r.c.Nodes), func(n *cluster.Node) bool { return n == victim })
	var clients []*clientv3.Client
	for _, n := range others {
		c, err := r.c.Client(n)
		if err != nil {
			return out, err
		}
		defer c.Close()
		clients = append(clients, c)
	}
	alive, kill := context.WithCancel(ctx)
	defer kill()
	var when time.Time
	out.Outages = make([]outage, b.Segments)
	var wg sync.WaitGroup
	for i := range b.Segments {
		out.Outages[i] = outage{Segment: i, Led: led[i]}
		wg.Go(func() { b.follow(ctx, alive, clients, &out.Outages[i], &when) })
	}
	err = pause(ctx, b.Warmup)
	when = time.Now()
	if b.Stop {
		_ = victim.Pause() // it runs
	} else {
		victim.Kill()
	}
	kill()
	wg.Wait()
	victim.Kill()
	if err == nil {
		err = victim.Start()
	}
	return out, err
}

// ledBy says of each segment with keys of ours, by range, whether a node leads it.
func (k *control) ledBy(ctx context.Context, n *cluster.Node) ([]bool, error) {
	ids, err := k.ids(ctx)
	if err != nil {
		return nil, err
	}
	all, err := k.segments(ctx)
	var out []bool
	for i, s := range all {
		if i == 0 || strings.HasPrefix(s.start, failoverPrefix) {
			out = append(out, s.leader == ids[slices.Index(k.c.Nodes, n)])
		}
	}
	return out, err
}

// follow keeps one segment active until the kill, which ends the context alive, and
// then asks until it answers.
func (b Failover) follow(ctx, alive context.Context, clients []*clientv3.Client, o *outage, when *time.Time) {
	key := fmt.Sprintf("%s%010d", failoverPrefix, b.Keys*o.Segment/b.Segments)
	wait := b.Beat * time.Duration(o.Segment) / time.Duration(b.Segments) // not all at once
	for pause(alive, wait) == nil {
		_, _ = clients[o.Segment%len(clients)].Put(alive, key, "beat") // what counts comes later
		wait = b.Beat
	}
	if ctx.Err() != nil {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, when.Add(failoverGiveUp))
	defer cancel()
	for k := o.Segment; ; k++ {
		_, err := clients[k%len(clients)].Put(ctx, key, "back")
		if err == nil || ctx.Err() != nil {
			o.Away = time.Since(*when)
			return
		}
		o.Errors++
		_ = pause(ctx, failoverRetry)
	}
}

// failoverRetry is the pause behind an error.
const failoverRetry = 10 * time.Millisecond

func (b Failover) judge(report *Report, samples []failoverSample) {
	report.Samples = samples
	report.Table = [][]string{{"segments", "p50 ms", "p99 ms", "max ms", "count", "errors"}}
	var led, all []time.Duration
	failed, void := 0, ""
	for _, s := range samples {
		led, all = append(led, s.aways(true)...), append(all, s.aways(false)...)
		for _, o := range s.Outages {
			failed += o.Errors
		}
		if !s.Spread.Even() || s.Spread.Missing != "" {
			report.Notes = append(report.Notes, fmt.Sprintf("round %d: %s was killed, leaders lay at %s", s.Round, s.Killed, s.Spread))
		}
	}
	if len(led) == 0 {
		void = "the killed nodes led nothing"
	}
	for _, row := range []struct {
		name string
		of   []time.Duration
	}{{"led by the killed node", led}, {"all", all}} {
		t := summarize(row.of)
		report.Table = append(report.Table, []string{row.name, ms(t.P50), ms(t.P99), ms(t.Max), fmt.Sprint(t.Count), fmt.Sprint(failed)})
	}
	t := summarize(led)
	report.Verdicts = []Verdict{{
		Aim:   fmt.Sprintf("segments of a killed node answer within %s at p99 (%d active segments)", failoverAim, b.Segments),
		Found: fmt.Sprintf("p50 %s, p99 %s, max %s ms of %d", ms(t.P50), ms(t.P99), ms(t.Max), t.Count),
		Met:   t.Count > 0 && t.P99 <= failoverAim,
		Void:  void,
	}}
}
