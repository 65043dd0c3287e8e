package node_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"
)

// A transaction over several segments is answered as etcd answers it: compares, both
// branches, reads of its own writes, deletions with what was there before; all of it
// has one revision, and a watch and a read at that revision show all of it.
func TestTransactionsOverSegments(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for k := range 9 {
		put(ctx, t, m.client(), fmt.Sprintf("k/%d", k), fmt.Sprint(k))
	}
	m.split("k/3")
	m.split("k/6")
	for i := range m.nodes {
		c := m.client(i)
		resp, err := c.Txn(ctx).
			If(clientv3.Compare(clientv3.Value("k/1"), "=", "1"), clientv3.Compare(clientv3.CreateRevision("k/9"), "=", 0)).
			Then(clientv3.OpGet("k/", clientv3.WithPrefix()), clientv3.OpPut("k/2", "two", clientv3.WithPrevKV()),
				clientv3.OpPut("k/7", "seven"), clientv3.OpGet("k/7"), clientv3.OpDelete("k/4", clientv3.WithPrevKV())).
			Else(clientv3.OpGet("k/1")).Commit()
		if err != nil {
			t.Fatal(err)
		}
		rev := resp.Header.Revision
		if !resp.Succeeded || resp.Responses[0].GetResponseRange().Count != 9 ||
			resp.Responses[3].GetResponseRange().Kvs[0].ModRevision != rev || resp.Responses[4].GetResponseDeleteRange().Deleted != 1 {
			t.Fatalf("node %d: %v", i+1, resp)
		}
		for _, k := range []string{"k/2", "k/7"} {
			got, err := c.Get(ctx, k, clientv3.WithRev(rev))
			if err != nil || len(got.Kvs) != 1 || got.Kvs[0].ModRevision != rev {
				t.Fatalf("%s at %d: %v, %v", k, rev, got, err)
			}
		}
		before, err := c.Get(ctx, "k/", clientv3.WithPrefix(), clientv3.WithRev(rev-1))
		if err != nil || before.Count != 9 {
			t.Fatalf("before the transaction: %v, %v", before, err)
		}
		resp, err = c.Txn(ctx).If(clientv3.Compare(clientv3.Value("k/1"), "=", "x"), clientv3.Compare(clientv3.ModRevision("k/8"), ">", 0)).
			Then(clientv3.OpPut("k/0", "no")).Else(clientv3.OpPut("k/0", "else"), clientv3.OpPut("k/4", "4")).Commit()
		if err != nil || resp.Succeeded {
			t.Fatalf("%v, %v", resp, err)
		}
		w := c.Watch(ctx, "k/7", clientv3.WithRev(rev))
		if got := <-w; len(got.Events) == 0 || got.Events[0].Kv.ModRevision != rev {
			t.Fatalf("a watch from %d: %v", rev, got)
		}
	}
	c := m.client()
	del, err := c.Delete(ctx, "k/", clientv3.WithPrefix(), clientv3.WithPrevKV())
	if err != nil || del.Deleted != 9 || len(del.PrevKvs) != 9 {
		t.Fatalf("%v, %v", del, err)
	}
	if got, err := c.Get(ctx, "k/", clientv3.WithPrefix()); err != nil || got.Count != 0 {
		t.Fatalf("behind the deletion: %v, %v", got, err)
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpPut("k/1", "", clientv3.WithIgnoreValue()), clientv3.OpPut("k/8", "x")).Commit(); !errors.Is(err, rpctypes.ErrKeyNotFound) {
		t.Errorf("a put that keeps what is not there: %v", err)
	}
	if _, err := c.Txn(ctx).Then(clientv3.OpPut("k/1", "x"), clientv3.OpGet("k/8", clientv3.WithRev(1<<40))).Commit(); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("a read of the future: %v", err)
	}
	m.awaitSettled(ctx, c, "k/")
}

// awaitSettled checks that nothing is locked for good: every key can be written.
func (m *testMesh) awaitSettled(ctx context.Context, c *clientv3.Client, prefix string) {
	m.t.Helper()
	for k := range 10 {
		m.eventually(20*time.Second, fmt.Sprintf("write of %s%d", prefix, k), func() bool {
			_, err := c.Put(ctx, fmt.Sprintf("%s%d", prefix, k), "settled")
			return err == nil // a leader that stops leaves outcomes unknown
		})
	}
}

const (
	accounts = 10
	riches   = 100 * accounts
)

func account(i int) string { return fmt.Sprintf("bank/%d", i) }

// moveMoney moves an amount between accounts of different segments, if nobody was
// faster. The outcome may be unknown.
func moveMoney(ctx context.Context, c *clientv3.Client, rng *rand.Rand) error {
	from, to := rng.IntN(accounts), rng.IntN(accounts)
	if from == to {
		return nil
	}
	a, err := c.Get(ctx, account(from))
	if err != nil {
		return err
	}
	b, err := c.Get(ctx, account(to))
	if err != nil {
		return err
	}
	have, _ := strconv.Atoi(string(a.Kvs[0].Value))
	other, _ := strconv.Atoi(string(b.Kvs[0].Value))
	amount := rng.IntN(have + 1)
	_, err = c.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(account(from)), "=", a.Kvs[0].ModRevision),
		clientv3.Compare(clientv3.ModRevision(account(to)), "=", b.Kvs[0].ModRevision),
	).Then(
		clientv3.OpPut(account(from), fmt.Sprint(have-amount)), clientv3.OpPut(account(to), fmt.Sprint(other+amount)),
	).Commit()
	return err
}

// audit reads all accounts at one revision, which must add up.
func audit(ctx context.Context, c *clientv3.Client) error {
	resp, err := c.Get(ctx, "bank/", clientv3.WithPrefix())
	if err != nil {
		return nil // nothing learnt
	}
	sum, found := 0, 0
	for _, kv := range resp.Kvs {
		if n, err := strconv.Atoi(string(kv.Value)); err == nil { // not a note
			sum, found = sum+n, found+1
		}
	}
	if found != accounts || sum != riches {
		return fmt.Errorf("at revision %d: %d accounts with %d together", resp.Header.Revision, found, sum)
	}
	return nil
}

func (m *testMesh) openBank(ctx context.Context) *clientv3.Client {
	c := m.client()
	for i := range accounts {
		put(ctx, m.t, c, account(i), "100")
	}
	m.split("bank/3")
	m.split("bank/7")
	return c
}

// bankers transfer and audit through every node until stop is closed. They return how
// many transfers were answered.
func (m *testMesh) bankers(ctx context.Context, stop chan struct{}) (wait func() int) {
	var all sync.WaitGroup
	var mu sync.Mutex
	answered := 0
	for i := range m.nodes {
		c := m.client(i)
		for w := range 3 {
			seed := uint64(time.Now().UnixNano()) + uint64(w)
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				for {
					select {
					case <-stop:
						return
					default:
					}
					try, cancel := context.WithTimeout(ctx, 15*time.Second)
					if w == 2 {
						if err := audit(try, c); err != nil {
							m.t.Errorf("node %d (seed %d): %v", i+1, seed, err)
						}
					} else if err := moveMoney(try, c, rng); err == nil {
						mu.Lock()
						answered++
						mu.Unlock()
					}
					cancel()
				}
			})
		}
	}
	return func() int { all.Wait(); return answered }
}

// Money moves between segments through every node at once, beside ordinary writes of
// the same segments and a split; whoever looks at any revision finds all of it.
func TestBankOverSegments(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 120*time.Second)
	defer cancel()
	c := m.openBank(ctx)
	first, err := c.Get(ctx, "bank/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	watching, done := context.WithCancel(ctx)
	defer done()
	watch := c.Watch(watching, "bank/5", clientv3.WithRev(first.Header.Revision+1))
	stop := make(chan struct{})
	wait := m.bankers(ctx, stop)
	for k := range 200 {
		put(ctx, t, c, fmt.Sprintf("bank/%d/note", k%accounts), "x")
		if k == 100 {
			m.split("bank/5")
		}
	}
	close(stop)
	answered := wait()
	if answered < 20 {
		t.Errorf("only %d transfers were answered", answered)
	}
	end, err := c.Get(ctx, "bank/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for rev := first.Header.Revision; rev <= end.Header.Revision; rev += 1 + (end.Header.Revision-first.Header.Revision)/50 {
		m.auditAt(ctx, c, rev)
	}
	last := int64(0)
	got, err := c.Get(ctx, "bank/5")
	if err != nil {
		t.Fatal(err)
	}
	for last < got.Kvs[0].ModRevision {
		resp := <-watch
		if resp.Err() != nil {
			t.Fatal(resp.Err())
		}
		for _, e := range resp.Events {
			if e.Kv.ModRevision <= last {
				t.Fatalf("a watch told of revision %d behind %d", e.Kv.ModRevision, last)
			}
			last = e.Kv.ModRevision
		}
	}
}

func (m *testMesh) auditAt(ctx context.Context, c *clientv3.Client, rev int64) {
	m.t.Helper()
	sum := 0
	for i := range accounts {
		resp, err := c.Get(ctx, account(i), clientv3.WithRev(rev))
		if err != nil {
			m.t.Fatal(err)
		}
		n, _ := strconv.Atoi(string(resp.Kvs[0].Value))
		sum += n
	}
	if sum != riches {
		m.t.Errorf("at revision %d there are %d", rev, sum)
	}
}

// Each node in turn is stopped in the midst of transfers and comes back: coordinators
// and leaders vanish between any two steps, nothing is lost or made, and nothing stays
// locked.
func TestBankWithoutAnyOneNode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 180*time.Second)
	defer cancel()
	c := m.openBank(ctx)
	stop := make(chan struct{})
	wait := m.bankers(ctx, stop)
	for i := range m.nodes {
		m.stop(i)
		m.awaitSettled(ctx, m.client((i+1)%3), "bank/8/note")
		m.start(i)
		m.awaitVoters(3)
	}
	close(stop)
	if answered := wait(); answered == 0 {
		t.Error("no transfer was answered")
	}
	m.awaitSettled(ctx, c, "bank/n")
	for i := range accounts { // no account is locked: each can be read in a transaction with any other
		m.eventually(20*time.Second, "transaction with "+account(i), func() bool {
			_, err := c.Txn(ctx).Then(clientv3.OpGet(account(i)), clientv3.OpPut(account((i+5)%accounts)+"/note", "x")).Commit()
			return err == nil
		})
	}
	resp, err := c.Get(ctx, "bank/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	m.auditAt(ctx, c, resp.Header.Revision)
}

// Random requests over several segments are answered as by a mesh that was never
// split, but for the revisions: those are compared by their order.
func TestTransactionsOverSegmentsAsInOne(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for elections; the whole run has it")
	}
	whole, cut := newMesh(t, 1), newMesh(t, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 1))
	a, b := whole.client(), cut.client()
	for _, at := range []string{"k3", "k5", "k6"} {
		cut.split(at)
	}
	ranksA, ranksB, last := newRanks(), newRanks(), int64(1)
	for n := range 300 {
		op := someTxn(rng, 2)
		ra, ea := a.Do(ctx, op)
		rb, eb := b.Do(ctx, op)
		if (ea == nil) != (eb == nil) || ea != nil && ea.Error() != eb.Error() {
			t.Fatalf("seed %d, request %d: %v\n%v", seed, n, ea, eb)
		}
		if ea != nil {
			continue
		}
		ta, tb := plain(ra), plain(rb)
		if rev := ra.Txn().Header.Revision; rev > last { // it wrote something
			last = rev
			ranksA.learn(rev)
			ranksB.learn(rb.Txn().Header.Revision)
		}
		ranksA.rename(ta)
		ranksB.rename(tb)
		if !proto.Equal(ta, tb) {
			t.Fatalf("seed %d, request %d %v:\n%v\n%v", seed, n, op, ta, tb)
		}
	}
}

func plain(r clientv3.OpResponse) *pb.TxnResponse { return (*pb.TxnResponse)(r.Txn()) }

// ranks renames the revisions that answers showed by their order.
type ranks struct{ seen []int64 }

func newRanks() *ranks { return &ranks{} }

func (r *ranks) learn(rev int64) {
	if i, ok := slices.BinarySearch(r.seen, rev); !ok {
		r.seen = slices.Insert(r.seen, i, rev)
	}
}

func (r *ranks) of(rev int64) int64 {
	if rev == 0 {
		return 0
	}
	i, _ := slices.BinarySearch(r.seen, rev)
	return int64(i)
}

func (r *ranks) rename(t *pb.TxnResponse) {
	t.Header = nil
	for _, op := range t.Responses {
		switch {
		case op.GetResponseRange() != nil:
			x := op.GetResponseRange()
			x.Header = nil
			for _, kv := range x.Kvs {
				kv.CreateRevision, kv.ModRevision = r.of(kv.CreateRevision), r.of(kv.ModRevision)
			}
		case op.GetResponsePut() != nil:
			x := op.GetResponsePut()
			x.Header = nil
			if kv := x.PrevKv; kv != nil {
				kv.CreateRevision, kv.ModRevision = r.of(kv.CreateRevision), r.of(kv.ModRevision)
			}
		case op.GetResponseDeleteRange() != nil:
			x := op.GetResponseDeleteRange()
			x.Header = nil
			for _, kv := range x.PrevKvs {
				kv.CreateRevision, kv.ModRevision = r.of(kv.CreateRevision), r.of(kv.ModRevision)
			}
		case op.GetResponseTxn() != nil:
			r.rename(op.GetResponseTxn())
		}
	}
}

func someKey(rng *rand.Rand) string { return fmt.Sprintf("k%d", rng.IntN(9)) }

// someTxn makes a transaction whose writes do not overlap.
func someTxn(rng *rand.Rand, depth int) clientv3.Op {
	var cmps []clientv3.Cmp
	for range rng.IntN(3) {
		c := clientv3.Compare(clientv3.Version(someKey(rng)), []string{"=", ">", "<"}[rng.IntN(3)], rng.IntN(3))
		if rng.IntN(3) == 0 {
			c = c.WithRange("k9")
		}
		cmps = append(cmps, c)
	}
	return clientv3.OpTxn(cmps, someOps(rng, depth), someOps(rng, depth))
}

func someOps(rng *rand.Rand, depth int) (ops []clientv3.Op) {
	keys := rng.Perm(9)
	for range 1 + rng.IntN(4) {
		k := fmt.Sprintf("k%d", keys[0])
		keys = keys[1:]
		switch rng.IntN(6) {
		case 0:
			ops = append(ops, clientv3.OpGet("k", clientv3.WithPrefix(), clientv3.WithLimit(int64(rng.IntN(4)))))
		case 1:
			ops = append(ops, clientv3.OpDelete(k, clientv3.WithPrevKV()))
		case 2:
			ops = append(ops, clientv3.OpGet(k, clientv3.WithRange("k7"), clientv3.WithSort(clientv3.SortByVersion, clientv3.SortDescend)))
		case 3:
			if depth > 0 && len(ops) == 0 {
				return append(ops, someTxn(rng, depth-1))
			}
		default:
			ops = append(ops, clientv3.OpPut(k, fmt.Sprint(rng.IntN(100)), clientv3.WithPrevKV()))
		}
	}
	return ops
}
