package structure

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

const (
	// SegmentsMin and SegmentsMax bound how many segments there are.
	SegmentsMin, SegmentsMax = 3, 9
	askTimeout               = 5 * time.Second
	// mergeTimeout outlasts an attempt that waits for anchors to catch up.
	mergeTimeout = 20 * time.Second
	moveTimeout  = 20 * time.Second
	movePoll     = 250 * time.Millisecond
	// reasonsMax bounds the texts of refusals that are kept.
	reasonsMax = 40
)

// Config says what is done to which mesh.
type Config struct {
	Endpoints []string // client URLs, one per node
	Seed      uint64
	Every     time.Duration // between two changes; what one takes counts
	// Boundary draws a key at which a split makes sense now.
	Boundary func(*rand.Rand) string
	Beside   int                          // segments that are there for the sake of scopes, and do not count
	Note     func(what string, err error) // of each change; may be nil
}

// Count is how many changes of a kind ended how.
type Count struct {
	Done    int `json:"done"`
	Refused int `json:"refused"`
	Unknown int `json:"unknown"`
}

// Report is what came of it.
type Report struct {
	Changes map[string]Count `json:"changes"`
	Reasons map[string]int   `json:"reasons"` // of what was not done; bounded
}

// Done is how many changes were done, transfers of leadership aside.
func (r *Report) Done() int {
	return r.Changes["split"].Done + r.Changes["merge"].Done + r.Changes["move"].Done
}

// Surgeon changes a mesh.
type Surgeon struct {
	cfg     Config
	rng     *rand.Rand
	conns   []*grpc.ClientConn
	running sync.WaitGroup
	stop    context.CancelFunc
	report  Report
}

// Start begins to change the mesh; Stop ends it.
func Start(ctx context.Context, cfg Config) (*Surgeon, error) {
	s := &Surgeon{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x57c7)),
		report: Report{Changes: map[string]Count{}, Reasons: map[string]int{}},
	}
	for _, e := range cfg.Endpoints {
		conn, err := dial(e)
		if err != nil {
			s.close()
			return nil, err
		}
		s.conns = append(s.conns, conn)
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.running.Go(func() { s.run(ctx) })
	return s, nil
}

func dial(endpoint string) (*grpc.ClientConn, error) {
	for _, scheme := range []string{"http://", "https://"} {
		if len(endpoint) > len(scheme) && endpoint[:len(scheme)] == scheme {
			endpoint = endpoint[len(scheme):]
		}
	}
	return grpc.NewClient(endpoint, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func (s *Surgeon) close() {
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// Stop ends the changes and returns what came of them.
func (s *Surgeon) Stop() *Report {
	s.stop()
	s.running.Wait()
	s.close()
	return &s.report
}

func (s *Surgeon) run(ctx context.Context) {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.step(ctx)
		}
	}
}

// client is a connection to some node.
func (s *Surgeon) client() meshpb.MeshClient {
	return meshpb.NewMeshClient(s.conns[s.rng.IntN(len(s.conns))])
}

// segments asks some node for the segments, in key order.
func (s *Surgeon) segments(ctx context.Context, c meshpb.MeshClient) (out []*anchormesh.Descriptor, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err = meshpb.EachSegment(ctx, c, func(info *meshpb.SegmentInfo) error {
		d, err := meshpb.FromPB(info.GetDescriptor_())
		out = append(out, d)
		return err
	})
	return out, err
}

// step draws one change and makes it.
func (s *Surgeon) step(ctx context.Context) {
	c := s.client()
	all, err := s.segments(ctx, c)
	if err != nil || len(all) == 0 {
		return // the node is away
	}
	kind := s.rng.IntN(100)
	switch {
	case len(all) < SegmentsMin+s.cfg.Beside, len(all) < SegmentsMax+s.cfg.Beside && kind < 40:
		s.split(ctx, c)
	case kind < 75:
		s.merge(ctx, c, all)
	case kind < 90:
		s.move(ctx, c, all[s.rng.IntN(len(all))], all)
	default:
		s.transfer(ctx, c, all[s.rng.IntN(len(all))])
	}
}

// count files how a change ended. What is not the mesh's refusal may have happened.
func (s *Surgeon) count(ctx context.Context, kind, what string, err error) {
	if ctx.Err() != nil {
		return // cut short by the end of the run
	}
	n := s.report.Changes[kind]
	switch code := status.Code(err); {
	case err == nil:
		n.Done++
	case code == codes.FailedPrecondition, code == codes.NotFound, code == codes.Aborted, code == codes.InvalidArgument:
		n.Refused++
	default:
		n.Unknown++
	}
	s.report.Changes[kind] = n
	if err != nil {
		text := kind + ": " + status.Convert(err).Message()
		if _, known := s.report.Reasons[text]; !known && len(s.report.Reasons) >= reasonsMax {
			text = "others"
		}
		s.report.Reasons[text]++
	}
	if s.cfg.Note != nil {
		s.cfg.Note(kind+" "+what, err)
	}
}

func (s *Surgeon) split(ctx context.Context, c meshpb.MeshClient) {
	at := s.cfg.Boundary(s.rng)
	short, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := c.Split(short, &meshpb.SplitRequest{Boundary: []byte(at), Operator: "soak"})
	s.count(ctx, "split", fmt.Sprintf("at %q", at), err)
}

// merge joins a random pair of neighbours. If they are on different nodes, one move
// brings them closer instead.
func (s *Surgeon) merge(ctx context.Context, c meshpb.MeshClient, all []*anchormesh.Descriptor) {
	if len(all) < 2 {
		return
	}
	i := s.rng.IntN(len(all) - 1)
	left, right := all[i], all[i+1]
	if from, to := differ(right, left), differ(left, right); from != "" && to != "" {
		s.order(ctx, c, right, from, to)
		return
	}
	short, cancel := context.WithTimeout(ctx, mergeTimeout)
	defer cancel()
	_, err := c.Merge(short, &meshpb.MergeRequest{Segment: uint64(left.Segment), Right: uint64(right.Segment), Operator: "soak"})
	s.count(ctx, "merge", fmt.Sprintf("%s with %s", left.Segment, right.Segment), err)
}

// differ is a node that votes in a and holds nothing of b.
func differ(a, b *anchormesh.Descriptor) anchormesh.NodeID {
	for _, v := range a.Voters() {
		if _, has := b.AnchorOn(v.Node); !has {
			return v.Node
		}
	}
	return ""
}

// move moves an anchor of a segment to a node that holds another segment, and not it.
func (s *Surgeon) move(ctx context.Context, c meshpb.MeshClient, d *anchormesh.Descriptor, all []*anchormesh.Descriptor) {
	voters := d.Voters()
	if len(voters) == 0 {
		return
	}
	from := voters[s.rng.IntN(len(voters))].Node
	for _, i := range s.rng.Perm(len(all)) {
		if to := differ(all[i], d); to != "" {
			s.order(ctx, c, d, from, to)
			return
		}
	}
	nodes, err := s.nodes(ctx, c)
	if err != nil {
		return
	}
	for _, i := range s.rng.Perm(len(nodes)) {
		if _, has := d.AnchorOn(nodes[i]); !has {
			s.order(ctx, c, d, from, nodes[i])
			return
		}
	}
}

func (s *Surgeon) nodes(ctx context.Context, c meshpb.MeshClient) (out []anchormesh.NodeID, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	reply, err := c.Nodes(ctx, &meshpb.NodesRequest{})
	for _, n := range reply.GetNodes() {
		if n.GetState() == meshpb.NodeState_NODE_STATE_ALIVE {
			out = append(out, anchormesh.NodeID(n.GetId()))
		}
	}
	return out, err
}

var errNotMoved = errors.New("the order was taken, and the anchors are not as ordered in time")

// order moves an anchor and waits until it is where it should be.
func (s *Surgeon) order(ctx context.Context, c meshpb.MeshClient, d *anchormesh.Descriptor, from, to anchormesh.NodeID) {
	what := fmt.Sprintf("%s from %s to %s", d.Segment, from.Short(), to.Short())
	short, cancel := context.WithTimeout(ctx, askTimeout)
	_, err := c.Move(short, &meshpb.MoveRequest{Segment: uint64(d.Segment), From: string(from), To: string(to)})
	cancel()
	if err == nil {
		err = s.await(ctx, d.Segment, from, to)
	}
	s.count(ctx, "move", what, err)
}

func (s *Surgeon) await(ctx context.Context, id anchormesh.SegmentID, from, to anchormesh.NodeID) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	tick := time.NewTicker(movePoll)
	defer tick.Stop()
	for {
		all, _ := s.segments(ctx, s.client())
		for _, d := range all {
			if d.Segment != id {
				continue
			}
			a, has := d.AnchorOn(to)
			if _, old := d.AnchorOn(from); has && a.Role == anchormesh.Voter && !old && !d.Joint {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return errNotMoved
		case <-tick.C:
		}
	}
}

func (s *Surgeon) transfer(ctx context.Context, c meshpb.MeshClient, d *anchormesh.Descriptor) {
	voters := d.Voters()
	if len(voters) == 0 {
		return
	}
	to := voters[s.rng.IntN(len(voters))].Node
	short, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	_, err := c.Transfer(short, &meshpb.TransferRequest{Segment: uint64(d.Segment), To: string(to)})
	s.count(ctx, "transfer", fmt.Sprintf("%s to %s", d.Segment, to.Short()), err)
}
