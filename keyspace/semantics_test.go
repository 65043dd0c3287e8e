package keyspace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// driver applies one command an entry.
type driver struct {
	*replica
	index uint64
	term  uint64
}

func newDriver(t testing.TB) *driver { return &driver{replica: newReplica(t), term: 1} }

func (d *driver) raw(cmd []byte) Outcome {
	d.index++
	return d.space.Apply(d.index, d.term, [][]byte{cmd}, true)[0]
}

func (d *driver) do(op Op, m proto.Message) Outcome { return d.raw(command(op, m)) }

func (d *driver) must(op Op, m proto.Message) []byte {
	d.t.Helper()
	o := d.do(op, m)
	if o.Err != nil {
		d.t.Fatalf("%v %v: %v", op, m, o.Err)
	}
	return o.Response
}

func (d *driver) put(key, value string, id int64) {
	d.t.Helper()
	d.must(OpPut, &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: id})
}

func (d *driver) grant(id, ttl int64) {
	d.t.Helper()
	d.must(OpLeaseGrant, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
}

func (d *driver) get(q codec.RangeRequest) *pb.RangeResponse {
	d.t.Helper()
	c, err := d.space.Range(context.Background(), &q, d.term)
	if err != nil {
		d.t.Fatal(err)
	}
	return unmarshal(d.t, c.Bytes(), &pb.RangeResponse{})
}

func wantErr(t *testing.T, o Outcome, want error) {
	t.Helper()
	if !errors.Is(o.Err, want) || o.Response != nil {
		t.Errorf("outcome %+v, want error %v", o, want)
	}
}

func putOp(r *pb.PutRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
}

func deleteOp(key, end string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)},
	}}
}

// TestOpsAreDiskFormat pins the first byte of every command.
func TestOpsAreDiskFormat(t *testing.T) {
	for op, want := range map[Op]byte{
		OpPut: 1, OpDeleteRange: 2, OpTxn: 3, OpCompact: 4, OpLeaseGrant: 5, OpLeaseRevoke: 6,
		OpLeaseCheckpoint: 7, OpLeaseExpire: 8, OpAlarm: 9, OpStamped: 10, OpStructural: 64,
	} {
		if byte(op) != want {
			t.Errorf("%v is %d, want %d", op, byte(op), want)
		}
	}
	l := lease.Lease{ID: -2, TTL: 300, Remaining: 7, Epoch: 1000}
	if k, v := fmt.Sprintf("%x", leaseKey(l.ID)), fmt.Sprintf("%x", encodeLease(l)); k != "fffffffffffffffe" || v != "01ac0207e807" {
		t.Errorf("stored lease is %s = %s", k, v)
	}
	if got, err := decodeLease(leaseKey(l.ID), encodeLease(l)); err != nil || got != l {
		t.Errorf("lease %+v became %+v, %v", l, got, err)
	}
	for _, bad := range []string{"", "\x02\x01\x00\x00", "\x01\x01", "\x01\x01\x00\x00\x00"} {
		if _, err := decodeLease(leaseKey(1), []byte(bad)); err == nil {
			t.Errorf("lease %x was read", bad)
		}
	}
}

func TestUnknownCommandsPanic(t *testing.T) {
	for _, cmd := range [][]byte{{}, {0}, {63}, {byte(OpStructural)}} {
		func() {
			defer func() {
				if msg := fmt.Sprint(recover()); !strings.Contains(msg, "start that version") && !strings.Contains(msg, "restore this replica") {
					t.Errorf("command %x: panic %q does not say what to do", cmd, msg)
				}
			}()
			newDriver(t).raw(cmd)
		}()
	}
}

func TestMalformedIsAnOutcome(t *testing.T) {
	d := newDriver(t)
	for op := OpPut; op <= OpStamped; op++ {
		if o := d.raw([]byte{byte(op), 0x0a}); !errors.Is(o.Err, codec.ErrMalformed) {
			t.Errorf("%v: %+v", op, o)
		}
	}
	if rev, _ := d.space.Revision(); rev != 1 {
		t.Errorf("revision is %d", rev)
	}
}

// TestDeleteThenKeep: etcd 3.7.3 panics on this transaction on every member.
func TestDeleteThenKeep(t *testing.T) {
	d := newDriver(t)
	d.grant(7, 60)
	d.put("b", "old", 7)
	d.must(OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{
		deleteOp("a", "\x00"),
		putOp(&pb.PutRequest{Key: []byte("b"), IgnoreValue: true, IgnoreLease: true, PrevKv: true}),
	}})
	want := &mvccpb.KeyValue{Key: []byte("b"), Value: []byte("old"), Lease: 7, CreateRevision: 3, ModRevision: 3, Version: 1}
	if got := d.get(codec.RangeRequest{Key: []byte("b")}); len(got.Kvs) != 1 || !proto.Equal(got.Kvs[0], want) {
		t.Errorf("got %v, want %v", got.Kvs, want)
	}
	if keys := d.space.LeaseKeys(7); len(keys) != 1 {
		t.Errorf("lease keys %q", keys)
	}
}

func TestLeasesOfARange(t *testing.T) {
	d := newDriver(t)
	d.grant(7, 60)
	d.grant(8, 60)
	d.grant(9, 60) // nothing hangs on it
	for i := range 2*countStep + 1 {
		d.put(fmt.Sprintf("a%05d", i), "v", 7)
	}
	d.put("b", "v", 8)
	d.put("c", "v", 0)
	for keys, want := range map[[2]string]int{{"", ""}: 2, {"a", "b"}: 1, {"a", "b\x00"}: 2, {"b", ""}: 1, {"c", "d"}: 0, {"a01024", "a01025"}: 1} {
		if got := d.space.LeasesIn(anchormesh.KeyRange{Start: []byte(keys[0]), End: []byte(keys[1])}); got != want {
			t.Errorf("%q: %d leases, want %d", keys, got, want)
		}
	}
}

// TestTransactionIsAllOrNothing: what refuses comes after what writes, and still
// nothing is written.
func TestTransactionIsAllOrNothing(t *testing.T) {
	d := newDriver(t)
	d.put("k", "v", 0)
	for name, tc := range map[string]struct {
		op   *pb.RequestOp
		want error
	}{
		"no key to keep": {putOp(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true}), ErrKeyNotFound},
		"no lease":       {putOp(&pb.PutRequest{Key: []byte("x"), Lease: 5}), ErrLeaseNotFound},
		"its own revision lies in the future": {&pb.RequestOp{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: []byte("k"), Revision: 3}}}, ErrFutureRev},
	} {
		o := d.do(OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{putOp(&pb.PutRequest{Key: []byte("k"), Value: []byte("new")}), tc.op}})
		if !errors.Is(o.Err, tc.want) {
			t.Errorf("%s: %v, want %v", name, o.Err, tc.want)
		}
	}
	if got := d.get(codec.RangeRequest{Key: []byte("k")}); string(got.Kvs[0].Value) != "v" || got.Header.Revision != 2 {
		t.Errorf("state changed: %v", got)
	}
}

// TestSortTies: equal sort keys fall as sort.Sort lets them, as in etcd.
func TestSortTies(t *testing.T) {
	d, m := newDriver(t), newModel(testIDs)
	m.term = 1
	for i := range 200 {
		req := &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i*7%200), Value: fmt.Appendf(nil, "%d", i%3)}
		d.must(OpPut, req)
		if _, err := m.apply(OpPut, req); err != nil {
			t.Fatal(err)
		}
	}
	for _, order := range []pb.RangeRequest_SortOrder{0, 1, 2} {
		for target := range pb.RangeRequest_SortTarget(5) {
			req := &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), SortOrder: order, SortTarget: target, Limit: 150}
			want, err := m.readRange(req)
			if err != nil {
				t.Fatal(err)
			}
			got := d.get(codec.RangeRequest{Key: req.Key, RangeEnd: req.RangeEnd, Limit: 150,
				SortOrder: codec.SortOrder(order), SortTarget: codec.SortTarget(target)})
			if !proto.Equal(got, want) {
				t.Errorf("order %v by %v differs from etcd's", order, target)
			}
		}
	}
}

func TestNoSpace(t *testing.T) {
	d := newDriver(t)
	d.put("k", "v", 0)
	d.must(OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 3})
	d.commit()
	d.crash()
	put := putOp(&pb.PutRequest{Key: []byte("k")})
	wantErr(t, d.do(OpPut, put.GetRequestPut()), ErrNoSpace)
	wantErr(t, d.do(OpTxn, &pb.TxnRequest{Failure: []*pb.RequestOp{put}}), ErrNoSpace)
	wantErr(t, d.do(OpLeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 1}), ErrNoSpace)
	d.must(OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("x", "")}})
	d.must(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("k")})
	d.must(OpCompact, &pb.CompactionRequest{Revision: 3})
	if got := d.space.Alarms(codec.AlarmNoSpace); !slices.Equal(got, []codec.AlarmMember{{MemberID: 3, Alarm: codec.AlarmNoSpace}}) {
		t.Errorf("alarms %v", got)
	}
	d.must(OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: 3})
	d.put("k", "v", 0)
}

func TestQuota(t *testing.T) {
	put := &pb.PutRequest{Key: []byte("key"), Value: make([]byte, 97)}
	txn := &pb.TxnRequest{
		Success: []*pb.RequestOp{putOp(put), deleteOp("a", "")},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{putOp(put), putOp(put)}}}}},
	}
	for _, tc := range []struct {
		cmd  []byte
		want int64
	}{
		{command(OpPut, put), 356},
		{command(OpTxn, txn), 712},
		{command(OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("a", "")}}), 0},
		{command(OpLeaseGrant, &pb.LeaseGrantRequest{}), 64},
		{command(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("k")}), 0},
		{[]byte{byte(OpPut), 0x0a}, 0},
		{nil, 0},
	} {
		if got := Cost(tc.cmd); got != tc.want {
			t.Errorf("command %x costs %d, want %d", tc.cmd, got, tc.want)
		}
	}
	l := Limits{QuotaBytes: 1000}
	for size, want := range map[int64]bool{0: false, 899: false, 900: true, 5000: true} {
		if got := l.OverQuota(size, 100); got != want {
			t.Errorf("size %d: over quota %v", size, got)
		}
	}
	if l.OverQuota(5000, 0) || (Limits{QuotaBytes: -1}).OverQuota(5000, 100) {
		t.Error("what adds nothing, or has no quota, is never over it")
	}
	if (Limits{}).Validate() == nil {
		t.Error("a quota of 0 is no setting")
	}
}

// TestExpiryIsFenced: an expiry counts only in the term and epoch it was judged in.
func TestExpiryIsFenced(t *testing.T) {
	d := newDriver(t)
	var events []lease.Event
	d.space.OnLeases(func(ev []lease.Event) { events = append(events, ev...) })
	expire := func(e codec.LeaseExpiry) Outcome {
		return d.raw(codec.AppendLeaseExpiry([]byte{byte(OpLeaseExpire)}, e))
	}
	checkpoint := func(c codec.LeaseCheckpoint) {
		if o := d.raw(codec.AppendLeaseCheckpoint([]byte{byte(OpLeaseCheckpoint)}, c)); o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	d.term = 4
	d.grant(7, 600)
	granted, _ := d.space.Lease(7)
	d.put("b", "", 7)
	d.put("a", "", 7)
	wantErr(t, expire(codec.LeaseExpiry{ID: 7, Epoch: granted.Epoch, Term: 3}), ErrLeaseExpiryStale)
	checkpoint(codec.LeaseCheckpoint{ID: 7, Remaining: 60, Epoch: granted.Epoch, Term: 3})
	checkpoint(codec.LeaseCheckpoint{ID: 7, Remaining: 60, Epoch: granted.Epoch + 1, Term: 4})
	checkpoint(codec.LeaseCheckpoint{ID: 7, Remaining: -60, Epoch: granted.Epoch, Term: 4})
	checkpoint(codec.LeaseCheckpoint{ID: 8, Remaining: 60, Term: 4})
	if l, _ := d.space.Lease(7); l != granted {
		t.Fatalf("a stale checkpoint made %+v", l)
	}
	checkpoint(codec.LeaseCheckpoint{ID: 7, Remaining: 60, Epoch: granted.Epoch, Term: 4})
	checkpointed, _ := d.space.Lease(7)
	checkpoint(codec.LeaseCheckpoint{ID: 7}) // a keep-alive clears it
	cleared, _ := d.space.Lease(7)
	if checkpointed.Remaining != 60 || cleared.Remaining != 0 || cleared.Epoch <= granted.Epoch {
		t.Fatalf("checkpointed %+v, cleared %+v", checkpointed, cleared)
	}
	wantErr(t, expire(codec.LeaseExpiry{ID: 7, Epoch: granted.Epoch, Term: 4}), ErrLeaseExpiryStale)
	if o := expire(codec.LeaseExpiry{ID: 7, Epoch: cleared.Epoch, Term: 4}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantErr(t, expire(codec.LeaseExpiry{ID: 7, Epoch: cleared.Epoch, Term: 4}), ErrLeaseNotFound)
	if rev, _ := d.space.Revision(); rev != 4 {
		t.Errorf("revision %d: two keys of one lease are deleted in one", rev)
	}
	want := []lease.Event{lease.Granted{Lease: granted}, lease.Checkpointed{Lease: checkpointed}, lease.Checkpointed{Lease: cleared}, lease.Revoked{ID: 7}}
	if !slices.Equal(events, want) {
		t.Errorf("events %+v\nwant %+v", events, want)
	}
}

func TestOutsideOfTheSegment(t *testing.T) {
	r := newReplica(t)
	if err := r.store.Remove(1); err != nil {
		t.Fatal(err)
	}
	seg, err := r.store.Create(2, anchormesh.KeyRange{Start: []byte("b"), End: []byte("d")}, mvcc.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	r.serve(seg)
	d := &driver{replica: r, term: 1}
	for _, tc := range []struct {
		key, end string
		outside  bool
	}{
		{"b", "", false}, {"c\xff", "", false}, {"b", "d", false}, {"c", "bb", false}, {"a", "", true},
		{"d", "", true}, {"a", "c", true}, {"c", "d\x00", true}, {"c", "\x00", true},
	} {
		get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(tc.key), RangeEnd: []byte(tc.end)}}}
		outcomes := []error{
			d.do(OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte(tc.key), RangeEnd: []byte(tc.end)}).Err,
			d.do(OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp(tc.key, tc.end)}}).Err,
			d.do(OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{deleteOp("c", "")}, Failure: []*pb.RequestOp{get}}).Err,
			d.do(OpTxn, &pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte(tc.key), RangeEnd: []byte(tc.end)}}}).Err,
		}
		_, err := d.space.Range(context.Background(), &codec.RangeRequest{Key: []byte(tc.key), RangeEnd: []byte(tc.end)}, 1)
		outcomes = append(outcomes, err)
		if tc.end == "" {
			outcomes = append(outcomes, d.do(OpPut, &pb.PutRequest{Key: []byte(tc.key)}).Err,
				d.do(OpTxn, &pb.TxnRequest{Failure: []*pb.RequestOp{putOp(&pb.PutRequest{Key: []byte(tc.key)})}}).Err)
		}
		for i, err := range outcomes {
			if errors.Is(err, ErrWrongSegment) != tc.outside {
				t.Errorf("[%q, %q) request %d: %v", tc.key, tc.end, i, err)
			}
		}
	}
}

func TestRangeStopsWithItsContext(t *testing.T) {
	d := newDriver(t)
	var cmds [][]byte
	for i := range 2 * cancelEvery {
		cmds = append(cmds, command(OpPut, &pb.PutRequest{Key: fmt.Appendf(nil, "k%05d", i)}))
	}
	d.space.Apply(1, 1, cmds, false)
	q := codec.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	c, err := d.space.Range(&countdown{Context: context.Background(), looks: 2}, &q, 1)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%d bytes, error %v", c.Size(), err)
	}
}

// countdown is a context that ends after some looks at it.
type countdown struct {
	context.Context
	looks int
}

func (c *countdown) Err() error {
	if c.looks--; c.looks < 0 {
		return context.Canceled
	}
	return nil
}

// TestStoredContradiction: a key on a lease that does not exist is not served.
func TestStoredContradiction(t *testing.T) {
	d := newDriver(t)
	d.grant(7, 60)
	d.grant(8, 60)
	d.put("k", "v", 7)
	b := d.seg.Begin(100, 1)
	b.DeleteAux(leaseBucket, leaseKey(7))
	b.End()
	if _, err := NewSpace(d.seg, testIDs, DefaultLimits()); err == nil || !strings.Contains(err.Error(), `"k"`) {
		t.Errorf("error %v", err)
	}
}

// TestReadersAndApply runs readers of everything beside apply; the race detector
// looks on. What a reader sees is whole: two keys of one entry are equal.
func TestReadersAndApply(t *testing.T) {
	d := newDriver(t)
	d.grant(1, 60)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			q := codec.RangeRequest{Key: []byte("a"), RangeEnd: []byte("c")}
			for {
				select {
				case <-done:
					return
				default:
				}
				c, err := d.space.Range(context.Background(), &q, 1)
				if err != nil {
					t.Error(err)
					return
				}
				got := unmarshal(t, c.Bytes(), &pb.RangeResponse{})
				if len(got.Kvs) == 2 && string(got.Kvs[0].Value) != string(got.Kvs[1].Value) {
					t.Errorf("half an entry: %v", got.Kvs)
				}
				_, _, _ = d.space.Leases(), d.space.LeaseKeys(1), d.space.Alarms(0)
				_, _ = d.space.HashKV(0)
			}
		})
	}
	for i := range 300 {
		v := fmt.Append(nil, i)
		d.index++
		d.space.Apply(d.index, 1, [][]byte{
			command(OpPut, &pb.PutRequest{Key: []byte("a"), Value: v, Lease: int64(i % 2)}),
			command(OpPut, &pb.PutRequest{Key: []byte("b"), Value: v}),
		}, true)
		if i%20 == 0 {
			d.commit()
		}
	}
	close(done)
	wg.Wait()
}
