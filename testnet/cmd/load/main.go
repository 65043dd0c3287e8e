// Command load puts one workload on a running cluster and prints what it
// measured. See package testnet/load for the workloads.
//
//	go run ./testnet/cmd/load --endpoints http://127.0.0.1:2379 --workload put --clients 100
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/load"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	cfg := load.Default()
	flags := flag.NewFlagSet("load", flag.ExitOnError)
	endpoints := flags.String("endpoints", "http://127.0.0.1:2379", "comma-separated client URLs")
	asJSON := flags.Bool("json", false, "print the result as JSON")
	flags.StringVar(&cfg.Workload, "workload", "put", "one of "+strings.Join(load.Workloads(), ", "))
	flags.IntVar(&cfg.Clients, "clients", cfg.Clients, "closed-loop clients")
	flags.IntVar(&cfg.Conns, "conns", cfg.Conns, "connections; 0: a tenth of the clients, at least one per endpoint")
	flags.DurationVar(&cfg.Warmup, "warmup", cfg.Warmup, "load before the measured window")
	flags.DurationVar(&cfg.Duration, "duration", cfg.Duration, "length of the measured window")
	flags.IntVar(&cfg.Keys, "keys", cfg.Keys, "size of the key space")
	flags.IntVar(&cfg.ValueSize, "value-size", cfg.ValueSize, "bytes of a value")
	flags.IntVar(&cfg.RangeKeys, "range-keys", cfg.RangeKeys, "keys per range")
	flags.IntVar(&cfg.ReadPercent, "read-percent", cfg.ReadPercent, "share of gets in mixed")
	flags.IntVar(&cfg.WatchRate, "watch-rate", cfg.WatchRate, "puts per second in watch")
	flags.IntVar(&cfg.Rate, "rate", cfg.Rate, "requests per second of all clients together; 0: closed loops")
	flags.StringVar(&cfg.Prefix, "prefix", cfg.Prefix, "prefix of every key")
	flags.Uint64Var(&cfg.Seed, "seed", cfg.Seed, "of the choice of keys and values")
	if err := flags.Parse(args); err != nil {
		return err
	}
	cfg.Endpoints = strings.Split(*endpoints, ",")
	result, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(result)
	}
	fmt.Println(result)
	return nil
}
