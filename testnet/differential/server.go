package differential

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Server is one of the two that are compared, asked through a single endpoint.
// It is not safe for concurrent use.
type Server struct {
	Name string
	// Etcd marks a real etcd, whose known flaws are not held against the other
	// (a prev_kv that nobody asked for).
	Etcd bool
	// Line marks a target that counts on a line of its own, as a mesh does whose keyspace
	// was split: what it says is translated. Only the second of a pair may have one.
	Line bool
	// Between is called before each call; nil: nothing happens.
	Between func(ctx context.Context) error

	client  *clientv3.Client
	kv      pb.KVClient
	lease   pb.LeaseClient
	watch   pb.WatchClient
	maint   pb.MaintenanceClient
	base    int64 // revision at which the current sequence began
	line    *line // nil: revisions are the reference's
	seen    int64 // largest header revision while resetting, of the sentinel's put while settling
	streams []*watchStream

	tamper func(Op, *answer) // plants a difference; tests only
}

// Dial connects to one endpoint. The requests are made by hand, as clientv3
// itself would refuse some of them, but travel over its connection.
func Dial(name, endpoint string) (*Server, error) {
	client, err := clientv3.New(clientv3.Config{
		Endpoints:          []string{endpoint},
		Logger:             zap.NewNop(),
		MaxCallSendMsgSize: math.MaxInt32,
	})
	if err != nil {
		return nil, err
	}
	conn := client.ActiveConnection()
	return &Server{
		Name:   name,
		client: client,
		kv:     pb.NewKVClient(conn),
		lease:  pb.NewLeaseClient(conn),
		watch:  pb.NewWatchClient(conn),
		maint:  pb.NewMaintenanceClient(conn),
	}, nil
}

// Close ends the connection.
func (s *Server) Close() { s.client.Close() }

// answer is what came back from one call: a message or an error.
type answer struct {
	message proto.Message
	err     error
}

// String is the form in which answers are compared and shown.
func (a answer) String() string {
	if a.err != nil {
		st := status.Convert(a.err)
		return fmt.Sprintf("error %s: %s", st.Code(), st.Message())
	}
	return string(a.message.ProtoReflect().Descriptor().Name()) + "{" + oneLine(a.message) + "}"
}

// absolute is a relative revision on this server.
func (s *Server) absolute(relative int64) int64 {
	if s.line != nil {
		return s.line.toTarget(s.line.reference[0] + relative - origin)
	}
	return max(1, s.base+relative-origin)
}

// do sends one call and waits for its answer.
func (s *Server) do(ctx context.Context, op Op) answer {
	var a answer
	switch r := bind(op.Request, s.absolute).(type) {
	case *pb.RangeRequest:
		if op.RangeStream {
			a = s.rangeStream(ctx, r)
		} else {
			a = answered(s.kv.Range(ctx, r))
		}
	case *pb.PutRequest:
		a = answered(s.kv.Put(ctx, r))
	case *pb.DeleteRangeRequest:
		a = answered(s.kv.DeleteRange(ctx, r))
	case *pb.TxnRequest:
		a = answered(s.kv.Txn(ctx, r))
	case *pb.CompactionRequest:
		a = answered(s.kv.Compact(ctx, r))
	case *pb.LeaseGrantRequest:
		a = answered(s.lease.LeaseGrant(ctx, r))
	case *pb.LeaseRevokeRequest:
		a = answered(s.lease.LeaseRevoke(ctx, r))
	case *pb.LeaseKeepAliveRequest:
		a = s.keepAlive(ctx, r)
	case *pb.LeaseTimeToLiveRequest:
		a = answered(s.lease.LeaseTimeToLive(ctx, r))
	case *pb.LeaseLeasesRequest:
		a = answered(s.lease.LeaseLeases(ctx, r))
	case *pb.HashKVRequest:
		a = answered(s.maint.HashKV(ctx, r))
	case *pb.WatchRequest:
		a = s.streams[op.Stream].control(ctx, r)
	default:
		panic(fmt.Sprintf("differential: no call for %T", r))
	}
	s.normalize(&a)
	if s.tamper != nil {
		s.tamper(op, &a)
	}
	return a
}

func answered[M proto.Message](m M, err error) answer { return answer{m, err} }

// rangeStream merges the chunks, as the RPC's contract allows.
func (s *Server) rangeStream(ctx context.Context, r *pb.RangeRequest) answer {
	stream, err := s.kv.RangeStream(ctx, r)
	if err != nil {
		return answer{err: err}
	}
	merged := &pb.RangeResponse{}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return answer{message: merged}
		}
		if err != nil {
			return answer{err: err}
		}
		proto.Merge(merged, chunk.RangeResponse)
	}
}

func (s *Server) keepAlive(ctx context.Context, r *pb.LeaseKeepAliveRequest) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return answer{err: err}
	}
	if err := stream.Send(r); err != nil {
		return answer{err: err}
	}
	return answered(stream.Recv())
}

// ttlTolerance in seconds: calls of one sequence reach the two servers at
// slightly different times.
const ttlTolerance = 60

// normalize removes what may differ.
func (s *Server) normalize(a *answer) {
	if a.err != nil {
		return
	}
	if header := a.header(); header != nil {
		header.ClusterId, header.MemberId, header.RaftTerm = 0, 0, 0
	}
	if r, ok := a.message.(*pb.LeaseTimeToLiveResponse); ok {
		if passed := r.GrantedTTL - r.TTL; r.TTL > 0 && passed < ttlTolerance {
			r.TTL = r.GrantedTTL
		}
		slices.SortFunc(r.Keys, bytes.Compare)
	}
	if r, ok := a.message.(*pb.LeaseLeasesResponse); ok {
		slices.SortFunc(r.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	}
}
