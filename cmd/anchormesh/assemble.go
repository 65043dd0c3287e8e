package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node"
	"github.com/anchormesh/anchormesh/node/config"
)

// member is a node as this program needs it.
type member interface {
	// Run serves until ctx ends, then stops in order and returns nil; any other
	// end is an error.
	Run(ctx context.Context) error
	// Check does one linearizable read through this node. nil: it serves. It may
	// be called at any time, also before Run, and heeds ctx.
	Check(ctx context.Context) error
}

// newMember makes the node that cfg describes; it opens nothing before Run.
var newMember = func(cfg config.Config, key meshkey.Key, version string, log *slog.Logger) (member, error) {
	n, err := node.New(cfg, key, version, log)
	if err != nil {
		return nil, err
	}
	n.OnFailure(func(err error) {
		report(os.Stderr, fmt.Errorf("%s: %w", cfg.Identity.Name, err))
		os.Exit(exitFailed)
	})
	return n, nil
}
