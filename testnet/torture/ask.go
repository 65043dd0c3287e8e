package torture

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/torture/target"
)

var (
	// ErrNotRecovered: a node did not serve in time after a fault was healed.
	ErrNotRecovered = errors.New("node does not serve after the fault")
	// ErrHash: nodes hold different keys at one revision.
	ErrHash = errors.New("HashKV differs between nodes at one revision")
	// ErrLeases: leases that nobody keeps alive do not end.
	ErrLeases = errors.New("leases live on though nobody renews them")
)

// asker asks nodes about themselves, each through a client of its own.
type asker struct {
	t       *target.Target
	clients []*clientv3.Client
}

func newAsker(t *target.Target) (*asker, error) {
	a := &asker{t: t}
	for _, e := range t.Endpoints {
		c, err := cluster.Dial(e)
		if err != nil {
			a.close()
			return nil, err
		}
		a.clients = append(a.clients, c)
	}
	return a, nil
}

func (a *asker) close() {
	for _, c := range a.clients {
		c.Close()
	}
}

const (
	askTimeout = 2 * time.Second
	askPoll    = 200 * time.Millisecond
)

// until repeats a question with a timeout of its own until it is answered well.
func until(ctx context.Context, ask func(ctx context.Context) error) error {
	tick := time.NewTicker(askPoll)
	defer tick.Stop()
	for {
		try, cancel := context.WithTimeout(ctx, askTimeout)
		err := ask(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// ready returns when every node has answered a linearizable read.
func (a *asker) ready(ctx context.Context) error {
	var g errgroup.Group
	for i, c := range a.clients {
		g.Go(func() error {
			err := until(ctx, func(ctx context.Context) error {
				_, err := c.Get(ctx, "\x00torture-ready")
				return err
			})
			if err != nil {
				return fmt.Errorf("%w: %s: %w\n%s", ErrNotRecovered, a.t.Names[i], err, a.t.Machines.LogTail(i))
			}
			return nil
		})
	}
	return g.Wait()
}

// leader returns the node that says that it leads; -1: nobody does. A node that is
// not an anchor names a leader that it is not.
func (a *asker) leader(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	found := make(chan int, len(a.clients))
	for i, c := range a.clients {
		go func() {
			status, err := c.Status(ctx, a.t.Endpoints[i])
			if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
				found <- i
				return
			}
			found <- -1
		}()
	}
	out := -1
	for range a.clients {
		out = max(out, <-found)
	}
	return out
}

// hashes compares HashKV of all nodes at the newest revision. It returns how many
// hashes were compared and the revision.
func (a *asker) hashes(ctx context.Context) (int, int64, error) {
	var rev int64
	err := until(ctx, func(ctx context.Context) error {
		got, err := a.clients[0].Get(ctx, "\x00torture-ready")
		if err == nil {
			rev = got.Header.Revision
		}
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	type hash struct {
		value     uint32
		compacted int64
	}
	var first hash
	for i, c := range a.clients {
		var h hash
		err := until(ctx, func(ctx context.Context) error {
			resp, err := c.HashKV(ctx, a.t.Endpoints[i], rev)
			if err == nil {
				h = hash{resp.Hash, resp.CompactRevision}
			}
			return err
		})
		if err != nil {
			return i, rev, fmt.Errorf("HashKV of %s at revision %d: %w", a.t.Names[i], rev, err)
		}
		if i == 0 {
			first = h
		}
		if h != first {
			return i, rev, fmt.Errorf("%w %d: %s has %+v, %s has %+v", ErrHash, rev, a.t.Names[0], first, a.t.Names[i], h)
		}
	}
	return len(a.clients), rev, nil
}

// leasesGone returns when no lease is left.
func (a *asker) leasesGone(ctx context.Context) error {
	return until(ctx, func(ctx context.Context) error {
		got, err := a.clients[0].Leases(ctx)
		if err == nil && len(got.Leases) > 0 {
			err = fmt.Errorf("%w: %d", ErrLeases, len(got.Leases))
		}
		return err
	})
}

// compact throws history away up to a revision, in all nodes.
func (a *asker) compact(ctx context.Context, rev int64) error {
	return until(ctx, func(ctx context.Context) error {
		_, err := a.clients[0].Compact(ctx, rev, clientv3.WithCompactPhysical())
		return err
	})
}
