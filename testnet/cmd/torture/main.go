// Command torture runs the testnet of containers and does bad things to it.
//
//	go run ./testnet/cmd/torture up      build and start five containers, wait until they serve
//	go run ./testnet/cmd/torture down    remove them with their volumes
//	go run ./testnet/cmd/torture run     faults and traffic, then the checkers
//	go run ./testnet/cmd/torture judge   the checkers again, on the history that a run kept
//
// "run" starts a mesh of its own and takes it down at the end, unless one is up.
// "run -target process" needs no Docker. Exit statuses: 0 all promises kept (or, with
// -if-docker, nothing done for lack of an engine); 1 a promise was broken or the run
// failed; 2 wrong command line.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/compose"
	"github.com/anchormesh/anchormesh/testnet/torture"
	"github.com/anchormesh/anchormesh/testnet/torture/fault"
	"github.com/anchormesh/anchormesh/testnet/torture/structure"
	"github.com/anchormesh/anchormesh/testnet/torture/target"
	"github.com/anchormesh/anchormesh/testnet/torture/traffic"
	"github.com/anchormesh/anchormesh/testnet/torture/verify"
)

var (
	errUsage  = errors.New("usage: torture up|down|run|judge [flags]; torture run -h lists the flags")
	errBroken = errors.New("promises were broken")
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	o := options{cfg: torture.Default()}
	flags := flag.NewFlagSet("torture "+args[0], flag.ContinueOnError)
	flags.SetOutput(stderr)
	o.bind(flags, args[0])
	if err := flags.Parse(args[1:]); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil || flags.NArg() > 0 {
		return errUsage
	}
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	o.compose.Root = root
	if _, err := os.Stat(filepath.Join(root, "testnet", "compose")); err != nil {
		return fmt.Errorf("run it in the source tree: %w", err)
	}
	switch args[0] {
	case "up":
		return up(ctx, o.compose, stdout)
	case "down":
		return compose.Down(ctx, o.compose)
	case "judge":
		return o.judge(stdout)
	case "run":
		o.cfg.Log = slog.New(slog.NewTextHandler(stderr, nil))
		return o.run(ctx, stdout)
	}
	return errUsage
}

func up(ctx context.Context, cfg compose.Config, stdout io.Writer) error {
	mesh, err := compose.Up(ctx, cfg)
	if err != nil {
		return err
	}
	for _, n := range mesh.Nodes {
		fmt.Fprintf(stdout, "%s\t%s\n", n.Name, n.Endpoint)
	}
	return nil
}

// options are the flags.
type options struct {
	cfg      torture.Config
	compose  compose.Config
	target   string
	kind     string
	nodes    int
	minutes  float64
	out      string
	keep     bool
	ifDocker bool
	logs     string // directory of local processes' logs; empty: none
}

func (o *options) bind(flags *flag.FlagSet, name string) {
	flags.StringVar(&o.compose.Bin, "bin", "", "directory with a static anchormesh; empty: build it into bin/")
	flags.IntVar(&o.compose.Anchors, "anchors", 3, "anchors of the root scope: 1, 3 or 5")
	flags.StringVar(&o.out, "out", filepath.Join(".cache", "testnet", "torture"), "directory of report.json, and of history.jsonl and the processes' logs if a promise was broken")
	if name != "run" {
		return
	}
	flags.StringVar(&o.target, "target", "docker", "docker or process")
	flags.StringVar(&o.kind, "kind", string(cluster.Mesh), "of -target process: mesh or etcd (to try the torture itself)")
	flags.IntVar(&o.nodes, "nodes", compose.Size, "of -target process")
	flags.Float64Var(&o.minutes, "minutes", 2, "of traffic under faults")
	flags.IntVar(&o.cfg.Faults, "faults", o.cfg.Faults, "to do in that time")
	flags.Func("kinds", "of faults to choose from, comma-separated; default: all that the target allows", o.kinds)
	flags.Uint64Var(&o.cfg.Seed, "seed", uint64(time.Now().Unix()), "of the plan and the traffic")
	flags.DurationVar(&o.cfg.OutageGoal, "outage-goal", 0, "a longer outage of writes after a fault of a single node is a violation; 0: report only")
	flags.Float64Var(&o.cfg.Traffic.Rate, "rate", o.cfg.Traffic.Rate, "operations per second and worker")
	flags.IntVar(&o.cfg.Changes, "changes", 0, "splits, merges and moves that must be done meanwhile; 0: none are tried")
	flags.IntVar(&o.cfg.Automatic, "automatic", 0, "of -changes: splits and merges that the nodes must make by themselves; needs -target process")
	flags.IntVar(&o.cfg.Policies, "policies", 4, "changes of scopes that must be in force meanwhile, with users in four scopes of all classes; 0: there are no scopes")
	flags.BoolVar(&o.keep, "keep", false, "write the history in any case")
	flags.BoolVar(&o.ifDocker, "if-docker", false, "do nothing, saying so, where no Docker engine answers")
}

// kinds reads the names of kinds of faults.
func (o *options) kinds(text string) error {
	for name := range strings.SplitSeq(text, ",") {
		if !slices.Contains(fault.Kinds(), fault.Kind(name)) {
			return fmt.Errorf("%q is none of %v", name, fault.Kinds())
		}
		o.cfg.Kinds = append(o.cfg.Kinds, fault.Kind(name))
	}
	return nil
}

func (o *options) run(ctx context.Context, stdout io.Writer) (err error) {
	o.cfg.Length = time.Duration(o.minutes * float64(time.Minute))
	if o.kind == string(cluster.Etcd) {
		o.cfg.Policies = 0
	}
	if o.target == "docker" && o.ifDocker {
		if _, err := compose.Engine(ctx); err != nil {
			fmt.Fprintf(stdout, "SKIPPED: the torture of containers did not run: %v\n", err)
			return nil
		}
	}
	t, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	report, log, err := torture.Run(ctx, o.cfg, t)
	if err != nil {
		return err
	}
	if err := o.write(report, log); err != nil {
		return err
	}
	if err := report.Print(stdout); err != nil {
		return err
	}
	if len(report.Violations) > 0 {
		return fmt.Errorf("%w: see %s", errBroken, o.out)
	}
	return nil
}

func (o *options) open(ctx context.Context) (*target.Target, error) {
	switch o.target {
	case "docker":
		return target.Docker(ctx, o.compose)
	case "process":
		dir, err := os.MkdirTemp("", "anchormesh-torture-")
		if err != nil {
			return nil, err
		}
		var args []string
		if o.cfg.Automatic > 0 {
			args = structure.HasteArgs()
		}
		o.logs = dir
		t, err := target.Processes(ctx, cluster.Kind(o.kind), o.nodes, dir, args...)
		if err != nil {
			return nil, err
		}
		closeTarget := t.Close
		t.Close = func() error { return errors.Join(closeTarget(), os.RemoveAll(dir)) }
		return t, nil
	}
	return nil, errUsage
}

// write keeps the report, and the history if somebody will want to look at it.
func (o *options) write(report *torture.Report, log *traffic.Log) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(o.out, "report.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	if len(report.Violations) == 0 && !o.keep {
		return nil
	}
	f, err := os.Create(filepath.Join(o.out, "history.jsonl"))
	if err != nil {
		return err
	}
	return errors.Join(log.Write(f), f.Close(), o.keepLogs())
}

// keepLogs copies what local processes logged.
func (o *options) keepLogs() error {
	if o.logs == "" {
		return nil
	}
	names, err := filepath.Glob(filepath.Join(o.logs, "*.log"))
	for _, name := range names {
		var text []byte
		if text, err = os.ReadFile(name); err == nil {
			err = os.WriteFile(filepath.Join(o.out, filepath.Base(name)), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return err
}

// judge runs the checkers on a history that was kept. Its last operation is taken
// for its end.
func (o *options) judge(stdout io.Writer) error {
	f, err := os.Open(filepath.Join(o.out, "history.jsonl"))
	if err != nil {
		return err
	}
	defer f.Close()
	log := &traffic.Log{}
	if err := log.Read(f); err != nil {
		return err
	}
	var ended int64
	for _, op := range log.Ops {
		ended = max(ended, op.Return)
	}
	verdicts := verify.All(log, torture.Bounds(time.Duration(ended)))
	for _, v := range verdicts {
		verdict := "holds"
		if v.Err != nil {
			verdict = "BROKEN: " + v.Err.Error()
		}
		fmt.Fprintf(stdout, "%s: %d judged: %s\n", v.Name, v.Judged, verdict)
	}
	if verify.Problems(verdicts) != nil {
		return errBroken
	}
	return nil
}
