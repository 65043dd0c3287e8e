package etcdapi

import (
	"bytes"
	"cmp"
	"context"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// stub is a node small enough to see through: one segment, one replica, no log.
type stub struct {
	mu        sync.Mutex
	rev       int64
	compacted int64
	changes   []mvcc.Event // all of them, in order
	values    map[string][]*mvccpb.KeyValue
	leases    map[int64]int64
	hub       *watch.Hub

	led       bool
	leaseLed  bool
	lost      []byte                      // ranges that hold it have no leader
	fail      error                       // what Do answers
	before    func(context.Context) error // called by Do
	batches   [][]int64                   // keep-alives as they came
	gate      chan struct{}               // keep-alives wait for it
	seen      []*Call
	elsewhere grpc.ClientConnInterface // watches and hashes are served there
}

func newStub(t testing.TB) *stub {
	s := &stub{rev: 1, values: map[string][]*mvccpb.KeyValue{}, leases: map[int64]int64{}, led: true, leaseLed: true}
	s.startHub(t)
	return s
}

// startHub makes a hub, a second one in place of the first.
func (s *stub) startHub(t testing.TB) {
	limits := watch.DefaultLimits()
	limits.ProgressInterval = 100 * time.Millisecond
	hub, err := watch.NewHub(s, limits)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.hub = hub
	s.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { hub.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (s *stub) backends() Backends {
	return Backends{Requests: s, Watches: s, Leases: s, Cluster: s, Maintenance: s, Node: s}
}

func (s *stub) Header() codec.Header {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headerLocked()
}

func (s *stub) headerLocked() codec.Header {
	return codec.Header{ClusterID: 7, MemberID: 8, Revision: s.rev, RaftTerm: 2}
}

func (s *stub) KeysLed(keys anchormesh.KeyRange) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.led && (s.lost == nil || !keys.Contains(s.lost))
}

func (s *stub) LeasesLed() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.leaseLed }

func (s *stub) setLed(keys, leases bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.led, s.leaseLed = keys, leases
}

func (s *stub) Do(ctx context.Context, c *Call) (codec.Chunks, error) {
	if s.before != nil {
		if err := s.before(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, c)
	if s.fail != nil {
		return nil, s.fail
	}
	answer, err := s.runLocked(c)
	if err != nil {
		return nil, err
	}
	raw, err := proto.Marshal(answer)
	if err != nil {
		return nil, err
	}
	// In pieces, as a real backend answers.
	half := len(raw) / 2
	return codec.Chunks{raw[:half:half], raw[half:]}, nil
}

func (s *stub) runLocked(c *Call) (proto.Message, error) {
	parse := func(m proto.Message) {
		if err := proto.Unmarshal(c.Raw(), m); err != nil {
			panic("a malformed request passed the checks: " + err.Error())
		}
	}
	switch c.Method {
	case MethodRange:
		var r pb.RangeRequest
		parse(&r)
		return s.rangeLocked(&r)
	case MethodPut:
		var r pb.PutRequest
		parse(&r)
		s.rev++
		answer := &pb.PutResponse{PrevKv: s.putLocked(&r, 0)}
		answer.Header = responseHeader(s.headerLocked())
		s.publishLocked()
		return answer, nil
	case MethodDeleteRange:
		var r pb.DeleteRangeRequest
		parse(&r)
		s.rev++
		n := s.deleteLocked(&r)
		if n == 0 {
			s.rev--
		}
		s.publishLocked()
		return &pb.DeleteRangeResponse{Header: responseHeader(s.headerLocked()), Deleted: n}, nil
	case MethodTxn:
		var r pb.TxnRequest
		parse(&r)
		return s.txnLocked(&r), nil
	case MethodCompact:
		var r pb.CompactionRequest
		parse(&r)
		if r.Revision > s.rev {
			return nil, ErrFutureRevision
		}
		s.compacted = max(s.compacted, r.Revision)
		return &pb.CompactionResponse{Header: responseHeader(s.headerLocked())}, nil
	}
	return s.leaseLocked(c, parse)
}

func (s *stub) leaseLocked(c *Call, parse func(proto.Message)) (proto.Message, error) {
	h := responseHeader(s.headerLocked())
	switch c.Method {
	case MethodLeaseGrant:
		var r pb.LeaseGrantRequest
		parse(&r)
		if _, taken := s.leases[r.ID]; taken {
			return nil, ErrLeaseExists
		}
		s.leases[r.ID] = r.TTL
		return &pb.LeaseGrantResponse{Header: h, ID: r.ID, TTL: r.TTL}, nil
	case MethodLeaseRevoke:
		var r pb.LeaseRevokeRequest
		parse(&r)
		if _, there := s.leases[r.ID]; !there {
			return nil, ErrLeaseNotFound
		}
		delete(s.leases, r.ID)
		return &pb.LeaseRevokeResponse{Header: h}, nil
	case MethodLeaseTimeToLive:
		var r pb.LeaseTimeToLiveRequest
		parse(&r)
		ttl, there := s.leases[r.ID]
		if !there {
			ttl = -1
		}
		return &pb.LeaseTimeToLiveResponse{Header: h, ID: r.ID, TTL: ttl, GrantedTTL: max(ttl, 0)}, nil
	case MethodLeaseLeases:
		answer := &pb.LeaseLeasesResponse{Header: h}
		for id := range s.leases {
			answer.Leases = append(answer.Leases, &pb.LeaseStatus{ID: id})
		}
		return answer, nil
	case MethodAlarm:
		var r pb.AlarmRequest
		parse(&r)
		return &pb.AlarmResponse{Header: h}, nil
	}
	panic("unknown method " + c.Method.String())
}

// atLocked returns the key's version at a revision, nil if it did not exist.
func (s *stub) atLocked(key string, rev int64) *mvccpb.KeyValue {
	var found *mvccpb.KeyValue
	for _, kv := range s.values[key] {
		if kv.ModRevision <= rev {
			found = kv
		}
	}
	if found != nil && found.Version == 0 {
		return nil
	}
	return found
}

func (s *stub) rangeLocked(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	rev := r.Revision
	switch {
	case rev <= 0:
		rev = s.rev
	case rev > s.rev:
		return nil, ErrFutureRevision
	case rev < s.compacted:
		return nil, ErrCompacted
	}
	keys := anchormesh.RequestRange(r.Key, r.RangeEnd)
	answer := &pb.RangeResponse{Header: responseHeader(s.headerLocked())}
	for key := range s.values {
		if kv := s.atLocked(key, rev); kv != nil && keys.Contains([]byte(key)) &&
			(r.MaxCreateRevision == 0 || kv.CreateRevision <= r.MaxCreateRevision) {
			answer.Kvs = append(answer.Kvs, kv)
		}
	}
	slices.SortFunc(answer.Kvs, func(a, b *mvccpb.KeyValue) int {
		if r.SortTarget == pb.RangeRequest_CREATE {
			return cmp.Compare(a.CreateRevision, b.CreateRevision)
		}
		return bytes.Compare(a.Key, b.Key)
	})
	if r.SortOrder == pb.RangeRequest_DESCEND {
		slices.Reverse(answer.Kvs)
	}
	answer.Count = int64(len(answer.Kvs))
	if r.Limit > 0 && r.Limit < answer.Count {
		answer.Kvs, answer.More = answer.Kvs[:r.Limit], true
	}
	if r.CountOnly {
		answer.Kvs = nil
	}
	return answer, nil
}

func (s *stub) putLocked(r *pb.PutRequest, sub int64) (prev *mvccpb.KeyValue) {
	key := string(r.Key)
	kv := &mvccpb.KeyValue{Key: r.Key, Value: r.Value, CreateRevision: s.rev, ModRevision: s.rev, Version: 1, Lease: r.Lease}
	if old := s.atLocked(key, s.rev); old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
		if r.PrevKv {
			prev = old
		}
	}
	s.recordLocked(kv, false, sub)
	return prev
}

func (s *stub) recordLocked(kv *mvccpb.KeyValue, deleted bool, sub int64) {
	s.values[string(kv.Key)] = append(s.values[string(kv.Key)], kv)
	raw, err := proto.Marshal(kv)
	if err != nil {
		panic(err)
	}
	s.changes = append(s.changes, mvcc.Event{Delete: deleted, Main: s.rev, Sub: sub, KV: mvcc.KV{
		Key: kv.Key, Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Raw: raw,
	}})
}

func (s *stub) deleteLocked(r *pb.DeleteRangeRequest) (n int64) {
	keys := anchormesh.RequestRange(r.Key, r.RangeEnd)
	for key := range s.values {
		if keys.Contains([]byte(key)) && s.atLocked(key, s.rev) != nil {
			s.recordLocked(&mvccpb.KeyValue{Key: []byte(key), ModRevision: s.rev}, true, n)
			n++
		}
	}
	return n
}

// txnLocked knows one compare, of create revision, which is what tests need.
func (s *stub) txnLocked(r *pb.TxnRequest) *pb.TxnResponse {
	answer := &pb.TxnResponse{Succeeded: true}
	for _, c := range r.Compare {
		var have int64
		if kv := s.atLocked(string(c.Key), s.rev); kv != nil {
			have = kv.CreateRevision
		}
		answer.Succeeded = answer.Succeeded && cmp.Compare(have, c.GetCreateRevision()) == 0
	}
	ops := r.Success
	if !answer.Succeeded {
		ops = r.Failure
	}
	s.rev++
	wrote := false
	for i, op := range ops {
		switch o := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			s.putLocked(o.RequestPut, int64(i))
			wrote = true
			answer.Responses = append(answer.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{
				ResponsePut: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: s.rev}}}})
		case *pb.RequestOp_RequestDeleteRange:
			wrote = s.deleteLocked(o.RequestDeleteRange) > 0 || wrote
			answer.Responses = append(answer.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
				ResponseDeleteRange: &pb.DeleteRangeResponse{}}})
		case *pb.RequestOp_RequestRange:
			found, _ := s.rangeLocked(o.RequestRange)
			answer.Responses = append(answer.Responses, &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: found}})
		}
	}
	if !wrote {
		s.rev--
	}
	s.publishLocked()
	answer.Header = responseHeader(s.headerLocked())
	return answer
}

func (s *stub) publishLocked() {
	var fresh []mvcc.Event
	for _, c := range s.changes {
		if c.Main == s.rev {
			fresh = append(fresh, c)
		}
	}
	s.hub.Publish(fresh, s.rev)
}

// History, PrevKV and Revision make the stub a watch.History.
func (s *stub) History(from, to int64, rng anchormesh.KeyRange, _ int) ([]mvcc.Event, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from < s.compacted {
		return nil, 0, mvcc.ErrCompacted
	}
	var out []mvcc.Event
	for _, c := range s.changes {
		if c.Main >= from && c.Main <= to && rng.Contains(c.KV.Key) {
			out = append(out, c)
		}
	}
	return out, to + 1, nil
}

func (s *stub) PrevKV(key []byte, mod int64) (mvcc.KV, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kv := s.atLocked(string(key), mod-1)
	if kv == nil {
		return mvcc.KV{}, false
	}
	raw, _ := proto.Marshal(kv)
	return mvcc.KV{Key: kv.Key, Mod: kv.ModRevision, Raw: raw}, true
}

func (s *stub) Revision() (current, compacted int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rev, s.compacted
}

func (s *stub) Open(context.Context, anchormesh.KeyRange) (WatchStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.elsewhere != nil {
		return nil, ErrNotAnchor
	}
	return s.hub.NewStream(), nil
}

func (s *stub) Forward(context.Context, anchormesh.KeyRange) (grpc.ClientConnInterface, error) {
	return s.elsewhere, nil
}

func (s *stub) KeepAlive(ctx context.Context, ids []int64) (codec.Header, []int64, error) {
	h := s.Header()
	if s.gate != nil {
		select {
		case <-s.gate:
		case <-ctx.Done():
			return h, nil, ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return h, nil, s.fail
	}
	s.batches = append(s.batches, ids)
	ttls := make([]int64, len(ids))
	for i, id := range ids {
		ttls[i] = s.leases[id]
	}
	return h, ttls, nil
}

func (s *stub) Members(context.Context, bool) ([]*pb.Member, error) {
	return []*pb.Member{{ID: 8, Name: "stub", ClientURLs: []string{"http://stub"}}}, s.fail
}

func (s *stub) Status(context.Context) (*pb.StatusResponse, error) {
	return &pb.StatusResponse{DbSize: 4096, RaftIndex: 5, Errors: []string{"a reason of its own"}}, s.fail
}

func (s *stub) HashKV(ctx context.Context, rev int64) (*pb.HashKVResponse, error) {
	if s.elsewhere != nil {
		ctx, ok := Relay(ctx)
		if !ok {
			return nil, ErrNotAnchor
		}
		return pb.NewMaintenanceClient(s.elsewhere).HashKV(ctx, &pb.HashKVRequest{Revision: rev})
	}
	return &pb.HashKVResponse{Header: &pb.ResponseHeader{Revision: max(rev, 1), RaftTerm: 23}, Hash: 42}, s.fail
}

func (s *stub) Defragment(context.Context) error                  { return s.fail }
func (s *stub) MoveLeader(_ context.Context, member uint64) error { return s.fail }

// serve starts a server over an in-memory listener.
func serve(t testing.TB, cfg Config, b Backends) (*Server, *grpc.ClientConn, func(context.Context, string) (net.Conn, error)) {
	t.Helper()
	srv, err := New(cfg, b)
	if err != nil {
		t.Fatal(err)
	}
	l := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
	conn, err := grpc.NewClient("passthrough:stub", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		srv.Stop(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return srv, conn, dial
}

// client is etcd's own client on a fresh stub.
func client(t testing.TB, s *stub) *clientv3.Client {
	t.Helper()
	_, _, dial := serve(t, DefaultConfig(), s.backends())
	c, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{"stub:1"},
		DialOptions: []grpc.DialOption{grpc.WithContextDialer(dial)},
		Logger:      zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// within is a context for one test step.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
