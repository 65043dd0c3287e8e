package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node"
	"github.com/anchormesh/anchormesh/node/config"
	"github.com/spf13/cobra"
)

func newServe() *cobra.Command {
	cfg := config.Default()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run one node",
		Long: `Run one node until it is interrupted.

Every mesh begins with one genesis node; all others join it, with the same mesh
key. The first three nodes become anchors of the keyspace, later ones serve
clients by forwarding and stand by to replace a dead anchor.

Each flag can also be given as an environment variable (--data-dir is
ANCHORMESH_DATA_DIR) or as a field of the YAML file that --config names
("data-dir: /var/lib/anchormesh"). A flag wins over a variable, a variable over
the file.`,
		Example: `  anchormesh key new > mesh.key
  anchormesh serve --name a --genesis --mesh-key-file mesh.key \
      --client-addr 10.0.0.1:2379
  anchormesh serve --name b --join 10.0.0.1:7946 --mesh-key-file mesh.key \
      --client-addr 10.0.0.2:2379`,
		Args: ask.NoArgs,
	}
	cfg.Bind(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return serve(cmd, &cfg) }
	return cmd
}

func serve(cmd *cobra.Command, cfg *config.Config) error {
	if err := ask.Usage(config.Fill(cmd.Flags(), os.LookupEnv)); err != nil {
		return err
	}
	if err := ask.Usage(cfg.Validate()); err != nil {
		return err
	}
	log := cfg.Log.Logger(cmd.ErrOrStderr())
	warnUnrecognised(cmd, log)
	key, err := cfg.MeshKey()
	if err != nil {
		return ask.Usage(err)
	}
	warnReadable(cfg.KeyPath(), log)
	node, err := newMember(*cfg, key, version, log)
	if err != nil {
		return err
	}
	return node.Run(cmd.Context())
}

func warnUnrecognised(cmd *cobra.Command, log *slog.Logger) {
	for _, name := range config.Unrecognised(cmd.Flags(), os.Environ()) {
		log.Warn("environment variable is not a flag of this command", "variable", name)
	}
}

// warnReadable speaks of a key that others may read. It is not refused: secrets
// mounted by an orchestrator often are like that.
func warnReadable(path string, log *slog.Logger) {
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		log.Warn("the mesh key file is readable by others", "file", path, "mode", fmt.Sprintf("%04o", info.Mode().Perm()))
	}
}

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
