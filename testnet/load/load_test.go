package load

import (
	"context"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// Quantiles of the histogram are those of the sorted values, within a bucket.
func TestHistogramAgreesWithSorting(t *testing.T) {
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, 0))
	var halves [2]histogram
	var values []time.Duration
	for i := range 20_000 {
		d := time.Duration(math.Exp(rng.Float64() * 24)) // 1 ns to 26 s
		values = append(values, d)
		halves[i%2].record(d)
	}
	h := halves[0]
	h.merge(&halves[1])
	slices.Sort(values)
	for _, q := range []float64{0, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
		want := values[max(0, int(q*float64(len(values))+0.5)-1)]
		got := h.quantile(q)
		if got < want || float64(got) > float64(want)*(1+1.0/(1<<subBits)) {
			t.Errorf("seed %d: quantile %v is %v, by sorting %v", seed, q, got, want)
		}
	}
	if h.max != values[len(values)-1] || h.count != uint64(len(values)) {
		t.Errorf("max %v, count %d", h.max, h.count)
	}
}

func TestBucketsAreContiguousAndInside(t *testing.T) {
	for i := range histBuckets {
		top := uint64(bucketMax(i))
		if bucketOf(top) != i {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d", i, top, bucketOf(top))
		}
		if i+1 < histBuckets && bucketOf(top+1) != i+1 {
			t.Fatalf("%d follows bucket %d but is in %d", top+1, i, bucketOf(top+1))
		}
	}
	var h histogram
	h.record(-1)
	h.record(math.MaxInt64)
	if h.count != 2 || h.buckets[0] != 1 || h.buckets[histBuckets-1] != 1 {
		t.Fatal("values outside the range are not counted at its ends")
	}
}

func TestValidateRefusesTheImpossible(t *testing.T) {
	good := Default()
	good.Endpoints, good.Workload = []string{"x"}, "put"
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no endpoint": func(c *Config) { c.Endpoints = nil },
		"workload":    func(c *Config) { c.Workload = "scan" },
		"clients":     func(c *Config) { c.Clients = 0 },
		"duration":    func(c *Config) { c.Duration = 0 },
		"keys":        func(c *Config) { c.Keys = 0 },
		"range":       func(c *Config) { c.Workload, c.RangeKeys = "range", c.Keys+1 },
		"stamp":       func(c *Config) { c.Workload, c.ValueSize = "watch", 4 },
		"rate":        func(c *Config) { c.Rate = -1 },
		"percent":     func(c *Config) { c.ReadPercent = 101 },
	} {
		bad := good
		change(&bad)
		if bad.Validate() == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

// Clients with a rate take turns, and what is late stays due when it was.
func TestTimetable(t *testing.T) {
	began := time.Now().Add(-time.Minute) // all is due
	s := &session{cfg: Config{Rate: 100, Clients: 4}, began: began}
	for id := range 4 {
		clock := s.timetable(id)
		for k := range 3 {
			due, err := clock.next(t.Context())
			if want := began.Add(time.Duration(k*4+id) * 10 * time.Millisecond); err != nil || !due.Equal(want) {
				t.Errorf("request %d of client %d is due at %s, want %s (%v)", k, id, due.Sub(began), want.Sub(began), err)
			}
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	late := timetable{due: time.Now().Add(time.Hour), step: time.Second}
	if _, err := late.next(ended); err == nil {
		t.Error("a client waits although the run is over")
	}
}

// Every workload runs against a real etcd without an error.
func TestWorkloadsAgainstEtcd(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Kind: cluster.Etcd, Size: 1, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, name := range Workloads() {
		t.Run(name, func(t *testing.T) {
			cfg := Default()
			cfg.Endpoints, cfg.Workload, cfg.Prefix = c.Endpoints(), name, name+"/"
			cfg.Clients, cfg.Keys, cfg.RangeKeys = 4, 600, 500
			cfg.Warmup, cfg.Duration = 100*time.Millisecond, 300*time.Millisecond
			opened, closed := 0, 0
			cfg.Opened, cfg.Closed = func() { opened++ }, func() { closed++ }
			r, err := Run(ctx, cfg)
			if err != nil || r.Failed() != 0 {
				t.Fatalf("%v, %v", err, r)
			}
			if opened != 1 || closed != 1 || r.Latency.P50 <= 0 || r.LoadCPUSeconds <= 0 {
				t.Fatalf("opened %d, closed %d times: %v", opened, closed, r)
			}
			t.Log(r)
		})
	}
}

// A server that is not there is an error, not a throughput of zero.
func TestNoServerIsAnError(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := Default()
	cfg.Endpoints, cfg.Workload, cfg.Clients = []string{"http://127.0.0.1:1"}, "put", 1
	cfg.Warmup, cfg.Duration = 0, 300*time.Millisecond
	ctx, stop := context.WithTimeout(ctx, time.Second)
	defer stop()
	if r, err := Run(ctx, cfg); err == nil {
		t.Fatalf("no error: %v", r)
	}
}
