package etcdapi

import (
	"bytes"
	"context"

	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func openWatch(t *testing.T, ctx context.Context, conn *grpc.ClientConn) pb.Watch_WatchClient {
	t.Helper()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func createWatch(stream pb.Watch_WatchClient, r *pb.WatchCreateRequest) {
	stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
}

func recvWatch(t *testing.T, stream pb.Watch_WatchClient) *pb.WatchResponse {
	t.Helper()
	r, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Every response field is etcd's, and responses to creates come in the order of
// the requests, refused ones included.
func TestWatchResponses(t *testing.T) {
	s := newStub(t)
	_, conn, _ := serve(t, DefaultConfig(), s.backends())
	ctx := within(t)
	stream := openWatch(t, ctx, conn)
	var out strings.Builder
	ask := func(what string, send func()) {
		fmt.Fprintf(&out, "%s\n", what)
		send()
		for range strings.Count(what, ";") + 1 {
			fmt.Fprintf(&out, "  %s\n", show(recvWatch(t, stream)))
		}
	}
	// A progress request before any watch is answered by nothing.
	stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	stream.Send(&pb.WatchRequest{})
	ask("one; negative start; duplicate; empty range; next", func() {
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5})
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1})
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5})
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")})
		createWatch(stream, &pb.WatchCreateRequest{RangeEnd: []byte{0}, PrevKv: true, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}})
	})
	kv := pb.NewKVClient(conn)
	ask("put a; for both watches", func() { kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}) })
	ask("put b", func() { kv.Put(ctx, &pb.PutRequest{Key: []byte("b")}) })
	ask("cancel of a watch that does not exist, cancel 5", func() {
		for _, id := range []int64{99, 5} {
			stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}})
		}
	})
	ask("put a again, with the previous value", func() { kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")}) })
	ask("delete a, filtered; progress", func() {
		kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a")})
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("x")})
		stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
	})
	kv.Compact(ctx, &pb.CompactionRequest{Revision: 4})
	ask("start below the compacted revision; and its end", func() {
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 1})
	})
	golden(t, "testdata/watch", out.String())
}

// show prints a response without what a schedule may change.
func show(r *pb.WatchResponse) string {
	events := r.Events
	r.Events = nil
	s := fmt.Sprint(r)
	for _, ev := range events {
		s += fmt.Sprintf(" event:{%v}", ev)
	}
	return strings.Join(strings.Fields(s), " ") // protobuf's text varies its spaces
}

func TestWatchMalformed(t *testing.T) {
	_, conn, _ := serve(t, DefaultConfig(), newStub(t).backends())
	stream, err := conn.NewStream(within(t), &pb.Watch_ServiceDesc.Streams[0], pb.Watch_Watch_FullMethodName, grpc.ForceCodecV2(newWireCodec()))
	if err != nil {
		t.Fatal(err)
	}
	stream.SendMsg(&frame{[]byte{0xff}})
	if err := stream.RecvMsg(new(frame)); status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "failed to unmarshal the received message") {
		t.Errorf("malformed watch request: %v", err)
	}
}

// A client that closes its sending side is served on, as by etcd.
func TestWatchHalfClosed(t *testing.T) {
	s := newStub(t)
	_, conn, _ := serve(t, DefaultConfig(), s.backends())
	stream := openWatch(t, within(t), conn)
	createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a")})
	recvWatch(t, stream)
	stream.CloseSend()
	pb.NewKVClient(conn).Put(within(t), &pb.PutRequest{Key: []byte("a")})
	if r := recvWatch(t, stream); len(r.Events) != 1 {
		t.Errorf("after closing: %v", r)
	}
}

func electing() Config {
	cfg := DefaultConfig()
	cfg.ElectionTimeout = 10 * time.Millisecond
	return cfg
}

func TestRequireLeaderStreams(t *testing.T) {
	s := newStub(t)
	_, conn, _ := serve(t, electing(), s.backends())
	ctx := within(t)
	needs := metadata.AppendToOutgoingContext(ctx, "hasleader", "true")
	stream, calm := openWatch(t, needs, conn), openWatch(t, ctx, conn)
	for _, key := range []string{"a", "b"} {
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte(key)})
		recvWatch(t, stream)
	}
	createWatch(calm, &pb.WatchCreateRequest{Key: []byte("a")})
	recvWatch(t, calm)

	// One of two ranges loses its leader: that watch ends, the other goes on.
	s.mu.Lock()
	s.lost = []byte("b")
	s.mu.Unlock()
	r := recvWatch(t, stream)
	if r.WatchId != 1 || !r.Canceled || r.CancelReason != "rpc error: code = Unavailable desc = etcdserver: no leader" {
		t.Errorf("watch of the lost range: %v", r)
	}
	pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a")})
	if r := recvWatch(t, stream); r.WatchId != 0 || len(r.Events) != 1 {
		t.Errorf("the other watch: %v", r)
	}

	// All lose it: the stream ends, as etcd's.
	s.setLed(false, false)
	if _, err := stream.Recv(); status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("stream without leader: %v", err)
	}
	again := openWatch(t, needs, conn)
	createWatch(again, &pb.WatchCreateRequest{Key: []byte("a")})
	if _, err := again.Recv(); status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("new stream without leader: %v", err)
	}
	if r := recvWatch(t, calm); len(r.Events) != 1 {
		t.Errorf("a stream that does not insist: %v", r)
	}
}

func TestRequireLeaderKeepAlive(t *testing.T) {
	s := newStub(t)
	_, conn, _ := serve(t, electing(), s.backends())
	needs := metadata.AppendToOutgoingContext(within(t), "hasleader", "true")
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(needs)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LeaseKeepAliveRequest{ID: 1})
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	s.setLed(true, false)
	if _, err := stream.Recv(); status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("keep-alive stream without leader: %v", err)
	}
}

// Requests that arrive while a batch is renewed are renewed together, and
// answered in order, those before a closed stream's end included.
func TestKeepAlivesAreBatched(t *testing.T) {
	s := newStub(t)
	s.gate = make(chan struct{})
	_, conn, _ := serve(t, DefaultConfig(), s.backends())
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	for i := range int64(n) {
		if i%2 == 0 {
			s.mu.Lock()
			s.leases[i] = i + 1
			s.mu.Unlock()
		}
		stream.Send(&pb.LeaseKeepAliveRequest{ID: i})
	}
	stream.CloseSend()
	close(s.gate)
	for i := range int64(n) {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if want := (i + 1) * (1 - i%2); r.ID != i || r.TTL != want || r.Header.MemberId != 8 {
			t.Fatalf("answer %d: %v", i, r)
		}
	}
	if _, err := stream.Recv(); err == nil || status.Code(err) != codes.Unknown && err.Error() != "EOF" {
		t.Errorf("after the last answer: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	most := 0
	for _, b := range s.batches {
		most = max(most, len(b))
	}
	if len(s.batches) > n/10 || most > keepAliveBatchMax {
		t.Errorf("%d batches, the largest of %d", len(s.batches), most)
	}
}

func TestKeepAliveFails(t *testing.T) {
	s := newStub(t)
	s.fail = fmt.Errorf("asking: %w", ErrTimeout)
	_, conn, _ := serve(t, DefaultConfig(), s.backends())
	stream, err := pb.NewLeaseClient(conn).LeaseKeepAlive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&pb.LeaseKeepAliveRequest{ID: 1})
	if _, err := stream.Recv(); status.Convert(err).Message() != "etcdserver: request timed out" {
		t.Errorf("keep-alive: %v", err)
	}
}

// A node without an anchor passes the stream on; the client sees no difference.
func TestWatchRelayed(t *testing.T) {
	anchor := newStub(t)
	_, toAnchor, _ := serve(t, DefaultConfig(), anchor.backends())
	node := newStub(t)
	node.elsewhere = toAnchor
	c := client(t, node)
	ctx := within(t)
	watched := c.Watch(ctx, "a", clientv3.WithCreatedNotify())
	if r := <-watched; !r.Created {
		t.Fatal(r)
	}
	kv := pb.NewKVClient(toAnchor)
	for i := range 3 {
		kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: bytes.Repeat([]byte{byte(i)}, 700<<10)})
	}
	for i, ev := range collect(t, watched, 3) {
		if len(ev.Kv.Value) != 700<<10 || ev.Kv.Value[0] != byte(i) {
			t.Errorf("event %d: %d bytes", i, len(ev.Kv.Value))
		}
	}
	if err := c.RequestProgress(ctx); err != nil {
		t.Fatal(err)
	}
	if r := <-watched; !r.IsProgressNotify() || r.Header.Revision != 4 {
		t.Errorf("progress %v", r)
	}
}

// Two nodes that each believe the other holds the anchor must not send a stream
// in a circle.
func TestWatchNotRelayedTwice(t *testing.T) {
	a, b := newStub(t), newStub(t)
	_, toA, _ := serve(t, DefaultConfig(), a.backends())
	_, toB, _ := serve(t, DefaultConfig(), b.backends())
	a.elsewhere, b.elsewhere = toB, toA
	stream := openWatch(t, within(t), toA)
	createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a")})
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("circle: %v", err)
	}
}

// The same of hashes; one that was taken elsewhere keeps its revision and term
// and is answered in this node's name.
func TestHashRelayedOnce(t *testing.T) {
	a, b := newStub(t), newStub(t)
	_, toA, _ := serve(t, DefaultConfig(), a.backends())
	_, toB, _ := serve(t, DefaultConfig(), b.backends())
	a.elsewhere = toB
	h, err := pb.NewMaintenanceClient(toA).HashKV(within(t), &pb.HashKVRequest{Revision: 7})
	if own := a.Header(); err != nil || h.Header.MemberId != own.MemberID || h.Header.Revision != 7 || h.Header.RaftTerm != 23 || own.RaftTerm == 23 {
		t.Errorf("hash of another node: %v, %v", h, err)
	}
	b.elsewhere = toA
	if _, err := pb.NewMaintenanceClient(toA).HashKV(within(t), &pb.HashKVRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("circle: %v", err)
	}
}

// When the segment leaves the node, the client resumes by itself, without a gap.
func TestWatchSurvivesItsHub(t *testing.T) {
	s := newStub(t)
	c := client(t, s)
	ctx := within(t)
	watched := c.Watch(ctx, "a", clientv3.WithCreatedNotify())
	<-watched
	c.Put(ctx, "a", "1")
	collect(t, watched, 1)
	old := s.hub
	s.startHub(t)
	c.Put(ctx, "a", "2") // the old hub never hears of it
	old.Stop(nil)
	if ev := collect(t, watched, 1); string(ev[0].Kv.Value) != "2" {
		t.Errorf("after the move: %v", ev)
	}
}

// A client that does not read blocks nobody else.
func TestSlowWatcher(t *testing.T) {
	s := newStub(t)
	_, conn, _ := serve(t, DefaultConfig(), s.backends())
	_, other, _ := serve(t, DefaultConfig(), s.backends())
	ctx := within(t)
	slow, fast := openWatch(t, ctx, conn), openWatch(t, ctx, other)
	for _, stream := range []pb.Watch_WatchClient{slow, fast} {
		createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a")})
		recvWatch(t, stream)
	}
	kv := pb.NewKVClient(other)
	value := make([]byte, 1<<20)
	read := func(stream pb.Watch_WatchClient, n int) {
		t.Helper()
		for rev := int64(2); n > 0; {
			for _, ev := range recvWatch(t, stream).Events {
				if ev.Kv.ModRevision != rev {
					t.Fatalf("event of revision %d, want %d", ev.Kv.ModRevision, rev)
				}
				rev, n = rev+1, n-1
			}
		}
	}
	for range 20 {
		if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	read(fast, 20)
	read(slow, 20)
}

func TestStopEndsStreamsAndWaitsForRequests(t *testing.T) {
	s := newStub(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	s.before = func(context.Context) error { close(entered); <-leave; return nil }
	srv, conn, _ := serve(t, DefaultConfig(), s.backends())
	stream := openWatch(t, within(t), conn)
	createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a")})
	recvWatch(t, stream)
	idle := openWatch(t, within(t), conn) // no request yet
	alive, err := pb.NewLeaseClient(conn).LeaseKeepAlive(within(t))
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(conn).Put(within(t), &pb.PutRequest{Key: []byte("a")})
		answered <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() { srv.Stop(within(t)); close(stopped) }()
	for _, recv := range []func() error{
		func() error { _, err := stream.Recv(); return err },
		func() error { _, err := idle.Recv(); return err },
		func() error { _, err := alive.Recv(); return err },
	} {
		if err := recv(); status.Code(err) != codes.Unavailable {
			t.Errorf("stream of a stopping server: %v", err)
		}
	}
	select {
	case <-stopped:
		t.Error("stopped while a request was running")
	default:
	}
	close(leave)
	if err := <-answered; err != nil {
		t.Errorf("the running request: %v", err)
	}
	<-stopped
}

func TestStopIsBounded(t *testing.T) {
	s := newStub(t)
	entered := make(chan struct{})
	s.before = func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() }
	srv, conn, _ := serve(t, DefaultConfig(), s.backends())
	answered := make(chan error, 1)
	go func() {
		_, err := pb.NewKVClient(conn).Put(within(t), &pb.PutRequest{Key: []byte("a")})
		answered <- err
	}()
	<-entered
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	srv.Stop(ctx)
	if err := <-answered; err == nil {
		t.Error("a request that was cut off succeeded")
	}
}

func TestListener(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	note := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, fmt.Sprintf(format, args...))
	}
	closed := make(chan struct{})
	cfg := DefaultConfig()
	cfg.Listener = Listener{
		Request: func(method string, code codes.Code, took time.Duration) {
			note("%s %v %v", method, code, took > 0)
		},
		StreamOpened: func(method string) { note("open %s", method) },
		StreamClosed: func(method string, code codes.Code) { note("close %s %v", method, code); close(closed) },
	}
	_, conn, _ := serve(t, cfg, newStub(t).backends())
	kv := pb.NewKVClient(conn)
	kv.Put(within(t), &pb.PutRequest{Key: []byte("a")})
	kv.Put(within(t), &pb.PutRequest{})
	ctx, cancel := context.WithCancel(within(t))
	stream := openWatch(t, ctx, conn)
	createWatch(stream, &pb.WatchCreateRequest{Key: []byte("a")})
	recvWatch(t, stream)
	cancel()
	<-closed
	want := []string{
		"/etcdserverpb.KV/Put OK true", "/etcdserverpb.KV/Put InvalidArgument true",
		"open /etcdserverpb.Watch/Watch", "close /etcdserverpb.Watch/Watch Canceled",
	}
	mu.Lock()
	defer mu.Unlock()
	if fmt.Sprint(heard) != fmt.Sprint(want) {
		t.Errorf("heard %q", heard)
	}
}

// The server's own limit on time is etcd's timeout, whatever the backend says.
func TestServerTimeouts(t *testing.T) {
	s := newStub(t)
	s.before = func(ctx context.Context) error { <-ctx.Done(); return fmt.Errorf("waiting: %w", ctx.Err()) }
	cfg := DefaultConfig()
	cfg.RequestTimeout = 10 * time.Millisecond
	_, conn, _ := serve(t, cfg, s.backends())
	kv := pb.NewKVClient(conn)
	_, errPut := kv.Put(within(t), &pb.PutRequest{Key: []byte("a")})
	_, errGet := kv.Range(within(t), &pb.RangeRequest{Key: []byte("a")})
	for _, err := range []error{errPut, errGet} {
		if st := status.Convert(err); st.Code() != codes.Unavailable || st.Message() != "etcdserver: request timed out" {
			t.Errorf("%v", err)
		}
	}
	if cfg.RequestTimeout = 0; cfg.requestTimeout() != 7*time.Second {
		t.Errorf("etcd's rule gives %v", cfg.requestTimeout())
	}
}
