package etcdapi

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// The tests of this file drive the API with etcd's own client.

func TestClientKV(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	put, err := c.Put(ctx, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	if put.Header.Revision != 2 || put.Header.ClusterId != 7 || put.Header.MemberId != 8 || put.Header.RaftTerm != 2 {
		t.Errorf("header %v", put.Header)
	}
	if _, err := c.Put(ctx, "b", strings.Repeat("x", 20<<10)); err != nil {
		t.Fatal(err)
	}
	got, err := c.Get(ctx, "a", clientv3.WithFromKey())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Kvs) != 2 || string(got.Kvs[0].Value) != "1" || len(got.Kvs[1].Value) != 20<<10 {
		t.Errorf("got %v", got)
	}
	txn, err := c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision("a"), "=", 2)).
		Then(clientv3.OpPut("c", "3"), clientv3.OpGet("a")).Else(clientv3.OpGet("z")).Commit()
	if err != nil {
		t.Fatal(err)
	}
	if !txn.Succeeded || string(txn.Responses[1].GetResponseRange().Kvs[0].Value) != "1" {
		t.Errorf("txn %v", txn)
	}
	del, err := c.Delete(ctx, "a", clientv3.WithFromKey())
	if err != nil || del.Deleted != 3 {
		t.Errorf("deleted %v, %v", del, err)
	}
	if _, err := c.Compact(ctx, del.Header.Revision); err != nil {
		t.Error(err)
	}
	if _, err := c.Get(ctx, "a", clientv3.WithRev(2)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("read below the compacted revision: %v", err)
	}
	if _, err := c.Get(ctx, "a", clientv3.WithRev(100)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Errorf("read in the future: %v", err)
	}
	if _, err := c.Put(ctx, "", "v"); !errors.Is(err, rpctypes.ErrEmptyKey) {
		t.Errorf("empty key: %v", err)
	}
}

func TestClientSizeLimits(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	limit := DefaultConfig().MaxRequestBytes
	fits := limit - envelopeBytes - 3 - (3 + 4) // key field "k", value's tag and length, the request's length prefix
	if _, err := c.Put(ctx, "k", strings.Repeat("v", fits-1)); err != nil {
		t.Errorf("the largest value: %v", err)
	}
	if _, err := c.Put(ctx, "k", strings.Repeat("v", fits+1)); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("a value too large: %v", err)
	}
	_, err := pb.NewKVClient(c.ActiveConnection()).Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 3<<20)})
	want := fmt.Sprintf("grpc: received message larger than max (%d vs. %d)", 3<<20+8, limit+512<<10)
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || st.Message() != want {
		t.Errorf("a message too large: %v, want %q", err, want)
	}
}

// collect reads a watch until n events came.
func collect(t *testing.T, ch clientv3.WatchChan, n int) (events []*clientv3.Event) {
	t.Helper()
	for len(events) < n {
		select {
		case r, ok := <-ch:
			if !ok || r.Err() != nil {
				t.Fatalf("watch ended after %d of %d events: %v", len(events), n, r.Err())
			}
			events = append(events, r.Events...)
		case <-time.After(10 * time.Second):
			t.Fatalf("only %d of %d events came", len(events), n)
		}
	}
	return events
}

func TestClientWatch(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	for i := range 3 {
		if _, err := c.Put(ctx, "old", fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	past := c.Watch(ctx, "old", clientv3.WithRev(2), clientv3.WithPrevKV())
	live := c.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if r := <-live; !r.Created {
		t.Fatalf("first response %v", r)
	}
	events := collect(t, past, 3)
	if string(events[2].Kv.Value) != "2" || string(events[2].PrevKv.Value) != "1" || events[0].PrevKv != nil {
		t.Errorf("past events %v", events)
	}
	c.Put(ctx, "new", "n")
	c.Delete(ctx, "old")
	events = collect(t, live, 2)
	if string(events[0].Kv.Key) != "new" || events[1].Type != clientv3.EventTypeDelete {
		t.Errorf("live events %v", events)
	}
	if err := c.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	for r := range live {
		if r.IsProgressNotify() && r.Header.Revision == 6 {
			return
		}
		if r.Err() != nil || len(r.Events) > 0 {
			t.Fatalf("waiting for progress: %v", r)
		}
	}
}

func TestClientWatchCompacted(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	for range 5 {
		c.Put(ctx, "k", "v")
	}
	c.Compact(ctx, 5)
	r := <-c.Watch(ctx, "k", clientv3.WithRev(2))
	if !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision != 5 {
		t.Errorf("compact revision %d, %v", r.CompactRevision, r.Err())
	}
}

func TestClientWatchFragments(t *testing.T) {
	s := newStub(t)
	cfg := DefaultConfig()
	cfg.MaxRequestBytes = 128 << 10 // a response is cut at 640 KiB
	_, conn, _ := serve(t, cfg, s.backends())
	ctx := within(t)
	kv := pb.NewKVClient(conn)
	var ops []*pb.RequestOp
	s.mu.Lock()
	s.rev++
	for i := range 20 { // one revision larger than the limit of a request
		s.putLocked(&pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: bytes.Repeat([]byte{'v'}, 100<<10)}, int64(i))
	}
	s.publishLocked()
	s.mu.Unlock()
	_, _ = kv, ops
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, fragment := range []bool{true, false} {
		stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: 2, Fragment: fragment,
		}}})
		var parts []int
		for total := 0; total < 20; {
			r, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if r.Created {
				continue
			}
			for i, ev := range r.Events {
				if want := fmt.Sprintf("k%02d", total+i); string(ev.Kv.Key) != want {
					t.Fatalf("event %s, want %s", ev.Kv.Key, want)
				}
			}
			parts = append(parts, len(r.Events))
			total += len(r.Events)
			if r.Fragment != (fragment && total < 20) || r.Header.Revision != 2 {
				t.Errorf("after %d events: fragment %v, revision %d", total, r.Fragment, r.Header.Revision)
			}
		}
		want := "[6 6 6 2]"
		if !fragment {
			want = "[20]"
		}
		if fmt.Sprint(parts) != want {
			t.Errorf("parts %v, want %s", parts, want)
		}
	}
}

func TestClientLease(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	granted, err := c.Grant(ctx, 60)
	if err != nil || granted.ID <= 0 {
		t.Fatalf("granted %v, %v", granted, err)
	}
	if _, err := c.Lease.KeepAliveOnce(ctx, granted.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.KeepAliveOnce(ctx, 12345); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("keep-alive of an unknown lease: %v", err)
	}
	ch, err := c.KeepAlive(ctx, granted.ID)
	if err != nil {
		t.Fatal(err)
	}
	if r := <-ch; r.TTL != 60 || r.ID != granted.ID || r.MemberId != 8 {
		t.Errorf("keep-alive %v", r)
	}
	if ttl, err := c.TimeToLive(ctx, 12345); err != nil || ttl.TTL != -1 {
		t.Errorf("time to live of an unknown lease: %v, %v", ttl, err)
	}
	if all, err := c.Leases(ctx); err != nil || len(all.Leases) != 1 {
		t.Errorf("leases %v, %v", all, err)
	}
	if _, err := c.Revoke(ctx, granted.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Revoke(ctx, granted.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Errorf("second revoke: %v", err)
	}
	if _, err := c.Grant(ctx, maxLeaseTTL+1); !errors.Is(err, rpctypes.ErrLeaseTTLTooLarge) {
		t.Errorf("TTL too large: %v", err)
	}
}

func TestClientOperator(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	st, err := c.Status(ctx, "stub:1")
	if err != nil || st.Version != Version || st.StorageVersion != StorageVersion || st.DbSize != 4096 || st.DowngradeInfo == nil ||
		!slices.Equal(st.Errors, []string{"etcdserver: no leader", "a reason of its own"}) {
		t.Errorf("status %v, %v", st, err)
	}
	if m, err := c.MemberList(ctx); err != nil || len(m.Members) != 1 || m.Header.Revision != 0 {
		t.Errorf("members %v, %v", m, err)
	}
	if h, err := c.HashKV(ctx, "stub:1", 0); err != nil || h.Hash != 42 || h.Header.Revision != 1 {
		t.Errorf("hash %v, %v", h, err)
	}
	if _, err := c.Defragment(ctx, "stub:1"); err != nil {
		t.Error(err)
	}
	if _, err := c.AlarmList(ctx); err != nil {
		t.Error(err)
	}
	if a, err := c.AuthStatus(ctx); err != nil || a.Enabled || a.AuthRevision != 1 {
		t.Errorf("auth status %v, %v", a, err)
	}
	if _, err := c.MemberAdd(ctx, []string{"http://x:1"}); status.Code(err) != codes.Unimplemented || status.Convert(err).Message() != membersSentence {
		t.Errorf("member add: %v", err)
	}
	if _, err := c.Auth.AuthEnable(ctx); status.Code(err) != codes.Unimplemented {
		t.Errorf("auth enable: %v", err)
	}
	r, err := c.Snapshot(ctx)
	if err == nil {
		_, err = r.Read(make([]byte, 1))
	}
	if err == nil || !strings.Contains(err.Error(), snapshotSentence) {
		t.Errorf("snapshot: %v", err)
	}
}

// A client that is given a user goes on without when authentication is off.
func TestClientWithUser(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	if _, err := c.Authenticate(within(t), "root", "pw"); !errors.Is(err, rpctypes.ErrAuthNotEnabled) {
		t.Errorf("authenticate: %v", err)
	}
}

// etcd's client-side lock uses leases, transactions and watches together.
func TestClientLock(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	lock := func() *concurrency.Mutex {
		session, err := concurrency.NewSession(c, concurrency.WithTTL(60))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { session.Close() })
		return concurrency.NewMutex(session, "lock")
	}
	first, second := lock(), lock()
	if err := first.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := second.TryLock(ctx); !errors.Is(err, concurrency.ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- second.Lock(ctx) }()
	if err := first.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestClientRangeStream(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	for i := range 100 {
		c.Put(ctx, fmt.Sprintf("k%03d", i), strings.Repeat("v", 30<<10))
	}
	for _, opts := range [][]clientv3.OpOption{
		{clientv3.WithPrefix()},
		{clientv3.WithPrefix(), clientv3.WithLimit(37)},
		{clientv3.WithPrefix(), clientv3.WithLimit(5)},
		{clientv3.WithPrefix(), clientv3.WithCountOnly()},
		{clientv3.WithPrefix(), clientv3.WithRev(50), clientv3.WithSerializable()},
		nil,
	} {
		want, err := c.Get(ctx, "k", opts...)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := c.GetStream(ctx, "k", opts...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := clientv3.GetStreamToGetResponse(stream)
		if err != nil {
			t.Fatal(err)
		}
		if (*pb.RangeResponse)(got).String() != (*pb.RangeResponse)(want).String() {
			t.Errorf("stream of %d keys, count %d, more %v; range %d, %d, %v",
				len(got.Kvs), got.Count, got.More, len(want.Kvs), want.Count, want.More)
		}
	}
	for _, opt := range []clientv3.OpOption{
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithMinModRev(3),
	} {
		stream, err := c.GetStream(ctx, "k", clientv3.WithPrefix(), opt)
		if err == nil {
			_, err = clientv3.GetStreamToGetResponse(stream)
		}
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("stream with a sort or filter: %v", err)
		}
	}
}
