package differential

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

// A mesh that is split, merged, led from elsewhere and whose other nodes are killed
// between the calls answers like one etcd, but for the numbers that its revisions have:
// ranges, transactions, deletions, leases, compactions and watches over several segments.
// Its logs are cut every few entries, so that nodes that come back are sent snapshots.
func TestASplitMeshAnswersLikeEtcd(t *testing.T) {
	if kind, err := target.Kind(); err != nil || kind != cluster.Mesh {
		t.Skip("only a mesh splits")
	}
	c := target.StartKind(t, cluster.Mesh, 3, "--snapshot-count", "50")
	subject := dial(t, "split mesh", c.Nodes[2].Endpoint())
	subject.Line = true
	s := &surgeon{t: t, cluster: c, mesh: meshpb.NewMeshClient(subject.client.ActiveConnection()), rng: rand.New(rand.NewPCG(*firstSeed, 77))}
	for _, n := range c.Nodes[:2] {
		s.others = append(s.others, meshpb.NewMeshClient(dial(t, "another node", n.Endpoint()).client.ActiveConnection()))
	}
	s.split(t.Context(), []byte("a/1"))
	s.split(t.Context(), []byte("b"))
	subject.Between = s.between
	compareSeeds(t, startReference(t), subject)
	t.Logf("%d splits, %d merges, %d transfers, %d kills", s.splits, s.merges, s.transfers, s.kills)
	if s.splits < 3 || s.merges == 0 || s.transfers == 0 {
		t.Error("that is too little to mean anything")
	}
}

// surgeon changes the structure of a mesh between calls.
type surgeon struct {
	t       *testing.T
	cluster *cluster.Cluster
	mesh    meshpb.MeshClient   // the asked node
	others  []meshpb.MeshClient // those that may be killed
	rng     *rand.Rand
	down    *cluster.Node
	again   func(context.Context) error // what was refused for now
	tries   int                         // of that

	splits, merges, transfers, kills int
}

// triesMax is how often what is refused for now is tried again, before the next calls.
const triesMax = 20

// between does something before one call in ten. What is refused, because the structure or
// a dead node does not allow it, has changed nothing.
func (s *surgeon) between(ctx context.Context) error {
	if s.again != nil && s.down == nil {
		s.keep(ctx, s.again)
		return nil
	}
	switch s.rng.IntN(60) {
	case 0, 1:
		key := []byte(keys[s.rng.IntN(len(keys))])
		s.keep(ctx, func(ctx context.Context) error { return s.split(ctx, key) })
	case 2, 3:
		s.keep(ctx, s.merge)
	case 4, 5:
		s.keep(ctx, s.transfer)
	case 6:
		return s.blow(ctx)
	}
	return nil
}

// keep does something, and has it done again before the next call if a voter is behind,
// or nobody leads, and the like.
func (s *surgeon) keep(ctx context.Context, do func(context.Context) error) {
	s.tries++
	switch status.Code(do(ctx)) {
	case codes.FailedPrecondition, codes.Unavailable:
		if s.tries < triesMax {
			s.again = do
			return
		}
	}
	s.again, s.tries = nil, 0
}

func (s *surgeon) split(ctx context.Context, at []byte) error {
	_, err := s.mesh.Split(ctx, &meshpb.SplitRequest{Boundary: at, Operator: "test"})
	s.count(&s.splits, "split", err)
	return err
}

func (s *surgeon) merge(ctx context.Context) error {
	list := s.segments(ctx)
	if len(list) < 4 { // two of them are to stay
		return nil
	}
	i := s.rng.IntN(len(list) - 1)
	_, err := s.mesh.Merge(ctx, &meshpb.MergeRequest{Segment: list[i], Right: list[i+1], Operator: "test"})
	s.count(&s.merges, "merge", err)
	return err
}

func (s *surgeon) transfer(ctx context.Context) error {
	nodes, err := s.mesh.Nodes(ctx, &meshpb.NodesRequest{})
	if err != nil {
		s.t.Logf("nodes: %v", err)
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	to := nodes.Nodes[s.rng.IntN(len(nodes.Nodes))]
	if s.down != nil && to.Name == s.down.Name {
		return nil
	}
	list := s.segments(ctx)
	_, err = s.mesh.Transfer(ctx, &meshpb.TransferRequest{Segment: list[s.rng.IntN(len(list))], To: to.Id})
	s.count(&s.transfers, "transfer", err)
	return err
}

// segments returns those that the asked node knows, in the order of their ranges; there is
// always one.
func (s *surgeon) segments(ctx context.Context) (list []uint64) {
	r, err := s.mesh.Segments(ctx, &meshpb.SegmentsRequest{})
	if err != nil || len(r.Segments) == 0 {
		s.t.Fatalf("segments: %v", err)
	}
	for _, info := range r.Segments {
		list = append(list, info.Descriptor_.Segment)
	}
	return list
}

func (s *surgeon) count(n *int, what string, err error) {
	switch status.Code(err) {
	case codes.OK:
		*n++
	case codes.FailedPrecondition, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.Unavailable, codes.Aborted, codes.DeadlineExceeded:
		s.t.Logf("%s: %v", what, err)
	default:
		s.t.Errorf("%s: %v", what, err)
	}
}

// blow kills a node that is not the one that is asked, or starts it again. The other one
// must hold all segments: of those that were born while it was away it has none before
// their leaders told it, and with another node gone they would be two of three.
func (s *surgeon) blow(ctx context.Context) error {
	if s.down != nil {
		n := s.down
		s.down = nil
		return n.Start()
	}
	i := s.rng.IntN(len(s.others))
	if !s.holdsAll(ctx, s.others[1-i]) {
		return nil
	}
	s.down = s.cluster.Nodes[i]
	s.down.Kill()
	s.kills++
	return nil
}

// holdsAll waits a while until a node has a replica of every segment.
func (s *surgeon) holdsAll(ctx context.Context, node meshpb.MeshClient) bool {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	want := len(s.segments(ctx))
	for ctx.Err() == nil {
		if st, err := node.Status(ctx, &meshpb.StatusRequest{}); err == nil && int(st.GetSegments()) >= want {
			return true
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	s.t.Log("a node does not hold all segments: nobody is killed")
	return false
}
