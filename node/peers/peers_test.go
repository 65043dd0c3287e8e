package peers_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/node/peers"
)

// nodes dials in memory; those without a listener cannot be reached.
type nodes struct {
	at    map[anchormesh.NodeID]*bufconn.Listener
	dials atomic.Int64
}

var errUnknown = errors.New("no way to that node")

// DialClient implements peers.Dialer.
func (n *nodes) DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error) {
	n.dials.Add(1)
	if l := n.at[to]; l != nil {
		return l.DialContext(ctx)
	}
	return nil, errUnknown
}

// serving runs one server per node whose health answers for the node's name only.
func serving(t *testing.T, ids ...anchormesh.NodeID) *nodes {
	n := &nodes{at: map[anchormesh.NodeID]*bufconn.Listener{}}
	for _, id := range ids {
		l, h, s := bufconn.Listen(1<<16), health.NewServer(), grpc.NewServer()
		h.SetServingStatus(string(id), healthpb.HealthCheckResponse_SERVING)
		healthpb.RegisterHealthServer(s, h)
		go s.Serve(l)
		t.Cleanup(s.Stop)
		n.at[id] = l
	}
	return n
}

func ask(t *testing.T, p *peers.Peers, at anchormesh.NodeID) error {
	t.Helper()
	conn, err := p.Conn(at)
	if err != nil {
		return err
	}
	_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{Service: string(at)})
	return err
}

// Each node has one connection, made at its first use, that leads to it.
func TestOneConnectionPerNode(t *testing.T) {
	n := serving(t, "a", "b")
	p := peers.New(n)
	defer p.Close()
	if _, err := p.Conn("a"); err != nil || n.dials.Load() != 0 {
		t.Errorf("%d dials before the first use, %v", n.dials.Load(), err)
	}
	for range 3 {
		for _, id := range []anchormesh.NodeID{"a", "b"} {
			if err := ask(t, p, id); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
	if d := n.dials.Load(); d != 2 {
		t.Errorf("%d dials for two nodes", d)
	}
}

// Who cannot be reached is an error of the call that says why, and does not harm
// the others.
func TestUnreachable(t *testing.T) {
	p := peers.New(serving(t, "a"))
	defer p.Close()
	err := ask(t, p, "nowhere")
	if st := status.Convert(err); st.Code() != codes.Unavailable || !strings.Contains(st.Message(), errUnknown.Error()) {
		t.Errorf("a node that cannot be dialled: %v", err)
	}
	if err := ask(t, p, "a"); err != nil {
		t.Error(err)
	}
}

func TestClose(t *testing.T) {
	p := peers.New(serving(t, "a"))
	conn, err := p.Conn("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Conn("a"); !errors.Is(err, peers.ErrClosed) {
		t.Errorf("a connection after the end: %v", err)
	}
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("a call on a connection that was closed: %v", err)
	}
}
