package segments

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/testnet/cluster"
)

// control is the operator of one mesh: it cuts, moves and looks.
type control struct {
	c       *cluster.Cluster
	clients []*clientv3.Client // by node, in the cluster's order
}

func newControl(c *cluster.Cluster) (*control, error) {
	k := &control{c: c}
	for _, n := range c.Nodes {
		client, err := c.Client(n)
		if err != nil {
			k.close()
			return nil, err
		}
		k.clients = append(k.clients, client)
	}
	return k, nil
}

func (k *control) close() {
	for _, c := range k.clients {
		c.Close()
	}
}

// any calls f with one running node after the other until one has no error.
func (k *control) any(f func(grpc.ClientConnInterface) error) error {
	err := errors.New("no node runs")
	for i, n := range k.c.Nodes {
		if !n.Running() {
			continue
		}
		if err = f(k.clients[i].ActiveConnection()); err == nil {
			return nil
		}
	}
	return err
}

const (
	controlPoll     = 50 * time.Millisecond
	controlAttempt  = 5 * time.Second // one request
	controlPatience = 2 * time.Minute // a machine that others load may take that long for one of thousands
)

// patiently repeats f until it has no error, it fails for good or patience ends.
func patiently(ctx context.Context, what string, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, controlPatience)
	defer cancel()
	for {
		attempt, end := context.WithTimeout(ctx, controlAttempt)
		err := f(attempt)
		end()
		if err == nil || hopeless(err) {
			return err
		}
		timer := time.NewTimer(controlPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%s: %w", what, err)
		case <-timer.C:
		}
	}
}

// hopeless says that asking again changes nothing.
func hopeless(err error) bool {
	code := status.Code(err)
	return code == codes.Unimplemented || code == codes.InvalidArgument
}

// split cuts at a key and returns how long the answered request took.
func (k *control) split(ctx context.Context, key string) (time.Duration, error) {
	var took time.Duration
	err := patiently(ctx, "split at "+key, func(ctx context.Context) error {
		return k.any(func(conn grpc.ClientConnInterface) error {
			begin := time.Now()
			_, err := meshpb.NewMeshClient(conn).Split(ctx, &meshpb.SplitRequest{Boundary: []byte(key), Operator: "bench"})
			took = time.Since(begin)
			if status.Code(err) == codes.FailedPrecondition && isBoundary(ctx, conn, key) {
				return nil // an attempt whose answer was lost
			}
			return err
		})
	})
	return took, err
}

// isBoundary reports whether a node knows a segment that begins at a key.
func isBoundary(ctx context.Context, conn grpc.ClientConnInterface, key string) bool {
	reply, err := meshpb.NewMeshClient(conn).Segments(ctx, &meshpb.SegmentsRequest{Start: []byte(key), Limit: 1})
	return err == nil && len(reply.GetSegments()) > 0 && viewOf(reply.GetSegments()[0]).start == key
}

// segment is one segment as the node that knows most of it shows it.
type segment struct {
	id         uint64
	start      string
	generation uint64
	term       uint64
	leader     string   // node ID, "" if unknown
	voters     []string // node IDs
	settled    bool     // voters only, no change under way
}

// segments returns what the running nodes know together, sorted by range: of each
// segment the newest generation and of that the newest term.
func (k *control) segments(ctx context.Context) ([]segment, error) {
	byStart := map[string]segment{}
	for i, n := range k.c.Nodes {
		if !n.Running() {
			continue
		}
		_, err := meshpb.EachSegment(ctx, meshpb.NewMeshClient(k.clients[i].ActiveConnection()), func(info *meshpb.SegmentInfo) error {
			s := viewOf(info)
			if old, ok := byStart[s.start]; !ok || s.newer(old) {
				byStart[s.start] = s
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	out := make([]segment, 0, len(byStart))
	for _, s := range byStart {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b segment) int { return strings.Compare(a.start, b.start) })
	return out, nil
}

func viewOf(info *meshpb.SegmentInfo) segment {
	d := info.GetDescriptor_()
	s := segment{
		id: d.GetSegment(), start: string(d.GetStart()), generation: d.GetGeneration(),
		term: info.GetTerm(), leader: info.GetLeader(), settled: !d.GetJoint(),
	}
	for _, a := range d.GetAnchors() {
		if a.GetRole() == meshpb.Role_ROLE_VOTER {
			s.voters = append(s.voters, a.GetNode())
		} else {
			s.settled = false
		}
	}
	return s
}

func (s segment) newer(old segment) bool {
	if s.generation != old.generation {
		return s.generation > old.generation
	}
	if (s.leader == "") != (old.leader == "") {
		return s.leader != ""
	}
	return s.term > old.term
}

// ids returns the nodes' IDs in the cluster's order.
func (k *control) ids(ctx context.Context) ([]string, error) {
	out := make([]string, len(k.c.Nodes))
	err := k.any(func(conn grpc.ClientConnInterface) error {
		reply, err := meshpb.NewMeshClient(conn).Nodes(ctx, &meshpb.NodesRequest{})
		for _, n := range reply.GetNodes() {
			i := slices.IndexFunc(k.c.Nodes, func(c *cluster.Node) bool { return c.Name == n.GetName() })
			if i >= 0 {
				out[i] = n.GetId()
			}
		}
		return err
	})
	if err == nil && slices.Contains(out, "") {
		err = errors.New("a node is not in the list of nodes")
	}
	return out, err
}

func (k *control) transfer(ctx context.Context, id uint64, to string) error {
	return k.any(func(conn grpc.ClientConnInterface) error {
		_, err := meshpb.NewMeshClient(conn).Transfer(ctx, &meshpb.TransferRequest{Segment: id, To: to})
		return err
	})
}

func (k *control) move(ctx context.Context, id uint64, from, to string) error {
	return k.any(func(conn grpc.ClientConnInterface) error {
		_, err := meshpb.NewMeshClient(conn).Move(ctx, &meshpb.MoveRequest{Segment: id, From: from, To: to})
		return err
	})
}

// starts returns the boundaries of pieces equal parts of a key space of n keys
// under a prefix, as testnet/load names them.
func starts(prefix string, keys, pieces int) []string {
	var out []string
	for i := 1; i < pieces; i++ {
		out = append(out, fmt.Sprintf("%s%010d", prefix, keys*i/pieces))
	}
	return out
}

// bisecting orders sorted boundaries so that each cuts a segment near its middle
// and those of one level concern different segments: they can be cut at once.
func bisecting(boundaries []string) (levels [][]string) {
	parts := [][]string{boundaries}
	for len(parts) > 0 {
		var level []string
		var next [][]string
		for _, p := range parts {
			if len(p) == 0 {
				continue
			}
			mid := len(p) / 2
			level = append(level, p[mid])
			next = append(next, p[:mid], p[mid+1:])
		}
		if len(level) > 0 {
			levels = append(levels, level)
		}
		parts = next
	}
	return levels
}

// prefixEnd is the first key behind all keys with a prefix.
func prefixEnd(prefix string) string {
	b := bytes.Clone([]byte(prefix))
	b[len(b)-1]++
	return string(b)
}
