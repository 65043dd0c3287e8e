package etcdapi

import (
	"context"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// An RPC of a later etcd API must be decided on: served, or refused with a
// sentence of its own.
func TestEveryRPCIsDecided(t *testing.T) {
	srv, err := New(DefaultConfig(), newStub(t).backends())
	if err != nil {
		t.Fatal(err)
	}
	decided := map[string][]string{
		"etcdserverpb.KV":          {"Compact", "DeleteRange", "Put", "Range", "RangeStream", "Txn"},
		"etcdserverpb.Watch":       {"Watch"},
		"etcdserverpb.Lease":       {"LeaseGrant", "LeaseKeepAlive", "LeaseLeases", "LeaseRevoke", "LeaseTimeToLive"},
		"etcdserverpb.Cluster":     {"MemberList", "MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"},
		"etcdserverpb.Maintenance": {"Alarm", "Defragment", "Downgrade", "Hash", "HashKV", "MoveLeader", "Snapshot", "Status"},
	}
	services := []service{srv.kvService(), srv.watchService(), srv.leaseService(), srv.clusterService(), srv.maintenanceService()}
	for i, desc := range []grpc.ServiceDesc{pb.KV_ServiceDesc, pb.Watch_ServiceDesc, pb.Lease_ServiceDesc, pb.Cluster_ServiceDesc, pb.Maintenance_ServiceDesc} {
		var names []string
		for _, m := range desc.Methods {
			names = append(names, m.MethodName)
		}
		for _, s := range desc.Streams {
			names = append(names, s.StreamName)
		}
		want := decided[desc.ServiceName]
		slices.Sort(names)
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("%s has %v, decided were %v", desc.ServiceName, names, want)
		}
		// A handler under a name that the service does not have would be dead.
		for name := range services[i].unary {
			if !slices.Contains(services[i].methods, name) {
				t.Errorf("%s has no method %s", desc.ServiceName, name)
			}
		}
		for name := range services[i].stream {
			if !slices.ContainsFunc(services[i].streams, func(d grpc.StreamDesc) bool { return d.StreamName == name }) {
				t.Errorf("%s has no stream %s", desc.ServiceName, name)
			}
		}
	}
}

func TestVersionIsThatOfTheAPI(t *testing.T) {
	if Version != version.Version {
		t.Errorf("reported version %s, compiled against %s: look through etcd's changes, then change it", Version, version.Version)
	}
	if want := version.Cluster(Version) + ".0"; StorageVersion != want {
		t.Errorf("reported storage version %s, a cluster of %s agrees on %s", StorageVersion, Version, want)
	}
}

// Whatever is not there answers with a sentence, not with "unknown method".
func TestRefusalsAreSentences(t *testing.T) {
	_, conn, _ := serve(t, DefaultConfig(), newStub(t).backends())
	for _, method := range []string{
		"/etcdserverpb.Cluster/MemberAdd", "/etcdserverpb.Cluster/MemberRemove", "/etcdserverpb.Cluster/MemberPromote",
		"/etcdserverpb.Cluster/MemberUpdate", "/etcdserverpb.Maintenance/Downgrade", "/etcdserverpb.Auth/UserAdd",
		"/etcdserverpb.Auth/RoleGrantPermission", "/v3electionpb.Election/Campaign", "/v3electionpb.Election/Leader",
		"/v3lockpb.Lock/Lock", "/v3lockpb.Lock/Unlock",
	} {
		err := conn.Invoke(within(t), method, &pb.RangeRequest{}, &pb.RangeResponse{})
		st := status.Convert(err)
		if st.Code() != codes.Unimplemented || !strings.HasPrefix(st.Message(), "AnchorMesh ") || !strings.HasSuffix(st.Message(), ".") {
			t.Errorf("%s: %v", method, err)
		}
	}
	stream, err := conn.NewStream(within(t), &grpc.StreamDesc{ServerStreams: true}, "/v3electionpb.Election/Observe")
	if err == nil {
		err = stream.RecvMsg(&pb.RangeResponse{})
	}
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("observe: %v", err)
	}
}

func TestHealthAndReflection(t *testing.T) {
	srv, conn, _ := serve(t, DefaultConfig(), newStub(t).backends())
	ctx := within(t)
	health := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		if r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.Status != want {
			t.Errorf("health %v, %v, want %v", r, err, want)
		}
	}
	health(healthpb.HealthCheckResponse_NOT_SERVING)
	srv.SetServing(true)
	health(healthpb.HealthCheckResponse_SERVING)
	stream, err := reflectpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream.Send(&reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "etcdserverpb.KV"}})
	r, err := stream.Recv()
	if err != nil || len(r.GetFileDescriptorResponse().GetFileDescriptorProto()) == 0 {
		t.Errorf("reflection of KV: %v, %v", r, err)
	}
	stream.CloseSend()
}

func TestMetadataChecks(t *testing.T) {
	s := newStub(t)
	_, conn, _ := serve(t, DefaultConfig(), s.backends())
	s.setLed(false, true)
	needs := metadata.AppendToOutgoingContext(within(t), "hasleader", "true")
	kv, lease := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	if _, err := kv.Put(needs, &pb.PutRequest{Key: []byte("a")}); status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("put that requires a leader: %v", err)
	}
	if _, err := kv.Put(within(t), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Errorf("put that does not: %v", err)
	}
	if _, err := lease.LeaseGrant(needs, &pb.LeaseGrantRequest{TTL: 5}); err != nil {
		t.Errorf("grant while the leases have a leader: %v", err)
	}
	s.setLed(true, false)
	if _, err := lease.LeaseGrant(needs, &pb.LeaseGrantRequest{TTL: 5}); status.Convert(err).Message() != "etcdserver: no leader" {
		t.Errorf("grant while the leases have none: %v", err)
	}
	odd := metadata.NewIncomingContext(context.Background(), metadata.Pairs("client-api-version", "\xff"))
	if err := (&Server{}).admit(odd, nil); status.Convert(err).Message() != "etcdserver: invalid client api version" {
		t.Errorf("a version that is no text: %v", err)
	}
}

func TestConfigRefusals(t *testing.T) {
	for name, spoil := range map[string]func(*Config){
		"Logger":   func(c *Config) { c.Logger = nil },
		"request":  func(c *Config) { c.MaxRequestBytes = 0 },
		"txn":      func(c *Config) { c.MaxTxnOps = -1 },
		"election": func(c *Config) { c.ElectionTimeout = 0 },
		"timeout":  func(c *Config) { c.RequestTimeout = -1 },
		"keep":     func(c *Config) { c.KeepAliveTimeout = -1 },
	} {
		cfg := DefaultConfig()
		spoil(&cfg)
		if _, err := New(cfg, newStub(t).backends()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(DefaultConfig(), Backends{}); err == nil {
		t.Error("backends may not be missing")
	}
}
