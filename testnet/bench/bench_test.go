package bench

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

func sample(side string, k Case, throughput float64) Sample {
	return Sample{Side: side, Case: k, Load: load.Result{Throughput: throughput, Ops: 1}}
}

func TestReportTakesMediansAndRatios(t *testing.T) {
	put, get := Case{"put", 1}, Case{"get", 1}
	r := Report{Sides: []string{"mesh", "etcd"}, Cases: []Case{put, get}, Rounds: 3}
	for _, v := range []float64{900, 100, 300} {
		r.Samples = append(r.Samples, sample("mesh", put, v))
	}
	for _, v := range []float64{100, 300} {
		r.Samples = append(r.Samples, sample("etcd", put, v))
	}
	broken := sample("etcd", put, 0)
	broken.Error = "no server"
	r.Samples = append(r.Samples, broken, sample("mesh", get, 5))
	rows := r.rows()
	for _, want := range []struct {
		row  int
		text string
	}{
		{1, "put:1 mesh 300"}, {2, " etcd 200"}, {3, " ratio 1.50"}, {4, "get:1 mesh 5"}, {5, " etcd failed"}, {6, " ratio -"},
	} {
		if got := strings.Join(rows[want.row], " "); !strings.HasPrefix(got, want.text) {
			t.Errorf("row %d is %q, want %q", want.row, got, want.text)
		}
	}
	if n := len(r.Failed()); n != 1 {
		t.Errorf("%d failed samples, want the one without a server", n)
	}
	if got := r.errors("etcd", put); got != 1 {
		t.Errorf("%d errors counted for a failed run", got)
	}
}

func TestParseCases(t *testing.T) {
	got, err := ParseCases("put:1, range:100")
	if err != nil || len(got) != 2 || got[1] != (Case{"range", 100}) {
		t.Fatal(got, err)
	}
	for _, bad := range []string{"", "put", "put:x"} {
		if _, err := ParseCases(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	cfg := Default()
	cfg.Dir = "."
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.Cases = []Case{{"nonsense", 1}}
	if cfg.Validate() == nil {
		t.Error("an unknown workload was accepted")
	}
}

// A short comparison of etcd with itself goes through everything but mesh.
func TestEtcdAgainstItself(t *testing.T) {
	if testing.Short() {
		t.Skip("starts two clusters")
	}
	if _, err := binaries.Etcd(t.Context()); err != nil { // the first build takes what it takes
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cfg := Default()
	cfg.Subject, cfg.Peer, cfg.Nodes, cfg.Rounds = cluster.Etcd, cluster.Etcd, 1, 1
	cfg.Cases = []Case{{"put", 4}, {"range", 2}}
	cfg.Dir = t.TempDir()
	cfg.Load.Keys, cfg.Load.Warmup, cfg.Load.Duration = 500, 100*time.Millisecond, 500*time.Millisecond
	report, err := Run(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Samples) != 4 || len(report.Failed()) != 0 {
		t.Fatalf("%d samples, failed: %v", len(report.Samples), report.Failed())
	}
	for _, s := range report.Samples {
		if s.ServerCPUMicrosPerOp <= 0 || s.RSSBytes == 0 || s.OtherCPUShare > 1 {
			t.Errorf("implausible: %+v", s)
		}
	}
	var text, markdown strings.Builder
	if report.WriteText(&text) != nil || report.WriteMarkdown(&markdown) != nil || !strings.Contains(markdown.String(), "| put:4 | etcd A |") {
		t.Errorf("report:\n%s", markdown.String())
	}
	t.Log(text.String())
}
