package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/binaries"
)

// prepareEtcd gives the nodes the command lines of a static etcd cluster.
func prepareEtcd(ctx context.Context, c *Cluster, cfg Config) error {
	paths, err := binaries.Etcd(ctx)
	if err != nil {
		return err
	}
	var members []string
	for _, n := range c.Nodes {
		members = append(members, n.Name+"=http://"+n.Peer)
	}
	for _, n := range c.Nodes {
		n.command = func(n *Node, _ bool) (string, []string) {
			return paths.Etcd, append([]string{
				"--name", n.Name,
				"--data-dir", n.Dir,
				"--listen-client-urls", "http://" + n.Client,
				"--advertise-client-urls", "http://" + n.Client,
				"--listen-peer-urls", "http://" + n.Peer,
				"--initial-advertise-peer-urls", "http://" + n.Peer,
				"--initial-cluster", strings.Join(members, ","),
			}, cfg.Args...)
		}
	}
	return nil
}

// prepareMesh makes a mesh key and gives the nodes the command lines of
// "anchormesh serve". The first node creates the mesh, at its first start only;
// everyone joins through everyone else, so that any node can return while any
// other is away.
func prepareMesh(ctx context.Context, c *Cluster, cfg Config) error {
	program := binaries.AnchorMesh
	if cfg.Failpoints != "" {
		program = binaries.Failpoints
	}
	path, err := program(ctx)
	if err != nil {
		return err
	}
	key, err := exec.CommandContext(ctx, path, "key", "new").Output()
	if err != nil {
		return fmt.Errorf("cluster: anchormesh key new: %w", err)
	}
	keyFile := filepath.Join(cfg.Dir, "mesh.key")
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		return err
	}
	for i, n := range c.Nodes {
		join := c.othersGossip(n)
		n.command = func(n *Node, first bool) (string, []string) {
			host, port, _ := net.SplitHostPort(n.Peer)
			args := []string{
				"serve",
				"--name", n.Name,
				"--data-dir", n.Dir,
				"--client-addr", n.Client,
				"--peer-addr", "/ip4/" + host + "/tcp/" + port,
				"--gossip-addr", n.Gossip,
				"--http-addr", n.HTTP,
				"--mesh-key-file", keyFile,
			}
			if first && i == 0 {
				args = append(args, "--genesis")
			} else if join != "" {
				args = append(args, "--join", join)
			}
			return path, append(args, cfg.Args...)
		}
	}
	return nil
}

func (c *Cluster) othersGossip(self *Node) string {
	var out []string
	for _, n := range c.Nodes {
		if n != self {
			out = append(out, n.Gossip)
		}
	}
	return strings.Join(out, ",")
}
