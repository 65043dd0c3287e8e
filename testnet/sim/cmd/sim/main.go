// Command sim runs simulated meshes and prints the trace hash of each.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/anchormesh/anchormesh/testnet/sim"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// gcPercent lets the heap of a run, some tens of megabytes, grow to five times what
// lives before it is looked through: a quarter of the time otherwise.
const gcPercent = 400

func main() {
	seed := flag.Uint64("seed", 1, "first seed")
	seeds := flag.Uint64("seeds", 1, "number of seeds; 0 goes on until -for ends")
	hours := flag.Float64("hours", 0, "run one calm five-node mesh under load for this many simulated hours")
	limit := flag.Duration("for", 0, "stop after this much real time; 0 is no limit")
	history := flag.String("history", "", "write the history of the last run to this file")
	shrink := flag.Bool("shrink", false, "look for a smaller configuration that fails like the first failing seed")
	plant := flag.String("plant", "", "plant a fault, to see it found")
	quiet := flag.Bool("quiet", false, "print failures and the sum only")
	flag.Parse()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	var simulated time.Duration
	begin, runs, failed := time.Now(), 0, 0
	for s := *seed; *seeds == 0 || s < *seed+*seeds; s++ {
		if *limit > 0 && time.Since(begin) > *limit {
			break
		}
		cfg := plan.Swarm(s)
		if *hours > 0 {
			cfg = plan.Calm(s, time.Duration(*hours*float64(time.Hour)))
		}
		cfg.Plant = plan.Plant(*plant)
		report, err := sim.Run(cfg)
		runs++
		simulated += report.Elapsed
		if *history != "" {
			save(*history, report)
		}
		var f *sim.Failure
		if errors.As(err, &f) {
			failed++
			if *shrink {
				f = sim.Shrink(f)
			}
			fmt.Fprintf(os.Stderr, "FAIL %v\n", f)
			continue
		}
		if !*quiet {
			fmt.Printf("seed %d hash %016x events %d simulated %v %+v\n", s, report.Hash, report.Events, report.Elapsed.Round(time.Second), report.Stats)
		}
	}
	took := time.Since(begin)
	fmt.Printf("%d runs, %d failed, %.2f simulated hours in %v: %.0f simulated hours per hour\n",
		runs, failed, simulated.Hours(), took.Round(time.Second), simulated.Hours()/took.Hours())
	if failed > 0 {
		os.Exit(1)
	}
}

func save(name string, report *sim.Report) {
	f, err := os.Create(name)
	if err == nil {
		err = errors.Join(report.History.Write(f), f.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
