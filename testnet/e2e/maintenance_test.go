package e2e

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

// What a real etcd answers to an operator, and what a mesh answers. These tests
// start both, so that neither is remembered wrongly.

// beside starts a real etcd and a mesh of the same size.
func beside(t *testing.T, size int, args ...string) map[cluster.Kind]*cluster.Cluster {
	t.Helper()
	if kind, err := target.Kind(); err != nil || kind != cluster.Mesh {
		t.Skip("compares a mesh with etcd")
	}
	return map[cluster.Kind]*cluster.Cluster{
		cluster.Etcd: target.StartKind(t, cluster.Etcd, size, args...), cluster.Mesh: target.StartKind(t, cluster.Mesh, size, args...),
	}
}

func dialNode(t *testing.T, c *cluster.Cluster, n *cluster.Node) *clientv3.Client {
	t.Helper()
	client, err := c.Client(n)
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return client
}

// statusOf writes something and asks for the status.
func statusOf(ctx context.Context, t *testing.T, c *cluster.Cluster, alarmed bool) *pb.StatusResponse {
	t.Helper()
	client := dialNode(t, c, c.Nodes[0])
	for range 3 {
		_, err := client.Put(ctx, "status", "x")
		must(t, err)
	}
	maintenance := pb.NewMaintenanceClient(client.ActiveConnection())
	st, err := maintenance.Status(ctx, &pb.StatusRequest{})
	must(t, err)
	if alarmed {
		_, err = maintenance.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: st.Header.MemberId, Alarm: pb.AlarmType_NOSPACE})
		must(t, err)
	}
	// etcd agrees on the version of its storage some seconds after its start.
	for begin := time.Now(); ; {
		st, err = maintenance.Status(ctx, &pb.StatusRequest{})
		must(t, err)
		if st.StorageVersion != "" || time.Since(begin) > 30*time.Second {
			return st
		}
		<-time.After(50 * time.Millisecond)
	}
}

// filled lists the fields that hold something.
func filled(st *pb.StatusResponse) (names []string) {
	st.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		names = append(names, string(f.Name()))
		return true
	})
	slices.Sort(names)
	return names
}

// constant is what of a status must be the same text on both.
func constant(st *pb.StatusResponse) string {
	var errs []string
	for _, e := range st.Errors {
		e = strings.Join(strings.Fields(e), " ") // protobuf varies its blanks
		errs = append(errs, strings.ReplaceAll(e, fmt.Sprint(st.Header.MemberId), "SELF"))
	}
	return fmt.Sprintf("filled %v\nversion %s, storage %s, quota %d, downgrade %v to %q, learner %v, revision %d, errors %q",
		filled(st), st.Version, st.StorageVersion, st.DbSizeQuota, st.DowngradeInfo.GetEnabled(), st.DowngradeInfo.GetTargetVersion(),
		st.IsLearner, st.Header.Revision, errs)
}

// A status has the same fields, field by field, and those that have no reason to
// differ are equal.
func TestStatusAsEtcd(t *testing.T) {
	for name, args := range map[string][]string{
		"defaults": nil, "no quota": {"--quota-backend-bytes=-1"}, "quota": {"--quota-backend-bytes=1000000000"}, "alarm": nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			texts := map[cluster.Kind]string{}
			for kind, c := range beside(t, 1, args...) {
				st := statusOf(ctx, t, c, name == "alarm")
				texts[kind] = constant(st)
				if st.Leader != st.Header.MemberId || st.RaftTerm == 0 || st.RaftTerm != st.Header.RaftTerm ||
					st.RaftAppliedIndex < 4 || st.RaftIndex < st.RaftAppliedIndex || st.DbSizeInUse <= 0 || st.DbSize < st.DbSizeInUse {
					t.Errorf("%s: %v", kind, st)
				}
			}
			if texts[cluster.Mesh] != texts[cluster.Etcd] {
				t.Errorf("a mesh says\n%s\netcd says\n%s", texts[cluster.Mesh], texts[cluster.Etcd])
			}
		})
	}
}

// etcdctl move-leader, what it refuses and how, on both.
func TestMoveLeader(t *testing.T) {
	t.Parallel()
	transcripts := map[cluster.Kind]string{}
	for kind, c := range beside(t, 3) {
		transcripts[kind] = strings.Join(moveLeader(t, c), "\n")
	}
	t.Logf("etcd:\n%s", transcripts[cluster.Etcd])
	if transcripts[cluster.Mesh] != transcripts[cluster.Etcd] {
		t.Errorf("a mesh answers\n%s\netcd answers\n%s", transcripts[cluster.Mesh], transcripts[cluster.Etcd])
	}
}

// roster is a cluster's members by their part.
type roster struct {
	leader, first, second *cluster.Node // the leader and the others
	id                    map[*cluster.Node]uint64
}

// known waits until all nodes agree on a leader.
func known(ctx context.Context, t *testing.T, c *cluster.Cluster) (r roster) {
	t.Helper()
	for {
		r = roster{id: map[*cluster.Node]uint64{}}
		said := map[uint64]int{}
		for _, n := range c.Nodes {
			st, err := dialNode(t, c, n).Status(ctx, n.Endpoint())
			must(t, err)
			r.id[n] = st.Header.MemberId
			said[st.Leader]++
		}
		for _, n := range c.Nodes {
			switch {
			case said[r.id[n]] == len(c.Nodes):
				r.leader = n
			case r.first == nil:
				r.first = n
			default:
				r.second = n
			}
		}
		if r.leader != nil {
			return r
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no agreement on a leader: %v", said)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func moveLeader(t *testing.T, c *cluster.Cluster) (lines []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	paths, err := binaries.Etcd(ctx)
	must(t, err)
	r := known(ctx, t, c)
	names := strings.NewReplacer(
		fmt.Sprintf("%x", r.id[r.leader]), "LEADER", fmt.Sprintf("%x", r.id[r.first]), "FIRST", fmt.Sprintf("%x", r.id[r.second]), "SECOND",
		r.leader.Endpoint(), "at-LEADER", r.first.Endpoint(), "at-FIRST", r.second.Endpoint(), "at-SECOND",
	)
	say := func(what string, out []byte) {
		for line := range strings.Lines(string(out)) {
			if !strings.HasPrefix(line, "{") { // the client's own log
				what += " | " + strings.TrimSpace(line)
			}
		}
		lines = append(lines, names.Replace(what))
	}
	ctl := func(what string, target uint64, at ...*cluster.Node) {
		var endpoints []string
		for _, n := range at {
			endpoints = append(endpoints, n.Endpoint())
		}
		out, err := exec.CommandContext(ctx, paths.Etcdctl, "--endpoints", strings.Join(endpoints, ","), "move-leader", fmt.Sprintf("%x", target)).CombinedOutput()
		say(fmt.Sprintf("%s: %v", what, err), out)
	}
	direct := func(what string, at *cluster.Node, target uint64) {
		begin := time.Now()
		_, err := pb.NewMaintenanceClient(dialNode(t, c, at).ActiveConnection()).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: target})
		say(fmt.Sprintf("%s: %s %q, at once %v", what, status.Code(err), status.Convert(err).Message(), time.Since(begin) < 4*time.Second), nil)
	}
	ctl("without the leader's endpoint", r.id[r.first], r.first, r.second)
	ctl("an unknown member", 0xabc, r.leader, r.first, r.second)
	direct("not the leader", r.first, r.id[r.second])
	direct("not the leader, unknown member", r.first, 0xabc)
	direct("no member", r.leader, 0)
	direct("to whom leads already", r.leader, r.id[r.leader])
	ctl("to another", r.id[r.second], r.first, r.leader, r.second)
	if now := known(ctx, t, c); now.leader != r.second {
		t.Errorf("%s: %s leads, want %s", c.Kind, now.leader.Name, r.second.Name)
	}
	ctl("back", r.id[r.leader], r.leader, r.first, r.second)
	if _, err := dialNode(t, c, r.first).Put(ctx, "after", "moves"); err != nil {
		t.Errorf("%s: a put after the moves: %v", c.Kind, err)
	}
	return lines
}

// A node that holds no anchor, or a learner, cannot be given the leadership.
func TestMoveLeaderToANodeWithoutAnchor(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 4)
	s, err := l.nodes[0].segment()
	must(t, err)
	leader := l.leader()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, n := range l.nodes {
		if slices.Contains(s.voters(), n.id()) {
			continue
		}
		st, err := l.dial(n).Status(ctx, "http://"+n.client)
		must(t, err)
		if _, err := l.dial(leader).MoveLeader(ctx, st.Header.MemberId); status.Convert(err).Message() != "etcdserver: bad leader transferee" {
			t.Errorf("to a node without an anchor: %v", err)
		}
		if _, err := l.dial(n).MoveLeader(ctx, st.Header.MemberId); status.Convert(err).Message() != "etcdserver: not leader" {
			t.Errorf("at a node without an anchor: %v", err)
		}
	}
}
