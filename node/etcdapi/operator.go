package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

const (
	membersSentence  = "AnchorMesh has no members to add, change or remove by hand: a node joins by gossip with the mesh key, and anchor groups recruit and replace their anchors themselves."
	snapshotSentence = "AnchorMesh cannot stream a snapshot of a whole node yet."
	authSentence     = "AnchorMesh has no users and roles yet; authentication is not enabled."
)

func (s *Server) clusterService() service {
	return service{
		unary:   map[string]unaryFunc{"MemberList": typed(s, s.memberList)},
		missing: map[string]string{"": membersSentence},
	}.from(&pb.Cluster_ServiceDesc)
}

func (s *Server) memberList(ctx context.Context, r *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	members, err := s.cluster.Members(ctx, r.Linearizable)
	if err != nil {
		return nil, err
	}
	h := s.node.Header()
	h.Revision = 0 // etcd leaves it out here
	return &pb.MemberListResponse{Header: responseHeader(h), Members: members}, nil
}

func (s *Server) maintenanceService() service {
	return service{
		unary: map[string]unaryFunc{
			"Alarm":      s.raw(MethodAlarm),
			"Status":     typed(s, s.status),
			"Defragment": s.defragment(),
			"Hash":       typed(s, s.hash),
			"HashKV":     typed(s, s.hashKV),
			"MoveLeader": typed(s, s.moveLeader),
		},
		missing: map[string]string{
			"Snapshot":  snapshotSentence,
			"Downgrade": "AnchorMesh is not downgraded through etcd's API.",
		},
	}.from(&pb.Maintenance_ServiceDesc)
}

func (s *Server) status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	r, err := s.maintenance.Status(ctx)
	if err != nil {
		return nil, err
	}
	r.Header, r.Version, r.StorageVersion = s.headerOver(r.Header), Version, StorageVersion
	if r.Leader == 0 {
		r.Errors = append([]string{rpctypes.ErrNoLeader.Error()}, r.Errors...)
	}
	if r.DowngradeInfo == nil {
		r.DowngradeInfo = &pb.DowngradeInfo{}
	}
	return r, nil
}

func (s *Server) hashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	answer, err := s.maintenance.HashKV(ctx, r.Revision)
	if err != nil {
		return nil, err
	}
	answer.Header = s.headerOver(answer.Header)
	return answer, nil
}

// hash is HashKV at the newest revision: etcd hashes its whole file here, which
// is "for testing" and different on every member.
func (s *Server) hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	answer, err := s.maintenance.HashKV(ctx, 0)
	if err != nil {
		return nil, err
	}
	return &pb.HashResponse{Header: s.headerOver(answer.Header), Hash: answer.Hash}, nil
}

// headerOver is this node's header with revision and term from where the answer
// was made, which may be another node.
func (s *Server) headerOver(made *pb.ResponseHeader) *pb.ResponseHeader {
	h := s.node.Header()
	if made.GetRevision() != 0 {
		h.Revision = made.GetRevision()
	}
	if made.GetRaftTerm() != 0 {
		h.RaftTerm = made.GetRaftTerm()
	}
	return responseHeader(h)
}

// defragment has no time limit of its own: it takes as long as the file is large.
func (s *Server) defragment() unaryFunc {
	return func(ctx context.Context, dec func(any) error) (any, error) {
		if err := dec(new(pb.DefragmentRequest)); err != nil {
			return nil, err
		}
		if err := s.maintenance.Defragment(ctx); err != nil {
			return nil, toWire(err)
		}
		return new(pb.DefragmentResponse), nil
	}
}

func (s *Server) moveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.maintenance.MoveLeader(ctx, r.TargetID); err != nil {
		return nil, err
	}
	return new(pb.MoveLeaderResponse), nil
}

// authService tells the truth about authentication, that it is off; clientv3
// with a user name goes on without one then, as with an etcd that has it off.
func (s *Server) authService() service {
	return service{
		unary: map[string]unaryFunc{
			"AuthStatus":   typed(s, s.authStatus),
			"Authenticate": typed(s, s.authenticate),
		},
		missing: map[string]string{"": authSentence},
	}.from(&pb.Auth_ServiceDesc)
}

func (s *Server) authStatus(context.Context, *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return &pb.AuthStatusResponse{Header: responseHeader(s.node.Header()), AuthRevision: 1}, nil // as an etcd that never had it on
}

func (s *Server) authenticate(context.Context, *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	return nil, rpctypes.ErrGRPCAuthNotEnabled
}

// electionService and lockService are etcd's server-side recipes. Their messages
// live in etcd's server module, which is not imported, so that they stand here
// by name.
func electionService() service {
	return service{
		name:    "v3electionpb.Election",
		methods: []string{"Campaign", "Proclaim", "Leader", "Resign"},
		streams: []grpc.StreamDesc{{StreamName: "Observe", ServerStreams: true}},
		missing: map[string]string{"": "AnchorMesh has no server-side elections; use clientv3/concurrency, which needs only keys and leases."},
	}
}

func lockService() service {
	return service{
		name:    "v3lockpb.Lock",
		methods: []string{"Lock", "Unlock"},
		missing: map[string]string{"": "AnchorMesh has no server-side locks; use clientv3/concurrency, which needs only keys and leases."},
	}
}
