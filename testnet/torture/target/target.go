package target

import (
	"context"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/fault"
)

// Target is a mesh that can be harmed.
type Target struct {
	Names     []string
	Endpoints []string // client URLs
	Metrics   []string // URLs of the nodes' metrics; empty: the target has none
	Machines  Machines
	Network   Network // nil: all kinds of faults of the network are in Missing
	Disks     *Disks  // nil: likewise
	// Reboot lets a node that does not run find another run of its machine when it starts:
	// it cannot know what it forgot. nil: Power is in Missing.
	Reboot  func(node int) error
	Missing map[fault.Kind]string
	// Books returns the data directories of the nodes, all of which are stopped, or copies
	// of them, and what has to be called when they were read.
	Books func(ctx context.Context) (dirs []string, done func(), err error)
	Close func() error
}

// Machines end, start and stop the nodes' processes.
type Machines interface {
	Kill(ctx context.Context, node int) error
	Stop(ctx context.Context, node int) error // an orderly end
	Start(ctx context.Context, node int) error
	Freeze(ctx context.Context, node int) error
	Thaw(ctx context.Context, node int) error
	// Running is false once the process has ended; it is true while it is frozen.
	Running(ctx context.Context, node int) (bool, error)
	LogTail(node int) string
}

// Network harms the links between nodes.
type Network interface {
	Cut(ctx context.Context, from, to []int) error // packets of from do not reach to
	Worsen(ctx context.Context, node int, late time.Duration, percent int) error
	Isolate(ctx context.Context, node int) error
	Heal(ctx context.Context) error // all of the above
}

// Kinds returns the kinds of faults that can be done, in a fixed order.
func (t *Target) Kinds() []fault.Kind {
	var out []fault.Kind
	for _, k := range fault.Kinds() {
		if _, missing := t.Missing[k]; !missing {
			out = append(out, k)
		}
	}
	return out
}

func (t *Target) lacks(reason string, kinds ...fault.Kind) {
	for _, k := range kinds {
		t.Missing[k] = reason
	}
}

// Revive starts what has ended and returns which nodes that were.
func (t *Target) Revive(ctx context.Context) ([]int, error) {
	var revived []int
	for i := range t.Names {
		running, err := t.Machines.Running(ctx, i)
		if err != nil {
			return revived, err
		}
		if running {
			continue
		}
		if err := t.Machines.Start(ctx, i); err != nil {
			return revived, err
		}
		revived = append(revived, i)
	}
	return revived, nil
}
