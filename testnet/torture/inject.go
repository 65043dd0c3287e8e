package torture

import (
	"context"
	"errors"
	"time"

	"github.com/anchormesh/anchormesh/testnet/torture/fault"
	"github.com/anchormesh/anchormesh/testnet/torture/target"
)

// injector does faults to a target.
type injector struct {
	t     *target.Target
	ready func(ctx context.Context) error // every node serves
	// bulk writes until its context ends, more than the room that a node has taken for itself beforehand, so
	// that a full disk is felt.
	bulk func(ctx context.Context)
}

// others returns all nodes but one.
func (in injector) others(node int) []int {
	var out []int
	for i := range in.t.Names {
		if i != node {
			out = append(out, i)
		}
	}
	return out
}

// begin starts a fault on a node. What it needs time for itself (restarts) is done
// when it returns.
func (in injector) begin(ctx context.Context, f fault.Fault, node int) error {
	t := in.t
	switch f.Kind {
	case fault.Kill:
		return t.Machines.Kill(ctx, node)
	case fault.Power:
		if err := t.Machines.Kill(ctx, node); err != nil {
			return err
		}
		return t.Reboot(node)
	case fault.Pause:
		return t.Machines.Freeze(ctx, node)
	case fault.Restart:
		return in.restart(ctx, node)
	case fault.Rolling:
		return in.rolling(ctx)
	case fault.KillAll:
		return in.killAll(ctx)
	case fault.Isolate:
		return t.Network.Isolate(ctx, node)
	case fault.Cut:
		return in.cut(ctx, []int{node}, in.others(node))
	case fault.OneWay:
		if f.Inbound {
			return t.Network.Cut(ctx, in.others(node), []int{node})
		}
		return t.Network.Cut(ctx, []int{node}, in.others(node))
	case fault.Split:
		next := (node + 1) % len(t.Names)
		pair := []int{node, next}
		var rest []int
		for _, i := range in.others(node) {
			if i != next {
				rest = append(rest, i)
			}
		}
		return in.cut(ctx, pair, rest)
	case fault.Delay:
		return t.Network.Worsen(ctx, node, f.Late, 0)
	case fault.Loss:
		return t.Network.Worsen(ctx, node, 0, f.Percent)
	case fault.Full:
		return t.Disks.Fill(node)
	}
	panic("torture: unknown fault " + string(f.Kind))
}

// cut parts two sides in both directions.
func (in injector) cut(ctx context.Context, a, b []int) error {
	if err := in.t.Network.Cut(ctx, a, b); err != nil {
		return err
	}
	return in.t.Network.Cut(ctx, b, a)
}

func (in injector) restart(ctx context.Context, node int) error {
	if err := in.t.Machines.Stop(ctx, node); err != nil {
		return err
	}
	return in.t.Machines.Start(ctx, node)
}

// rolling restarts each node when the one before it serves again, as operators do.
func (in injector) rolling(ctx context.Context) error {
	for i := range in.t.Names {
		if err := in.restart(ctx, i); err != nil {
			return err
		}
		if err := in.ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// killAll kills all nodes at the same time, as a power cut does.
func (in injector) killAll(ctx context.Context) error {
	problems := make(chan error, len(in.t.Names))
	for i := range in.t.Names {
		go func() { problems <- in.t.Machines.Kill(ctx, i) }()
	}
	var all error
	for range in.t.Names {
		all = errors.Join(all, <-problems)
	}
	return all
}

// mayEnd reports whether a node is expected to be gone at the end of a fault. One
// whose disk is full stops: it must not go on without its log.
func mayEnd(f fault.Fault, victim, node int) bool {
	switch f.Kind {
	case fault.KillAll:
		return true
	case fault.Kill, fault.Full, fault.Power:
		return node == victim
	}
	return false
}

// heal undoes everything, whatever was done, and returns the nodes that had ended.
func (in injector) heal(ctx context.Context) ([]int, error) {
	var problems []error
	if in.t.Network != nil {
		problems = append(problems, in.t.Network.Heal(ctx))
	}
	for i := range in.t.Names {
		problems = append(problems, in.t.Machines.Thaw(ctx, i))
		if in.t.Disks != nil {
			problems = append(problems, in.t.Disks.Free(i))
		}
	}
	revived, err := in.t.Revive(ctx)
	return revived, errors.Join(append(problems, err)...)
}

// last lets a fault last. Kinds that are a sequence of acts have lasted when they
// have begun.
func (in injector) last(ctx context.Context, f fault.Fault) {
	switch f.Kind {
	case fault.Restart, fault.Rolling:
	case fault.Full:
		ctx, cancel := context.WithTimeout(ctx, max(f.For, fullMin))
		defer cancel()
		in.bulk(ctx)
	default:
		hold(ctx, f.For)
	}
}

// fullMin is how long bulk writes need to use up what a node has taken beforehand.
const fullMin = 5 * time.Second

// hold lets a fault last.
func hold(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
