package node_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// tryMerge asks node i to join the segment that holds a key with the one below it.
func (m *testMesh) tryMerge(i int, key string, dry bool) error {
	m.t.Helper()
	var left uint64
	for _, s := range m.segments(i) {
		d, err := meshpb.FromPB(s.GetDescriptor_())
		if err == nil && string(d.Range.End) != "" && string(d.Range.End) <= key {
			left = uint64(d.Segment) // in key order: the last one below
		}
	}
	conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	_, err = meshpb.NewMeshClient(conn).Merge(ctx, &meshpb.MergeRequest{Segment: left, Key: []byte(key), Operator: "test", DryRun: dry})
	return err
}

// merge joins the segment that holds a key with the one below it.
func (m *testMesh) merge(key string) {
	m.t.Helper()
	var last error
	defer func() {
		if m.t.Failed() {
			m.t.Logf("last answer to a merge at %s: %v", key, last)
		}
	}()
	m.eventually(30*time.Second, "merge at "+key, func() bool {
		last = m.tryMerge(0, key, false)
		return last == nil
	})
}

// pairs are writers that each count in two keys, first the low one and then the high
// one, and readers to whom low = high or low = high + 1 in every range.
type pairs struct {
	t     testing.TB
	wait  sync.WaitGroup
	acked []atomic.Int64
	keys  [][2]string
	reads atomic.Int64
	pause atomic.Int64 // longest time without a write of any pair, in ns
}

func startPairs(ctx context.Context, m *testMesh, n int) *pairs {
	p := &pairs{t: m.t, acked: make([]atomic.Int64, n)}
	for i := range n {
		p.keys = append(p.keys, [2]string{fmt.Sprintf("c/%03d", i*71), fmt.Sprintf("c/%03d", 999-i*61)})
	}
	for i := range n {
		c := m.client(i % len(m.nodes))
		p.wait.Go(func() { p.write(ctx, c, i) })
	}
	for i := range len(m.nodes) {
		c := m.client(i)
		p.wait.Go(func() { p.read(ctx, c) })
	}
	return p
}

func (p *pairs) write(ctx context.Context, c *clientv3.Client, i int) {
	var rev int64
	for n := int64(1); ctx.Err() == nil; n++ {
		for _, key := range p.keys[i] {
			begin := time.Now()
			got, ok := p.put(ctx, c, key, n)
			if !ok {
				return
			}
			if took := int64(time.Since(begin)); took > p.pause.Load() {
				p.pause.Store(took)
			}
			if got <= rev {
				p.t.Errorf("%s=%d got revision %d, the put before it %d", key, n, got, rev)
			}
			rev = got
		}
		p.acked[i].Store(n)
	}
}

func (p *pairs) put(ctx context.Context, c *clientv3.Client, key string, n int64) (int64, bool) {
	for ctx.Err() == nil {
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		resp, err := c.Put(short, key, strconv.FormatInt(n, 10))
		cancel()
		if err == nil {
			return resp.Header.Revision, true
		}
		if ctx.Err() == nil && !passing(err) {
			p.t.Errorf("put %s: %v", key, err)
			return 0, false
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
	return 0, false
}

// passing reports whether etcd, too, answers so while a leader is lost.
func passing(err error) bool {
	var known rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &known) {
		code = known.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded || errors.Is(err, context.DeadlineExceeded)
}

func (p *pairs) read(ctx context.Context, c *clientv3.Client) {
	var rev int64
	for ctx.Err() == nil {
		atLeast := make([]int64, len(p.acked))
		for i := range p.acked {
			atLeast[i] = p.acked[i].Load()
		}
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		resp, err := c.Get(short, "c/", clientv3.WithPrefix())
		cancel()
		if err != nil {
			continue
		}
		if resp.Header.Revision < rev {
			p.t.Errorf("a range at %d comes after one at %d", resp.Header.Revision, rev)
		}
		rev = resp.Header.Revision
		p.check(resp, atLeast)
		p.reads.Add(1)
	}
}

func (p *pairs) check(resp *clientv3.GetResponse, atLeast []int64) {
	p.t.Helper()
	value := make(map[string]int64)
	for _, kv := range resp.Kvs {
		value[string(kv.Key)], _ = strconv.ParseInt(string(kv.Value), 10, 64)
	}
	for i, k := range p.keys {
		low, high := value[k[0]], value[k[1]]
		if low != high && low != high+1 || high < atLeast[i] {
			p.t.Errorf("a range at %d shows %s=%d and %s=%d, acknowledged %d", resp.Header.Revision, k[0], low, k[1], high, atLeast[i])
		}
	}
}

func (p *pairs) total() (n int64) {
	for i := range p.acked {
		n += p.acked[i].Load()
	}
	return n
}

// more waits for n more rounds of all writers together.
func (p *pairs) more(m *testMesh, n int64) {
	m.t.Helper()
	want := p.total() + n
	m.eventually(30*time.Second, "more writes", func() bool { return p.total() >= want })
}

// Segments are split and merged again and again under writers and readers: every range
// is a snapshot in real time's order, and nothing that was acknowledged is lost, also
// across a restart of all nodes.
func TestMergesUnderClients(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := startPairs(ctx, m, 4)
	p.more(m, 10)
	rounds := 3
	if testing.Short() {
		rounds = 2
	}
	for i := range rounds {
		low, high := fmt.Sprintf("c/%03d", 100+i*50), fmt.Sprintf("c/%03d", 600+i*50)
		m.split(high)
		m.split(low)
		p.more(m, 20)
		if i%2 == 0 {
			m.merge(low)
			m.merge(high)
		} else {
			m.merge(high)
			m.merge(low)
		}
		p.more(m, 20)
	}
	for i := range m.nodes {
		m.eventually(10*time.Second, "one segment", func() bool { return len(m.segments(i)) == 1 })
	}
	cancel()
	p.wait.Wait()
	t.Logf("%d rounds of writes, %d ranges, longest write %v", p.total(), p.reads.Load(), time.Duration(p.pause.Load()))
	if p.reads.Load() < 10 {
		t.Errorf("only %d ranges were answered", p.reads.Load())
	}
	for i := range m.nodes {
		m.stop(i)
	}
	for i := range m.nodes {
		m.start(i)
	}
	atLeast := make([]int64, len(p.acked))
	for i := range p.acked {
		atLeast[i] = p.acked[i].Load()
	}
	long, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	resp, err := m.client().Get(long, "c/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	p.check(resp, atLeast)
	put(long, t, m.client(), "c/500", "after")
}

// What cannot merge is refused with a reason, and a dry run changes nothing.
func TestWrongMergesAreRefused(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	m.split("m")
	m.split("t")
	m.eventually(20*time.Second, "dry run", func() bool { return m.tryMerge(1, "m", true) == nil })
	if n := len(m.segments(0)); n != 3 {
		t.Fatalf("a dry run left %d segments", n)
	}
	first := m.segments(0)[0]
	d, err := meshpb.FromPB(first.GetDescriptor_())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		left anchormesh.SegmentID
		key  string
		want codes.Code
	}{
		"no neighbours": {d.Segment, "z", codes.FailedPrecondition},
		"with itself":   {d.Segment, "a", codes.FailedPrecondition},
		"unknown":       {1, "m", codes.NotFound},
	} {
		conn, err := grpc.NewClient(m.nodes[2].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		_, err = meshpb.NewMeshClient(conn).Merge(ctx, &meshpb.MergeRequest{Segment: uint64(c.left), Key: []byte(c.key)})
		cancel()
		if status.Code(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	m.stop(m.follower())
	m.eventually(20*time.Second, "refusal", func() bool {
		err := m.tryMerge(m.leader(), "m", false)
		return status.Code(err) == codes.Unavailable && strings.Contains(err.Error(), "cannot be reached") || status.Code(err) == codes.Aborted
	})
}

// follower is a running node that does not lead the first segment.
func (m *testMesh) follower() int { return (m.leader() + 1) % len(m.nodes) }

// A node dies while segments are merged, whichever it is and whenever: the merge is
// aborted or completed, nothing stays frozen, nothing acknowledged is lost, and what is
// left can be merged once the node is back.
func TestMergesWhileNodesDie(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	p := startPairs(ctx, m, 3)
	p.more(m, 10)
	const rounds = 3 // each node once
	for i := range rounds {
		at := fmt.Sprintf("c/%03d", 300+i*50)
		m.split(at)
		p.more(m, 10)
		victim := i % len(m.nodes)
		merged := make(chan error, 1)
		go func() { merged <- m.tryMerge((victim+1)%len(m.nodes), at, false) }()
		p.more(m, int64(i)) // a little later in each round
		m.stop(victim)
		t.Logf("round %d: node %d stopped, merge: %v", i, victim+1, <-merged)
		m.awaitThaw(at)
		m.start(victim)
		p.more(m, 10)
		m.eventually(30*time.Second, "one segment at the end", func() bool {
			_ = m.tryMerge((victim+1)%len(m.nodes), at, false) // refused where it is merged already
			return len(m.segments(victim)) == 1
		})
	}
	cancel()
	p.wait.Wait()
	atLeast := make([]int64, len(p.acked))
	for i := range p.acked {
		atLeast[i] = p.acked[i].Load()
	}
	resp, err := m.client().Get(t.Context(), "c/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	p.check(resp, atLeast)
	t.Logf("%d rounds of writes, %d ranges, longest write %v", p.total(), p.reads.Load(), time.Duration(p.pause.Load()))
}

// awaitThaw waits until a key can be written on every running node.
func (m *testMesh) awaitThaw(key string) {
	m.t.Helper()
	begin := time.Now()
	for i := range m.nodes {
		if m.nodes[i].stop == nil {
			continue
		}
		c := m.client(i)
		m.eventually(15*time.Second, "write behind the merge", func() bool {
			ctx, cancel := context.WithTimeout(m.t.Context(), 2*time.Second)
			defer cancel()
			_, err := c.Put(ctx, key, "thawed")
			return err == nil
		})
	}
	m.t.Logf("written everywhere within %v", time.Since(begin))
}
