package segments

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// diary is when one writer's puts were answered, in order.
type diary struct {
	times []time.Time
}

// gap returns the longest time without an answer that began before to and ended
// after from: what began inside counts to its end, also behind to.
func (d *diary) gap(from, to time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(d.times); i++ {
		begin, end := d.times[i-1], d.times[i]
		if end.After(from) && begin.Before(to) {
			longest = max(longest, end.Sub(begin))
		}
	}
	return longest
}

// gapBefore is the same of gaps that began after from and ended before to: it sees
// nothing of what happens from then on.
func (d *diary) gapBefore(from, to time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(d.times); i++ {
		begin, end := d.times[i-1], d.times[i]
		if !begin.Before(from) && !end.After(to) {
			longest = max(longest, end.Sub(begin))
		}
	}
	return longest
}

// worst is the longest gap of any writer.
func worst(diaries []*diary, of func(*diary) time.Duration) time.Duration {
	var longest time.Duration
	for _, d := range diaries {
		longest = max(longest, of(d))
	}
	return longest
}

// writers put random keys in closed loops and keep diaries.
type writers struct {
	diaries []*diary
	errors  atomic.Int64
	stop    context.CancelFunc
	wait    sync.WaitGroup
	clients []*clientv3.Client
}

// startWriters starts n writers; writer i is a client of node i modulo nodes.
func startWriters(ctx context.Context, c *cluster.Cluster, cfg Config, prefix string) (*writers, error) {
	ctx, stop := context.WithCancel(ctx)
	w := &writers{stop: stop}
	for i := range cfg.Clients {
		client, err := c.Client(c.Nodes[i%len(c.Nodes)])
		if err != nil {
			w.end()
			return nil, err
		}
		w.clients = append(w.clients, client)
		d := &diary{}
		w.diaries = append(w.diaries, d)
		rng := rand.New(rand.NewPCG(1, uint64(i)))
		w.wait.Go(func() { w.write(ctx, client, d, rng, cfg, prefix) })
	}
	return w, nil
}

func (w *writers) write(ctx context.Context, c *clientv3.Client, d *diary, rng *rand.Rand, cfg Config, prefix string) {
	value := string(make([]byte, cfg.ValueSize))
	for ctx.Err() == nil {
		_, err := c.Put(ctx, fmt.Sprintf("%s%010d", prefix, rng.IntN(cfg.Keys)), value)
		if err == nil {
			d.times = append(d.times, time.Now())
		} else if ctx.Err() == nil {
			w.errors.Add(1)
		}
	}
}

// end stops the writers; only then may the diaries be read.
func (w *writers) end() {
	w.stop()
	w.wait.Wait()
	for _, c := range w.clients {
		c.Close()
	}
}

// puts is how many were answered.
func (w *writers) puts() (n int) {
	for _, d := range w.diaries {
		n += len(d.times)
	}
	return n
}
