package load

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// workload is what a run does.
type workload struct {
	prepare func(ctx context.Context, s *session) error // may be nil
	extra   int                                         // clients beyond Config.Clients
	drive   func(ctx context.Context, s *session, id int, m *meter)
}

// Workloads returns the names of all workloads, sorted.
func Workloads() []string { return slices.Sorted(maps.Keys(workloads)) }

// workloads is the table of all of them.
var workloads = map[string]workload{
	"put":              {drive: closed(puts)},
	"get":              {prepare: fill, drive: closed(gets)},
	"serializable-get": {prepare: fill, drive: closed(serializableGets)},
	"range":            {prepare: fill, drive: closed(ranges)},
	"txn":              {drive: closed(updates)},
	"mixed":            {prepare: fill, drive: closed(mixed)},
	"watch":            {extra: 1, drive: driveWatch},
	"lease":            {drive: driveLease},
}

// operation sends one request over c and waits for the answer.
type operation func(ctx context.Context, c *clientv3.Client) error

// closed makes a driver of a closed-loop client from a constructor of its
// operation; with a Rate, one of a client with a timetable. A client pauses after
// an error, lest a dead server become a busy loop that takes the CPU from its
// successor.
func closed(make func(s *session, id int) operation) func(context.Context, *session, int, *meter) {
	return func(ctx context.Context, s *session, id int, m *meter) {
		op := make(s, id)
		clock := s.timetable(id)
		for k := id; !m.done(); k++ {
			begin, err := clock.next(ctx)
			if err != nil {
				return
			}
			err = op(ctx, s.conns[k%len(s.conns)])
			m.observe(time.Since(begin), err)
			if err != nil && pause(ctx, errorPause) != nil {
				return
			}
		}
	}
}

// fillTxn is how many keys one transaction of fill puts; etcd allows 128.
const fillTxn = 100

// fill puts every key once.
func fill(ctx context.Context, s *session) error {
	rng := s.random(-1)
	for chunk := range slices.Chunk(s.keys, fillTxn) {
		var ops []clientv3.Op
		for _, key := range chunk {
			ops = append(ops, clientv3.OpPut(key, randomValue(rng, s.cfg.ValueSize)))
		}
		if _, err := s.conns[0].Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	return nil
}

func randomValue(rng *rand.Rand, size int) string {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

func puts(s *session, id int) operation {
	rng := s.random(id)
	value := randomValue(rng, s.cfg.ValueSize)
	return func(ctx context.Context, c *clientv3.Client) error {
		_, err := c.Put(ctx, s.keys[rng.IntN(len(s.keys))], value)
		return err
	}
}

func gets(s *session, id int) operation { return getsWith(s, id) }
func serializableGets(s *session, id int) operation {
	return getsWith(s, id, clientv3.WithSerializable())
}

func getsWith(s *session, id int, opts ...clientv3.OpOption) operation {
	rng := s.random(id)
	return func(ctx context.Context, c *clientv3.Client) error {
		resp, err := c.Get(ctx, s.keys[rng.IntN(len(s.keys))], opts...)
		if err == nil && len(resp.Kvs) != 1 {
			return fmt.Errorf("get of a present key returned %d keys", len(resp.Kvs))
		}
		return err
	}
}

func ranges(s *session, id int) operation {
	rng := s.random(id)
	n := s.cfg.RangeKeys
	return func(ctx context.Context, c *clientv3.Client) error {
		first := rng.IntN(len(s.keys) - n + 1)
		end := s.keys[first+n-1] + "\x00"
		resp, err := c.Get(ctx, s.keys[first], clientv3.WithRange(end))
		if err == nil && len(resp.Kvs) != n {
			return fmt.Errorf("range over %d present keys returned %d", n, len(resp.Kvs))
		}
		return err
	}
}

// updates is the optimistic put of Kubernetes' API server. Clients own disjoint
// keys as long as there are enough, so that compares hold; a failed one tells the
// revision and is an operation too.
func updates(s *session, id int) operation {
	rng := s.random(id)
	value := randomValue(rng, s.cfg.ValueSize)
	share := max(1, len(s.keys)/s.cfg.Clients)
	known := make([]int64, share)
	return func(ctx context.Context, c *clientv3.Client) error {
		i := rng.IntN(share)
		key := s.keys[(id*share+i)%len(s.keys)]
		resp, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(key), "=", known[i])).
			Then(clientv3.OpPut(key, value)).
			Else(clientv3.OpGet(key)).
			Commit()
		if err != nil {
			return err
		}
		if resp.Succeeded {
			known[i] = resp.Header.Revision
		} else if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
			known[i] = kvs[0].ModRevision
		}
		return nil
	}
}

func mixed(s *session, id int) operation {
	rng := s.random(id)
	put, get := puts(s, id), gets(s, id)
	return func(ctx context.Context, c *clientv3.Client) error {
		if rng.IntN(100) < s.cfg.ReadPercent {
			return get(ctx, c)
		}
		return put(ctx, c)
	}
}

// leaseTTLSeconds outlives any run.
const leaseTTLSeconds = 3600

// driveLease keeps one lease alive over one stream. It uses the stream itself:
// clientv3's KeepAlive paces, and its KeepAliveOnce opens a stream per call.
func driveLease(ctx context.Context, s *session, id int, m *meter) {
	c := s.conns[id%len(s.conns)]
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lease, err := c.Grant(ctx, leaseTTLSeconds)
	if err != nil {
		m.lost(err)
		return
	}
	stream, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		m.lost(err)
		return
	}
	for !m.done() {
		begin := time.Now()
		err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(lease.ID)})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil { // a broken stream stays broken
			m.lost(err)
			return
		}
		m.observe(time.Since(begin), nil)
	}
}
