package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/cmd/anchormesh/scope"
	"github.com/anchormesh/anchormesh/internal/trim"
)

// Exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// gcPercent is below Go's default: most of a node's memory lives long (the key
// index, recent log entries), and a heap that may double would double it for
// nothing. Measured: a quarter less memory for 1 to 2 % more CPU under puts.
// GOGC in the environment wins.
const gcPercent = 40

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop; a second one, no longer caught, kills.
	context.AfterFunc(ctx, stop)
	go trim.Run(ctx)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run is the program without its process.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, ask.ErrUsage):
		report(stderr, err)
		fmt.Fprintf(stderr, "See \"%s --help\".\n", cmd.CommandPath())
		return exitUsage
	}
	report(stderr, err)
	return exitFailed
}

// report writes each problem of err on its own line.
func report(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "anchormesh: %s\n", strings.TrimSuffix(line, "\n"))
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "anchormesh",
		Short: "An etcd-compatible key-value store without a centre",
		Long: `AnchorMesh serves the etcd v3 API from a mesh of equal nodes. The keyspace is
cut into segments; each is governed by its own anchor group, which recruits its
members from the nodes that gossip finds. No node is in charge of the others.

To try it:      anchormesh dev
To run a node:  anchormesh serve --help
To use it:      any etcd v3 client, etcdctl for one, on any node

Exit statuses: 0 done; 1 failed; 2 wrong command line or configuration.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          ask.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return ask.Usage(err) })
	root.AddCommand(
		newDev(), newServe(),
		newNodes(), newSegments(), newSplit(), newMerge(), newMove(), newTransfer(), newDrain(), newStatus(), newLineage(), newVerify(),
		scope.New(), scope.NewTrust(),
		newInspect(), newKey(), newVersion(),
	)
	return root
}
