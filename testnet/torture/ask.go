package torture

import (
	"context"
	"errors"
	"fmt"
	"strings"
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
	var got []*clientv3.HashKVResponse
	for i, c := range a.clients {
		var h *clientv3.HashKVResponse
		err := until(ctx, func(ctx context.Context) (err error) {
			h, err = c.HashKV(ctx, a.t.Endpoints[i], rev)
			if err == nil && i > 0 && h.CompactRevision != got[0].CompactRevision {
				err = fmt.Errorf("compacted up to %d, %s up to %d", h.CompactRevision, a.t.Names[0], got[0].CompactRevision)
			}
			return err // of a node that has not applied the compaction yet too
		})
		if err != nil {
			return i, rev, fmt.Errorf("HashKV of %s at revision %d: %w", a.t.Names[i], rev, err)
		}
		got = append(got, h)
	}
	return len(got), rev, sameHashes(a.t.Names, got)
}

// sameHashes compares answers for one revision.
func sameHashes(names []string, got []*clientv3.HashKVResponse) error {
	for i, h := range got {
		if h.Hash != got[0].Hash || h.HashRevision != got[0].HashRevision {
			return fmt.Errorf("%w: %s has %x at %d, %s has %x at %d",
				ErrHash, names[0], got[0].Hash, got[0].HashRevision, names[i], h.Hash, h.HashRevision)
		}
	}
	return nil
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

const (
	bulkBytes = 128 << 10 // of each write; they overwrite each other
	bulkEvery = 50 * time.Millisecond
)

// bulk writes, until ctx ends, large values that are no part of the history, through all nodes in
// turn and at a rate that leaves room for the traffic; whether they succeed is not
// its business.
func (a *asker) bulk(ctx context.Context) {
	value := strings.Repeat("x", bulkBytes)
	tick := time.NewTicker(bulkEvery)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		try, cancel := context.WithTimeout(ctx, askTimeout)
		_, _ = a.clients[i%len(a.clients)].Put(try, "torture-bulk", value)
		cancel()
	}
}
