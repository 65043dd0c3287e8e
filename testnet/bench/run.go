package bench

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/load"
)

// Sample is one case of one side in one round.
type Sample struct {
	Side  string `json:"side"`
	Round int    `json:"round"`
	Case  Case   `json:"case"`
	Error string `json:"error,omitempty"` // why there is no Load

	Load                 load.Result `json:"load"`
	ServerCPUSeconds     float64     `json:"server_cpu_seconds"` // all nodes
	ServerCPUMicrosPerOp float64     `json:"server_cpu_us_per_operation"`
	RSSBytes             int64       `json:"rss_bytes"`       // largest node
	OtherCPUShare        float64     `json:"other_cpu_share"` // of the whole machine, by neither servers nor load
}

// Report is a whole comparison.
type Report struct {
	Machine Machine     `json:"machine"`
	Command []string    `json:"command"`
	Started time.Time   `json:"started"`
	Sides   []string    `json:"sides"` // subject first
	Nodes   int         `json:"nodes"`
	Rounds  int         `json:"rounds"`
	Cases   []Case      `json:"cases"`
	Config  load.Config `json:"load"`
	Samples []Sample    `json:"samples"`
}

// clusterStart bounds building and starting one cluster.
const clusterStart = 5 * time.Minute

// Run performs the comparison. A case that fails becomes a Sample with an
// Error; a cluster that does not start ends the run, with what was measured.
func Run(ctx context.Context, cfg Config) (Report, error) {
	if err := cfg.Validate(); err != nil {
		return Report{}, err
	}
	sides := cfg.sides()
	report := Report{
		Command: os.Args, Started: time.Now(), Nodes: cfg.Nodes, Rounds: cfg.Rounds, Cases: cfg.Cases, Config: cfg.Load,
	}
	for _, s := range sides {
		report.Sides = append(report.Sides, s.Name)
	}
	var err error
	if report.Machine, err = DescribeMachine(cfg.Dir); err != nil {
		return report, err
	}
	fmt.Fprintf(cfg.Progress, "%d rounds of %d cases on %d sides, at least %s\n", cfg.Rounds, len(cfg.Cases), len(sides), cfg.estimate())
	for round := range cfg.Rounds {
		order := slices.Clone(sides)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			samples, err := runSide(ctx, cfg, s, round)
			report.Samples = append(report.Samples, samples...)
			if err != nil {
				return report, fmt.Errorf("bench: round %d, %s: %w", round+1, s.Name, err)
			}
		}
	}
	return report, nil
}

// runSide runs all cases on a fresh cluster.
func runSide(ctx context.Context, cfg Config, s side, round int) ([]Sample, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	startCtx, cancel := context.WithTimeout(ctx, clusterStart)
	defer cancel()
	c, err := cluster.Start(startCtx, cluster.Config{Kind: s.Kind, Size: cfg.Nodes, Dir: dir, Args: cfg.Args[s.Kind]})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var out []Sample
	for _, k := range cfg.Cases {
		sample := runCase(ctx, cfg, c, k)
		sample.Side, sample.Round = s.Name, round+1
		out = append(out, sample)
		fmt.Fprintf(cfg.Progress, "round %d  %-6s %s\n", round+1, s.Name, sample)
		if err := ctx.Err(); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s Sample) String() string {
	if s.Error != "" {
		return fmt.Sprintf("%s: FAILED: %s", s.Case, s.Error)
	}
	return fmt.Sprintf("%s, server CPU %.1f us/op, RSS %d MiB, other CPU %.0f %%", s.Load, s.ServerCPUMicrosPerOp, s.RSSBytes>>20, 100*s.OtherCPUShare)
}

// reading is what is read at both ends of a window.
type reading struct {
	at      time.Time
	servers cluster.Usage
	busy    time.Duration // of the whole machine
	err     error
}

func read(c *cluster.Cluster) reading {
	r := reading{at: time.Now(), busy: MachineBusy()}
	r.servers, r.err = c.Usage()
	return r
}

func runCase(ctx context.Context, cfg Config, c *cluster.Cluster, k Case) Sample {
	runtime.GC() // the last case's garbage is not this one's cost
	l := cfg.loadFor(k, c.Endpoints())
	var begin, end reading
	l.Opened = func() { begin = read(c) }
	l.Closed = func() { end = read(c) }
	result, err := load.Run(ctx, l)
	s := Sample{Case: k, Load: result}
	for _, e := range []error{err, begin.err, end.err} {
		if e != nil {
			s.Error = e.Error()
			return s
		}
	}
	servers := end.servers.CPU - begin.servers.CPU
	s.ServerCPUSeconds = servers.Seconds()
	s.ServerCPUMicrosPerOp = float64(servers.Microseconds()) / float64(result.Ops)
	s.RSSBytes = end.servers.RSS
	capacity := end.at.Sub(begin.at).Seconds() * float64(runtime.NumCPU())
	s.OtherCPUShare = max(0, ((end.busy-begin.busy).Seconds()-s.ServerCPUSeconds-result.LoadCPUSeconds)/capacity)
	return s
}
