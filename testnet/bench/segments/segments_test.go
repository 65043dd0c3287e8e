package segments

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

func TestQuantilesAndMedians(t *testing.T) {
	var values []time.Duration
	for i := 200; i > 0; i-- {
		values = append(values, time.Duration(i))
	}
	if got := summarize(values); got != (Times{Count: 200, P50: 100, P99: 198, Max: 200}) {
		t.Errorf("%+v", got)
	}
	if got := summarize(values[:3]); got != (Times{Count: 3, P50: 199, P99: 200, Max: 200}) {
		t.Errorf("%+v", got)
	}
	if got := summarize(nil); got != (Times{}) {
		t.Errorf("%+v", got)
	}
	for _, c := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{7}, 7}, {[]float64{9, 1}, 5}, {[]float64{9, 1, 2}, 2}} {
		if got := median(c.of); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.of, got, c.want)
		}
	}
}

// A gap belongs to a split if it began before the window's end and ended in it or
// behind; what ended before the split is the quiet before it.
func TestGaps(t *testing.T) {
	zero := time.Now()
	at := func(ms ...int) *diary {
		d := &diary{}
		for _, m := range ms {
			d.times = append(d.times, zero.Add(time.Duration(m)*time.Millisecond))
		}
		return d
	}
	d := at(0, 40, 95, 140, 290, 800, 900)
	from, to := zero.Add(100*time.Millisecond), zero.Add(300*time.Millisecond)
	if got := d.gap(from, to); got != 510*time.Millisecond { // 290 to 800 began inside
		t.Errorf("gap is %s", got)
	}
	if got := d.gap(from, zero.Add(290*time.Millisecond)); got != 150*time.Millisecond {
		t.Errorf("gap of a window that ends at an answer is %s", got)
	}
	if got := d.gapBefore(zero.Add(-time.Second), from); got != 55*time.Millisecond { // 95 to 140 spans the split
		t.Errorf("gap before is %s", got)
	}
	if got := worst([]*diary{at(0, 120), d, {}}, func(d *diary) time.Duration { return d.gap(zero, from) }); got != 120*time.Millisecond {
		t.Errorf("worst is %s", got)
	}
}

// All boundaries are cut, each inside a part that is there by then, and those of one
// level in different parts.
func TestBisecting(t *testing.T) {
	all := starts("x/", 1000, 11)
	if len(all) != 10 || !slices.IsSorted(all) || all[0] != "x/0000000090" {
		t.Fatal(all)
	}
	levels := bisecting(all)
	var done []string
	for _, level := range levels {
		parts := map[int]bool{}
		for _, key := range level {
			part, _ := slices.BinarySearch(done, key)
			if parts[part] {
				t.Errorf("two cuts of %v fall into one part of %v", level, done)
			}
			parts[part] = true
		}
		done = slices.Sorted(slices.Values(append(done, level...)))
	}
	if !slices.Equal(done, all) || len(levels) != 4 {
		t.Errorf("%d levels cut at %v", len(levels), done)
	}
	if len(bisecting(nil)) != 0 {
		t.Error("something is cut although nothing was asked for")
	}
}

// Over as many segments as nodes, everyone leads one and follows in two.
func TestSeating(t *testing.T) {
	leads, holds := map[int]int{}, map[int]int{}
	for i := range 9 {
		seats := seating(i, 9, 3)
		leads[seats[0]]++
		for _, n := range seats {
			holds[n]++
		}
	}
	for n := range 9 {
		if leads[n] != 1 || holds[n] != 3 {
			t.Errorf("node %d leads %d and holds %d", n, leads[n], holds[n])
		}
	}
	if got := seating(5, 2, 3); !slices.Equal(got, []int{1, 0}) {
		t.Errorf("of two nodes: %v", got)
	}
}

func TestEven(t *testing.T) {
	for _, c := range []struct {
		s    Spread
		even bool
	}{
		{Spread{Leaders: []int{100, 100, 100}}, true},
		{Spread{Leaders: []int{1, 1, 0}}, true},
		{Spread{Leaders: []int{300, 0, 0}}, false},
		{Spread{Leaders: []int{120, 100, 80}}, true},
		{Spread{Leaders: []int{140, 100, 60}}, false},
		{Spread{Leaders: []int{0, 0, 0}}, false},
	} {
		if c.s.Even() != c.even {
			t.Errorf("%s is taken for even: %v", c.s, !c.even)
		}
	}
}

// Of two views of one range the newer generation wins, then one that knows a leader,
// then the later term.
func TestNewerView(t *testing.T) {
	old := segment{generation: 2, leader: "a", term: 5}
	for _, s := range []segment{{generation: 3}, {generation: 2, leader: "b", term: 6}} {
		if !s.newer(old) || old.newer(s) {
			t.Errorf("%+v is not newer than %+v", s, old)
		}
	}
	if unknown := (segment{generation: 2, term: 9}); unknown.newer(old) {
		t.Error("a view without a leader was preferred")
	}
}

func TestCost(t *testing.T) {
	zero := time.Now()
	begin := reading{at: zero, servers: time.Second, load: time.Second, busy: 10 * time.Second, periods: 100, throttled: 50}
	end := reading{at: zero.Add(2 * time.Second), servers: 2 * time.Second, load: 2 * time.Second, busy: 13 * time.Second, periods: 200, throttled: 75}
	c := begin.until(end)
	if c != (Cost{Servers: 0.5, Load: 0.5, Other: 0.5, Stopped: 0.25}) {
		t.Errorf("%+v", c)
	}
	if c := c.and(0.3); c.Load != 0.8 || c.Other != 0.2 {
		t.Errorf("with a child: %+v", c)
	}
}

// scaled makes the samples of one round.
func scaled(share float64, rates map[scaleSide]float64) (out []scaleSample) {
	for side, rate := range rates {
		s := scaleSample{Side: side.String(), Load: load.Result{Throughput: rate}, Cost: Cost{Servers: share}}
		if side.kind == cluster.Mesh {
			s.Spread = Spread{Leaders: make([]int, side.size)}
			for i := range side.size {
				s.Spread.Leaders[i] = 1
			}
		}
		out = append(out, s)
	}
	return out
}

func TestScaleVerdict(t *testing.T) {
	three, nine, etcd := scaleSide{cluster.Mesh, 3}, scaleSide{cluster.Mesh, 9}, scaleSide{cluster.Etcd, 3}
	b := Scale{Config: Default(), Sizes: []int{3, 9}, Share: 0.1, PerNode: 1, Etcd: true}
	judge := func(samples []scaleSample) Verdict {
		var r Report
		b.judge(&r, samples)
		return r.Verdicts[0]
	}
	if v := judge(scaled(0.5, map[scaleSide]float64{three: 100, nine: 215, etcd: 50})); !v.Met || v.Void != "" || !strings.Contains(v.Found, "mesh of 9 over etcd: 4.30") {
		t.Error(v)
	}
	if v := judge(scaled(0.5, map[scaleSide]float64{three: 100, nine: 205, etcd: 50})); v.Met || v.Void != "" {
		t.Error(v)
	}
	if v := judge(scaled(1000, map[scaleSide]float64{three: 100, nine: 300, etcd: 50})); v.Void == "" {
		t.Error("a machine without idle time decides: ", v)
	}
	crooked := scaled(0.5, map[scaleSide]float64{nine: 300})
	crooked[0].Spread = Spread{Leaders: []int{9, 0, 0, 0, 0, 0, 0, 0, 0}}
	if v := judge(append(crooked, scaled(0.5, map[scaleSide]float64{three: 100})...)); v.Void == "" {
		t.Error("leaders on one node decide: ", v)
	}
	if v := judge(nil); v.Void == "" || v.Met {
		t.Error("nothing decides: ", v)
	}
}

func TestNeighbourVerdict(t *testing.T) {
	b := Neighbour{Config: Default(), Probe: 20}
	result := func(p99 float64) load.Result { return load.Result{Latency: load.Latency{P99: p99}} }
	sample := func(side string, loaded float64, leaders ...int) neighbourSample {
		return neighbourSample{
			Side: side, Spread: Spread{Leaders: leaders},
			Idle: calm{Put: result(1000), Get: result(1000)}, Loaded: calm{Put: result(1000), Get: result(loaded)},
		}
	}
	two := b.sides()[1].name
	for _, c := range []struct {
		s         neighbourSample
		met, void bool
	}{{sample(two, 1300, 1, 1, 0), true, false}, {sample(two, 1400, 1, 1, 0), false, false}, {sample(two, 1000, 2, 0, 0), true, true}} {
		var r Report
		b.judge(&r, []neighbourSample{c.s})
		if v := r.Verdicts[0]; v.Met != c.met || (v.Void != "") != c.void {
			t.Errorf("%+v: %s", c.s.Spread, v)
		}
	}
}

func TestOtherVerdicts(t *testing.T) {
	verdict := func(f func(*Report)) Verdict {
		var r Report
		f(&r)
		return r.Verdicts[0]
	}
	gaps := func(ms time.Duration) []splitSample {
		return []splitSample{{Gaps: []time.Duration{ms * time.Millisecond}}}
	}
	for want, f := range map[bool][]func(*Report){
		true: {
			func(r *Report) { Split{}.judge(r, gaps(50)) },
			func(r *Report) {
				Failover{Segments: 1}.judge(r, []failoverSample{{Outages: []outage{{Led: true, Away: 2 * time.Second}}}})
			},
			func(r *Report) {
				Idle{}.judge(r, idleSample{One: idleState{1, []idleNode{{}}, 0}, Many: idleState{101, []idleNode{{CPU: 0.01, RSS: 100 * 19 << 10}}, 0}})
			},
		},
		false: {
			func(r *Report) { Split{}.judge(r, gaps(51)) },
			func(r *Report) { Split{}.judge(r, nil) },
			func(r *Report) {
				Failover{Segments: 1}.judge(r, []failoverSample{{Outages: []outage{{Led: true, Away: 3 * time.Second}}}})
			},
			func(r *Report) {
				Idle{}.judge(r, idleSample{One: idleState{1, []idleNode{{}}, 0}, Many: idleState{101, []idleNode{{CPU: 0.02}}, 0}})
			},
		},
	} {
		for i, judge := range f {
			if v := verdict(judge); v.Met != want {
				t.Errorf("%v, number %d: %s", want, i, v)
			}
		}
	}
	watch := Watch{Segments: 4}
	sample := func(prefix string, p99 float64) watchSample {
		return watchSample{Side: watch.side(prefix), Load: load.Result{Latency: load.Latency{P99: p99}}}
	}
	v := verdict(func(r *Report) { watch.judge(r, []watchSample{sample(watchNarrow, 100), sample(watchWide, 201)}) })
	if v.Met || v.Void != "" {
		t.Error(v)
	}
	broken := sample(watchWide, 100)
	broken.Error = "cancelled"
	if v := verdict(func(r *Report) { watch.judge(r, []watchSample{sample(watchNarrow, 100), broken}) }); v.Void == "" {
		t.Error("a broken watch decides: ", v)
	}
}

// Tables have a cell for every column.
func TestReportsAreWhole(t *testing.T) {
	var r Report
	Scale{Config: Default(), Sizes: []int{3, 9}, Etcd: true}.judge(&r, scaled(0.1, map[scaleSide]float64{{cluster.Mesh, 3}: 1, {cluster.Etcd, 3}: 1}))
	r.Notes = []string{"note"}
	for _, row := range r.Table {
		if len(row) != len(r.Table[0]) {
			t.Errorf("%d cells under %d columns: %v", len(row), len(r.Table[0]), row)
		}
	}
	var text, markdown strings.Builder
	if r.WriteText(&text) != nil || r.WriteMarkdown(&markdown) != nil {
		t.Fatal("not written")
	}
	if !strings.Contains(text.String(), "UNDECIDED") && !strings.Contains(text.String(), "NOT MET") || !strings.Contains(markdown.String(), "| mesh 3 | ") {
		t.Errorf("%s\n%s", text.String(), markdown.String())
	}
}

// What a benchmark cannot do is refused before anything is started.
func TestSettingsThatCannotWork(t *testing.T) {
	for want, with := range map[string]func(*Config){
		"made faster":   func(c *Config) { c.SyncDelay = -1 },
		"from 0 to 19":  func(c *Config) { c.FloodNice = 20 },
		"at least one ": func(c *Config) { c.Nodes = 0 },
	} {
		c := Default()
		with(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

func TestTheFloodStandsBehind(t *testing.T) {
	c := Config{Flood: []string{"bench", "load-child"}}
	if got := c.flooding(); !slices.Equal(got, c.Flood) {
		t.Errorf("%q", got)
	}
	c.FloodNice = 19
	if got := c.flooding(); !slices.Equal(got, []string{"nice", "-n", "19", "bench", "load-child"}) {
		t.Errorf("%q", got)
	}
}

// What approvals cost is judged by pairs, and only where batches are of the size that the
// aim is about.
func TestApprovalsVerdict(t *testing.T) {
	b := Approvals{Config: Default()}
	sample := func(side string, pair int, cpu, batch float64) approvalsSample {
		return approvalsSample{Side: side, Round: 1, Pair: pair, CPU: cpu, Batch: batch}
	}
	// Pairs of 1.2, 1.5 and 1.1; the medians of the sides would give 1.5.
	pairs := func(batch float64) (out []approvalsSample) {
		for i, cpu := range [][2]float64{{100, 120}, {200, 300}, {300, 330}} {
			out = append(out, sample("normal", i, cpu[0], 0), sample("approved", i, cpu[1], batch))
		}
		return out
	}
	for _, c := range []struct {
		samples   []approvalsSample
		met, void bool
	}{
		{pairs(60), true, false},
		{pairs(20), true, true},
		{append(pairs(60), sample("normal", 9, 100, 0), sample("approved", 9, 140, 60), sample("normal", 8, 100, 0), sample("approved", 8, 150, 60)), false, false},
		{[]approvalsSample{sample("normal", 1, 100, 0), sample("approved", 2, 100, 60)}, false, true},
		{nil, false, true},
	} {
		var r Report
		b.judge(&r, c.samples)
		if v := r.Verdicts[0]; v.Met != c.met || (v.Void != "") != c.void {
			t.Errorf("%+v: %s", c.samples, v)
		}
		for _, row := range r.Table {
			if len(row) != len(r.Table[0]) {
				t.Errorf("%d cells under %d columns: %v", len(row), len(r.Table[0]), row)
			}
		}
	}
}
