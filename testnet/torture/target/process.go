package target

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/torture/fault"
)

// Processes starts a cluster of local processes in dir; args are added to every
// node's command line.
func Processes(ctx context.Context, kind cluster.Kind, size int, dir string, args ...string) (*Target, error) {
	t := &Target{Missing: map[fault.Kind]string{}}
	for i := range size {
		t.Names = append(t.Names, fmt.Sprintf("n%d", i+1))
	}
	t.lacks("local processes share one network; use containers",
		fault.Isolate, fault.Cut, fault.OneWay, fault.Delay, fault.Loss, fault.Split)
	disks, err := NewDisks(ctx, dir, t.Names) // testnet/cluster puts node NAME into dir/NAME
	if err != nil {
		t.lacks(err.Error(), fault.Full)
	}
	t.Disks = disks
	if kind != cluster.Mesh {
		t.lacks("only nodes of a mesh remember their machine's run", fault.Power)
	}
	c, err := cluster.Start(ctx, cluster.Config{Kind: kind, Size: size, Dir: dir, Args: args})
	if err != nil {
		return nil, errors.Join(err, closeDisks(disks))
	}
	t.Endpoints, t.Machines = c.Endpoints(), processes{c}
	if kind == cluster.Mesh {
		for _, n := range c.Nodes {
			t.Metrics = append(t.Metrics, "http://"+n.HTTP+"/metrics")
		}
	}
	t.Reboot = func(node int) error { return Reboot(c.Nodes[node].Dir) }
	t.Books = func(context.Context) (dirs []string, done func(), err error) {
		for _, n := range c.Nodes {
			dirs = append(dirs, n.Dir)
		}
		return dirs, func() {}, nil
	}
	t.Close = func() error {
		c.Close()
		return closeDisks(disks)
	}
	return t, nil
}

func closeDisks(d *Disks) error {
	if d == nil {
		return nil
	}
	return d.Close()
}

// Reboot has the record in the directory of a node that is down name another run of its
// machine. What is on the disk stays: the node may have forgotten nothing, and has to
// behave as if it had.
func Reboot(dir string) error {
	d, err := datadir.Open(fsys.OS, dir)
	if err != nil {
		return err
	}
	rec := d.Record()
	rec.Boot = fmt.Sprintf("another-%d", time.Now().UnixNano())
	return errors.Join(d.Save(rec), d.Close())
}

// stopTimeout bounds an orderly end.
const stopTimeout = 20 * time.Second

// processes are Machines.
type processes struct{ c *cluster.Cluster }

func (p processes) Kill(_ context.Context, node int) error {
	p.c.Nodes[node].Kill()
	return nil
}

func (p processes) Stop(ctx context.Context, node int) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	return p.c.Nodes[node].Stop(ctx)
}

func (p processes) Start(_ context.Context, node int) error  { return p.c.Nodes[node].Start() }
func (p processes) Freeze(_ context.Context, node int) error { return p.c.Nodes[node].Pause() }

func (p processes) Thaw(_ context.Context, node int) error {
	if err := p.c.Nodes[node].Resume(); !errors.Is(err, cluster.ErrNotRunning) {
		return err
	}
	return nil
}

func (p processes) Running(_ context.Context, node int) (bool, error) {
	return p.c.Nodes[node].Running(), nil
}

func (p processes) LogTail(node int) string { return p.c.Nodes[node].LogTail() }
