package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/anchormesh/anchormesh/cmd/anchormesh/ask"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node/config"
	"github.com/spf13/cobra"
)

func newDev() *cobra.Command {
	dev := config.DefaultDev()
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole mesh in this process, to try",
		Long: `Run a whole mesh in this process: real nodes with real logs, gossip and
streams, on loopback. The first node serves the etcd API on --client-addr, node i
on the port i-1 above. Ctrl-C stops it cleanly.

Without --data-dir the mesh lives in a fresh temporary directory that is removed
at the end. With --data-dir it stays there, and the next run with the same
directory goes on where this one stopped.`,
		Example: `  anchormesh dev
  anchormesh dev --nodes 5 --data-dir ./mesh`,
		Args: ask.NoArgs,
	}
	dev.Bind(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := ask.Usage(config.Fill(cmd.Flags(), os.LookupEnv)); err != nil {
			return err
		}
		if err := ask.Usage(dev.Validate()); err != nil {
			return err
		}
		return runDev(cmd, &dev)
	}
	return cmd
}

func runDev(cmd *cobra.Command, dev *config.Dev) (err error) {
	dir := dev.DataDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "anchormesh-dev-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	} else if err := refuseSmaller(dir, dev.Nodes); err != nil {
		return ask.Usage(err)
	}
	key, err := devKey(filepath.Join(dir, "mesh.key"))
	if err != nil {
		return err
	}
	ports, err := freePorts(int(dev.Nodes))
	if err != nil {
		return err
	}
	log := dev.Each.Log.Logger(cmd.ErrOrStderr())
	m := devMesh{dir: dir, temporary: dev.DataDir == "", log: log}
	for i := range dev.Nodes {
		cfg := dev.Node(i, dir, ports)
		node, err := newMember(cfg, key, version, log.With("node", cfg.Identity.Name))
		if err != nil {
			return fmt.Errorf("%s: %w", cfg.Identity.Name, err)
		}
		m.nodes = append(m.nodes, devNode{cfg: cfg, member: node})
	}
	return m.run(cmd.Context(), cmd.OutOrStdout())
}

// refuseSmaller keeps a mesh from being started without the majority it was left
// with: missing nodes would look dead and nothing would say why.
func refuseSmaller(dir string, nodes uint) error {
	kept, err := filepath.Glob(filepath.Join(dir, "node-*"))
	if err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	if len(kept) > int(nodes) {
		return fmt.Errorf("--data-dir: %s holds a mesh of %d nodes; run it with --nodes %d", dir, len(kept), len(kept))
	}
	return nil
}

// devKey reads the mesh's key, or makes it on the first run.
func devKey(path string) (meshkey.Key, error) {
	key, err := meshkey.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = meshkey.Generate()
		err = config.WriteMeshKey(path, key)
	}
	return key, err
}

type devNode struct {
	cfg config.Config
	member
}

// start runs the node; its end is told on the returned channel.
func (n devNode) start(ctx context.Context) <-chan error {
	end := make(chan error, 1)
	go func() {
		err := n.Run(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", n.cfg.Identity.Name, err)
		} else if ctx.Err() == nil {
			err = fmt.Errorf("%s stopped by itself", n.cfg.Identity.Name)
		}
		end <- err
	}()
	return end
}
