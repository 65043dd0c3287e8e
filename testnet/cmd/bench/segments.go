package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/testnet/bench/segments"
)

// benchmark is one that "bench NAME" runs.
type benchmark interface {
	Run(ctx context.Context) (*segments.Report, error)
}

// setup declares a benchmark's own flags, with the common ones already declared on
// cfg, and returns what to run once they are parsed.
type setup func(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error)

var named = map[string]setup{
	"scale":          setupScale,
	"neighbour":      setupNeighbour,
	"split":          setupSplit,
	"watch-segments": setupWatch,
	"failover":       setupFailover,
	"idle":           setupIdle,
	"classes":        setupClasses,
	"approvals":      setupApprovals,
}

// childName is the hidden benchmark that a benchmark runs as its own child.
const childName = "load-child"

func runNamed(ctx context.Context, name string, args []string) error {
	if name == childName {
		return segments.Child(ctx, os.Stdin, os.Stdout)
	}
	make, ok := named[name]
	if !ok {
		return fmt.Errorf("bench: unknown benchmark %q, known are %s; without a name it compares with etcd", name, strings.Join(slices.Sorted(maps.Keys(named)), ", "))
	}
	cfg := segments.Default()
	cfg.Progress = os.Stderr
	if self, err := os.Executable(); err == nil {
		cfg.Flood = []string{self, childName}
	}
	flags := flag.NewFlagSet("bench "+name, flag.ExitOnError)
	build := make(flags, &cfg)
	flags.StringVar(&cfg.Dir, "dir", cfg.Dir, "parent of all data directories; choose the disk by it")
	flags.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "rounds; medians are taken over them")
	flags.IntVar(&cfg.Nodes, "nodes", cfg.Nodes, "nodes of a mesh")
	flags.IntVar(&cfg.Clients, "clients", cfg.Clients, "closed-loop clients")
	flags.IntVar(&cfg.Keys, "keys", cfg.Keys, "size of the key space")
	flags.IntVar(&cfg.ValueSize, "value-size", cfg.ValueSize, "bytes of a value")
	flags.DurationVar(&cfg.Warmup, "warmup", cfg.Warmup, "before each window")
	flags.DurationVar(&cfg.Duration, "duration", cfg.Duration, "each measured window")
	jsonFile := flags.String("json", "", "file for the report with every single run")
	markdownFile := flags.String("markdown", "", "file for the report as markdown")
	meshArgs := flags.String("mesh-args", "", "further arguments of mesh nodes, separated by spaces, such as --pprof")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg.MeshArgs = strings.Fields(*meshArgs)
	b, err := build()
	if err != nil {
		return err
	}
	report, runErr := b.Run(ctx)
	if report == nil {
		return runErr
	}
	return errors.Join(runErr, write(report, *jsonFile, *markdownFile))
}

func setupScale(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	sizes := flags.String("sizes", "3,6,9", "nodes of the meshes, ascending")
	share := flags.Float64("share", 0.12, "of a core, per node")
	perNode := flags.Int("segments-per-node", 1, "segments per node")
	etcd := flags.Bool("etcd", true, "measure an etcd of three as well")
	return func() (benchmark, error) {
		b := segments.Scale{Config: *cfg, Share: *share, PerNode: *perNode, Etcd: *etcd}
		for field := range strings.SplitSeq(*sizes, ",") {
			n, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("bench: sizes %q: %w", *sizes, err)
			}
			b.Sizes = append(b.Sizes, n)
		}
		return b, nil
	}
}

func setupNeighbour(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	cfg.Duration = 20 * time.Second
	probe := flags.Int("probe", 20, "puts per second of the probe, and as many gets")
	rate := flags.Int("flood-rate", 0, "puts per second of the flood; 0: as fast as it goes")
	etcd := flags.Bool("etcd", true, "measure an etcd as well")
	floodNice(flags, cfg)
	return func() (benchmark, error) {
		return segments.Neighbour{Config: *cfg, Probe: *probe, FloodRate: *rate, Etcd: *etcd}, nil
	}
}

func setupSplit(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	cfg.Clients = 8
	splits := flags.Int("splits", 100, "per round")
	pause := flags.Duration("pause", 500*time.Millisecond, "between splits")
	return func() (benchmark, error) {
		return segments.Split{Config: *cfg, Splits: *splits, Pause: *pause}, nil
	}
}

func setupWatch(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	cfg.Clients = 8
	n := flags.Int("segments", 4, "of the wide watch")
	rate := flags.Int("rate", 100, "puts per second")
	return func() (benchmark, error) { return segments.Watch{Config: *cfg, Segments: *n, Rate: *rate}, nil }
}

func setupFailover(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	n := flags.Int("segments", 300, "active segments")
	beat := flags.Duration("beat", time.Second, "between two puts into each segment")
	stop := flags.Bool("stop", false, "SIGSTOP in place of SIGKILL: no connection ends")
	return func() (benchmark, error) {
		return segments.Failover{Config: *cfg, Segments: *n, Beat: *beat, Stop: *stop}, nil
	}
}

func setupIdle(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	cfg.Warmup, cfg.Duration, cfg.Keys = 15*time.Second, time.Minute, 1_000_000
	n := flags.Int("segments", 1000, "idle segments")
	rest := flags.Duration("rest", 130*time.Second, "before the window with many segments")
	return func() (benchmark, error) { return segments.Idle{Config: *cfg, Segments: *n, Rest: *rest}, nil }
}

func floodNice(flags *flag.FlagSet, cfg *segments.Config) {
	flags.IntVar(&cfg.FloodNice, "flood-nice", 0, "of the process that floods, 1 to 19: it gets the CPU that nodes and probe leave, where they share a machine")
}

func setupClasses(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	cfg.Clients = 8
	probe := flags.Int("probe", 20, "puts per second of the probe of the strong scope")
	etcd := flags.Bool("etcd", true, "measure an etcd as well")
	procs := flags.Int("procs", 0, "threads that run Go code at once in each node and each etcd (GOMAXPROCS); 0: the machine's cores divided by the nodes")
	floodNice(flags, cfg)
	flags.DurationVar(&cfg.SyncDelay, "sync-delay", 0, "added to each sync of the nodes' logs, of all three classes alike, as on a slower disk; there is no etcd beside it then")
	return func() (benchmark, error) {
		return segments.Classes{Config: *cfg, Probe: *probe, Procs: procsOf(*procs, cfg), Etcd: *etcd && cfg.SyncDelay == 0}, nil
	}
}

// procsOf is so many threads, or each node's share of the machine.
func procsOf(procs int, cfg *segments.Config) int {
	return cmp.Or(procs, max(1, runtime.NumCPU()/max(1, cfg.Nodes)))
}

func setupApprovals(flags *flag.FlagSet, cfg *segments.Config) func() (benchmark, error) {
	cfg.Rounds, cfg.Clients, cfg.Duration = 1, 192, 5*time.Second
	pairs := flags.Int("pairs", 6, "of windows in each mesh")
	procs := flags.Int("procs", 0, "threads that run Go code at once in each node (GOMAXPROCS); 0: the machine's cores divided by the nodes")
	return func() (benchmark, error) {
		return segments.Approvals{Config: *cfg, Pairs: *pairs, Procs: procsOf(*procs, cfg)}, nil
	}
}
