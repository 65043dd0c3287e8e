package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// What gRPC tools ask of any server, and calls that no server knows: the same
// answers as etcd's, but that every service can be listed here.
func TestSurfaceAsEtcd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answers := map[cluster.Kind][]string{}
	for kind, c := range beside(t, 1) {
		conn := dialNode(t, c, c.Nodes[0]).ActiveConnection()
		say := func(what string, answer any, err error) {
			if err != nil {
				answer = fmt.Sprintf("%s %q", status.Code(err), status.Convert(err).Message())
			}
			answers[kind] = append(answers[kind], fmt.Sprintf("%s: %v", what, answer))
		}
		for _, service := range []string{"", "etcdserverpb.KV", "nonsense"} {
			r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
			say("health of "+service, r.GetStatus(), err)
		}
		for _, method := range []string{"/etcdserverpb.KV/Nonsense", "/nonsense.Service/Method"} {
			say(method, "", conn.Invoke(ctx, method, &pb.RangeRequest{}, &pb.RangeResponse{}))
		}
		auth := pb.NewAuthClient(conn)
		st, err := auth.AuthStatus(ctx, &pb.AuthStatusRequest{})
		say("auth status", fmt.Sprint(st.GetEnabled(), st.GetAuthRevision()), err)
		_, err = auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: "root", Password: "x"})
		say("authenticate", "", err)
		members, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
		say("members", fmt.Sprint(len(members.GetMembers()), members.GetHeader().GetRevision()), err)
		if kind == cluster.Mesh {
			checkServices(ctx, t, conn)
		}
	}
	if !slices.Equal(answers[cluster.Mesh], answers[cluster.Etcd]) {
		t.Errorf("a mesh answers\n%s\netcd answers\n%s", strings.Join(answers[cluster.Mesh], "\n"), strings.Join(answers[cluster.Etcd], "\n"))
	}
}

// checkServices lists the services by reflection, as grpcurl does.
func checkServices(ctx context.Context, t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	stream, err := reflectpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	must(t, err)
	must(t, stream.Send(&reflectpb.ServerReflectionRequest{MessageRequest: &reflectpb.ServerReflectionRequest_ListServices{}}))
	r, err := stream.Recv()
	must(t, err)
	var names []string
	for _, s := range r.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	for _, want := range []string{
		"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster", "etcdserverpb.Maintenance", "etcdserverpb.Auth",
		"grpc.health.v1.Health", "anchormesh.v1.Mesh",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not listed: %v", want, names)
		}
	}
	must(t, stream.CloseSend())
}
