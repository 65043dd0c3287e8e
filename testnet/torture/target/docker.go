package target

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/anchormesh/anchormesh/testnet/compose"
	"github.com/anchormesh/anchormesh/testnet/torture/fault"
)

// Docker starts the testnet of containers, with small disks if the machine allows,
// and takes it down at Close. A testnet that is up already is used as it is and
// stays; it has ordinary volumes, which are not filled.
func Docker(ctx context.Context, cfg compose.Config) (*Target, error) {
	t := &Target{Missing: map[fault.Kind]string{}, Close: func() error { return nil }}
	mesh, err := compose.Find(ctx, cfg)
	switch {
	case err == nil:
		t.lacks("the testnet was up before, with volumes on the disk of this machine, which is not ours to fill", fault.Full)
		err = mesh.Ready(ctx)
	case errors.Is(err, compose.ErrNotUp):
		mesh, err = t.up(ctx, cfg)
	}
	if err != nil {
		return nil, errors.Join(err, t.Close())
	}
	for _, n := range mesh.Nodes {
		t.Names = append(t.Names, n.Name)
		t.Endpoints = append(t.Endpoints, n.Endpoint)
	}
	t.lacks("containers share the run of one machine", fault.Power)
	t.Machines, t.Books = containers{mesh}, func(ctx context.Context) ([]string, func(), error) { return copies(ctx, mesh) }
	if err := canNetwork(ctx, mesh); err != nil {
		t.lacks(err.Error(), fault.Cut, fault.OneWay, fault.Split, fault.Delay, fault.Loss, fault.Isolate)
		return t, nil
	}
	t.Network = newBridge(ctx, mesh)
	return t, nil
}

// up starts the mesh for this run only.
func (t *Target) up(ctx context.Context, cfg compose.Config) (*compose.Mesh, error) {
	dir := filepath.Join(cfg.Root, ".cache", "testnet", "disks")
	var names []string
	for i := range compose.Size {
		names = append(names, fmt.Sprintf("data%d", i+1))
	}
	disks, err := NewDisks(ctx, dir, names)
	if err != nil {
		t.lacks(err.Error(), fault.Full)
	} else {
		cfg.Volumes = disks.Dirs
	}
	t.Disks = disks
	t.Close = func() error {
		return errors.Join(compose.Down(context.WithoutCancel(ctx), cfg), closeDisks(disks))
	}
	return compose.Up(ctx, cfg)
}

// copies takes the nodes' data directories out of their volumes.
func copies(ctx context.Context, mesh *compose.Mesh) (dirs []string, done func(), err error) {
	all, err := os.MkdirTemp("", "anchormesh-books-")
	if err != nil {
		return nil, nil, err
	}
	done = func() { _ = os.RemoveAll(all) } // what is left of a temporary directory harms nobody
	for _, n := range mesh.Nodes {
		dir := filepath.Join(all, n.Name)
		if _, err := compose.Run(ctx, "docker", "cp", n.Container+":"+compose.DataDir, dir); err != nil {
			done()
			return nil, nil, err
		}
		dirs = append(dirs, dir)
	}
	return dirs, done, nil
}

// canNetwork tells why the containers' network cannot be harmed.
func canNetwork(ctx context.Context, mesh *compose.Mesh) error {
	if os.Getuid() != 0 {
		return errors.New("the containers' network can be harmed by root only (nsenter, iptables)")
	}
	_, err := inside(ctx, mesh.Nodes[0], "iptables", "-S", "INPUT")
	if err != nil {
		return fmt.Errorf("no iptables in the containers' network namespaces: %w", err)
	}
	return nil
}

// containers are Machines.
type containers struct{ mesh *compose.Mesh }

func (c containers) docker(ctx context.Context, node int, args ...string) error {
	_, err := compose.Run(ctx, "docker", append(args, c.mesh.Nodes[node].Container)...)
	return err
}

func (c containers) Kill(ctx context.Context, node int) error {
	if running, err := c.Running(ctx, node); err != nil || !running {
		return err
	}
	return c.docker(ctx, node, "kill", "--signal", "KILL")
}

func (c containers) Stop(ctx context.Context, node int) error {
	if err := c.docker(ctx, node, "stop", "--time", "20"); err != nil {
		return err
	}
	code, err := compose.Run(ctx, "docker", "inspect", "--format", "{{.State.ExitCode}}", c.mesh.Nodes[node].Container)
	if err == nil && code != "0" {
		err = fmt.Errorf("%w: %s with status %s: %s", errUnclean, c.mesh.Nodes[node].Name, code, c.LogTail(node))
	}
	return err
}

// errUnclean is returned for a container that was asked to end and did not do so well.
var errUnclean = errors.New("target: container ended uncleanly")

func (c containers) Start(ctx context.Context, node int) error  { return c.docker(ctx, node, "start") }
func (c containers) Freeze(ctx context.Context, node int) error { return c.docker(ctx, node, "pause") }

func (c containers) Thaw(ctx context.Context, node int) error {
	status, err := c.status(ctx, node)
	if err != nil || status != "paused" {
		return err
	}
	return c.docker(ctx, node, "unpause")
}

func (c containers) status(ctx context.Context, node int) (string, error) {
	return compose.Run(ctx, "docker", "inspect", "--format", "{{.State.Status}}", c.mesh.Nodes[node].Container)
}

func (c containers) Running(ctx context.Context, node int) (bool, error) {
	status, err := c.status(ctx, node)
	return status == "running" || status == "paused", err
}

func (c containers) LogTail(node int) string { return c.mesh.LogTail(c.mesh.Nodes[node]) }

// inside runs a command of this machine in a container's network namespace.
func inside(ctx context.Context, n compose.Node, args ...string) (string, error) {
	pid, err := pidOf(ctx, n)
	if err != nil {
		return "", err
	}
	return compose.Run(ctx, "nsenter", append([]string{"--target", pid, "--net"}, args...)...)
}

// errGone is returned for a container that does not run: it has no network.
var errGone = errors.New("target: the container does not run")

func pidOf(ctx context.Context, n compose.Node) (string, error) {
	pid, err := compose.Run(ctx, "docker", "inspect", "--format", "{{.State.Pid}}", n.Container)
	if err == nil && strings.TrimSpace(pid) == "0" {
		return "", fmt.Errorf("%w: %s", errGone, n.Name)
	}
	return pid, err
}
