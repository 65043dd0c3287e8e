// Command bench compares a mesh with a real etcd on this machine and prints
// medians and ratios. See package testnet/bench for the method. With a name it runs
// one of the benchmarks of package testnet/bench/segments.
//
//	go run ./testnet/cmd/bench                                # what "make bench-etcd" runs
//	go run ./testnet/cmd/bench --cases put:100 --rounds 5
//	go run ./testnet/cmd/bench --subject etcd --peer etcd     # the machine's own noise
//	go run ./testnet/cmd/bench --peer none
//	go run ./testnet/cmd/bench scale --sizes 3,6 --share 0.1  # what "make bench-scale" runs
//	go run ./testnet/cmd/bench split -h
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/bench"
	"github.com/anchormesh/anchormesh/testnet/cluster"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	command, args := run, os.Args[1:]
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command = func(ctx context.Context, args []string) error { return runNamed(ctx, args[0], args[1:]) }
	}
	if err := command(ctx, args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := bench.Default()
	cfg.Progress = os.Stderr
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	subject := flags.String("subject", string(cfg.Subject), "what is measured: mesh or etcd")
	peer := flags.String("peer", string(cfg.Peer), "what it is compared with: etcd, mesh or none")
	cases := flags.String("cases", bench.DefaultCases, "comma-separated workload:clients")
	dir := flags.String("dir", os.TempDir(), "parent of all data directories; choose the disk by it")
	jsonFile := flags.String("json", "", "file for the report with every single run")
	markdownFile := flags.String("markdown", "", "file for the table as markdown")
	flags.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "rounds; medians are taken over them")
	flags.IntVar(&cfg.Nodes, "nodes", cfg.Nodes, "nodes per cluster")
	flags.DurationVar(&cfg.Load.Duration, "duration", cfg.Load.Duration, "measured window per case")
	flags.DurationVar(&cfg.Load.Warmup, "warmup", cfg.Load.Warmup, "load before the window")
	flags.IntVar(&cfg.Load.Keys, "keys", cfg.Load.Keys, "size of the key space")
	flags.IntVar(&cfg.Load.ValueSize, "value-size", cfg.Load.ValueSize, "bytes of a value")
	flags.IntVar(&cfg.Load.RangeKeys, "range-keys", cfg.Load.RangeKeys, "keys per range")
	flags.IntVar(&cfg.Load.Conns, "conns", cfg.Load.Conns, "connections; 0: a tenth of the clients, at least one per node")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if cfg.Cases, err = bench.ParseCases(*cases); err != nil {
		return err
	}
	cfg.Dir, cfg.Subject, cfg.Peer = *dir, cluster.Kind(*subject), cluster.Kind(*peer)
	if *peer == "none" {
		cfg.Peer = ""
	}
	report, runErr := bench.Run(ctx, cfg)
	if len(report.Samples) == 0 {
		return runErr
	}
	return errors.Join(runErr, write(report, *jsonFile, *markdownFile), failures(report))
}

// printable is a report of either kind.
type printable interface {
	WriteText(w io.Writer) error
	WriteMarkdown(w io.Writer) error
}

// write prints the table and fills the files that were asked for.
func write(report printable, jsonFile, markdownFile string) error {
	if err := report.WriteText(os.Stdout); err != nil {
		return err
	}
	if jsonFile != "" {
		data, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(jsonFile, data, 0o644); err != nil {
			return err
		}
	}
	if markdownFile == "" {
		return nil
	}
	f, err := os.Create(markdownFile)
	if err != nil {
		return err
	}
	return errors.Join(report.WriteMarkdown(f), f.Close())
}

// failures makes the command fail if any run or operation did.
func failures(report bench.Report) error {
	failed := report.Failed()
	if len(failed) == 0 {
		return nil
	}
	return fmt.Errorf("bench: %d of %d runs saw failures, the first: round %d, %s, %s", len(failed), len(report.Samples), failed[0].Round, failed[0].Side, failed[0])
}
