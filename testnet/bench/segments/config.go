package segments

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/share"
)

// Config is what all benchmarks of this package share. Each has further settings
// of its own.
type Config struct {
	Dir       string // parent of all data directories; decides the disk
	Nodes     int    // of a mesh
	Rounds    int
	Warmup    time.Duration
	Duration  time.Duration // of each measured window
	Keys      int           // size of a key space
	ValueSize int
	Clients   int           // closed-loop writers
	MeshArgs  []string      // further arguments of mesh nodes
	SyncDelay time.Duration // added to each sync of a mesh node's log, by a failpoint; 0: none
	FloodNice int           // of the flood's process, where it shares cores with the nodes; 0: as all others
	Flood     []string      // command of a child process that takes a load's configuration, see Child
	Progress  io.Writer
}

// Default returns settings for a machine of two cores.
func Default() Config {
	return Config{
		Dir: os.TempDir(), Nodes: 3, Rounds: 3, Warmup: 2 * time.Second, Duration: 10 * time.Second,
		Keys: 10_000, ValueSize: 256, Clients: 32, Progress: io.Discard,
	}
}

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Nodes < 1 || c.Rounds < 1 || c.Clients < 1:
		return errors.New("segments: at least one node, one round and one client are needed")
	case c.Duration <= 0 || c.Warmup < 0:
		return errors.New("segments: the window must be longer than 0 and the warm-up not negative")
	case c.FloodNice < 0 || c.FloodNice > 19:
		return errors.New("segments: the flood's nice goes from 0 to 19")
	case c.SyncDelay < 0:
		return errors.New("segments: a sync cannot be made faster than it is")
	case c.Keys < 1 || c.ValueSize < 8:
		return fmt.Errorf("segments: %d keys of %d bytes is not possible", c.Keys, c.ValueSize)
	}
	return nil
}

func (c Config) say(format string, args ...any) { fmt.Fprintf(c.Progress, format+"\n", args...) }

// etcdArgs: etcd's default quota of 2 GiB would end a long run of puts.
var etcdArgs = []string{"--quota-backend-bytes", "8589934592", "--log-level", "warn"}

const clusterStart = 5 * time.Minute

// rig is a running cluster with its operator and, where nodes are limited, their
// groups.
type rig struct {
	*control
	dir    string
	groups map[string]*share.Group // by node name
}

// start starts a cluster. With a limiter every node gets a group of its own, not
// limited yet.
func start(ctx context.Context, cfg Config, kind cluster.Kind, size int, limiter *share.Limiter) (*rig, error) {
	dir, err := os.MkdirTemp(cfg.Dir, "bench-")
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir, groups: map[string]*share.Group{}}
	args := etcdArgs
	if kind == cluster.Mesh {
		args = append([]string{"--log-level", "warn", "--auto-split=false", "--auto-merge=false"}, cfg.MeshArgs...)
	}
	points := ""
	if cfg.SyncDelay > 0 && kind == cluster.Mesh {
		points = fmt.Sprintf("wal/before-sync=sleep(%s)", cfg.SyncDelay)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterStart)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Config{Kind: kind, Size: size, Dir: dir, Args: args, Failpoints: points, Started: func(n *cluster.Node, pid int) error {
		return r.enter(limiter, n.Name, pid)
	}})
	if err == nil {
		r.control, err = newControl(c)
		if err != nil {
			c.Close()
		}
	}
	if err != nil {
		r.close()
		return nil, err
	}
	for _, n := range c.Nodes {
		cfg.say("  %s: clients %s, http %s", n.Name, n.Client, n.HTTP)
	}
	return r, nil
}

func (r *rig) enter(limiter *share.Limiter, name string, pid int) error {
	if limiter == nil {
		return nil
	}
	if r.groups[name] == nil {
		g, err := limiter.Group(name)
		if err != nil {
			return err
		}
		r.groups[name] = g
	}
	return r.groups[name].Add(pid)
}

// limit holds every node to a share of a core; 0 lifts it.
func (r *rig) limit(cores float64) error {
	var errs []error
	for _, g := range r.groups {
		errs = append(errs, g.Limit(cores))
	}
	return errors.Join(errs...)
}

// periods counts, since start, the periods of all nodes and those in which one was stopped.
func (r *rig) periods() (all, throttled int64) {
	for _, g := range r.groups {
		a, t, _ := g.Periods() // a figure to show, nothing hangs on it
		all, throttled = all+a, throttled+t
	}
	return all, throttled
}

func (r *rig) close() {
	if r.control != nil {
		r.control.close()
		r.c.Close()
	}
	for _, g := range r.groups {
		_ = g.Close()
	}
	_ = os.RemoveAll(r.dir)
}

// inTurns calls f for every side in every round, the order reversed in every second.
func inTurns[S any](ctx context.Context, rounds int, sides []S, f func(round int, s S) error) error {
	for round := range rounds {
		order := slices.Clone(sides)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			if err := f(round+1, s); err != nil {
				return fmt.Errorf("round %d, %v: %w", round+1, s, err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// words joins what is not empty.
func words(texts ...string) string {
	return strings.Join(slices.DeleteFunc(texts, func(s string) bool { return s == "" }), "; ")
}
