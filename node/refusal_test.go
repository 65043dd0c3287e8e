package node_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// Nothing optional happens to a group that is not whole, and each refusal says why: while
// an anchor learns, as in a mesh of two, and while one is dead, no scope is made of its
// keys, and it is neither cut, joined nor moved, whoever leads it and whoever is asked. A
// dry run says so beforehand. Policies may be changed all the same, and when the group is
// whole again everything may.
func TestNothingOptionalWhileAGroupIsNotWhole(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits until a death is noticed; the whole run has it")
	}
	m := newMesh(t, 1)
	m.add(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := m.service()
	m.eventually(30*time.Second, "learner", func() bool {
		d := s.holding("z")
		return len(d.Anchors) == 2 && len(d.Voters()) == 1
	})
	s.sick(ctx, t, "learning")
	s.set(ctx, "", "priority: 6")

	m.add(nil)
	m.awaitVoters(3)
	m.split("m")
	s = m.service() // with the third node
	s.ledByAnother()
	gone := s.follower()
	m.stop(gone)
	s.sick(ctx, t, "degraded or changing")
	s.set(ctx, "", "priority: 7")
	m.start(gone)
	s.set(ctx, "z/", "priority: 8")
	m.sound(ctx)
}

// holding is the segment that holds a key, as node 0 knows it.
func (s *scopeService) holding(key string) (d *anchormesh.Descriptor) {
	s.t.Helper()
	for _, info := range s.segments(0) {
		if have, err := meshpb.FromPB(info.GetDescriptor_()); err == nil && have.Range.Contains([]byte(key)) {
			return have
		}
	}
	return &anchormesh.Descriptor{}
}

// leading is the node that leads the segment of a key, -1 if nobody says so.
func (s *scopeService) leading(key string) int {
	s.t.Helper()
	id := uint64(s.holding(key).Segment)
	for i := range s.nodes {
		for _, info := range s.segments(i) {
			if len(info.GetLags()) > 0 && info.GetDescriptor_().GetSegment() == id {
				return i
			}
		}
	}
	return -1
}

// ledByAnother gives the second segment to another leader than the home has.
func (s *scopeService) ledByAnother() {
	s.t.Helper()
	s.eventually(30*time.Second, "another leader of the second segment", func() bool {
		home, second := s.leading("a"), s.leading("z")
		if home < 0 || second < 0 || home != second {
			return home >= 0 && second >= 0
		}
		_ = s.ask(home, func(ctx context.Context, c meshpb.MeshClient) error { // it is looked at again
			_, err := c.Transfer(ctx, &meshpb.TransferRequest{Segment: uint64(s.holding("z").Segment), To: string(s.id((home + 1) % 3))})
			return err
		})
		return false
	})
}

// follower is a node that leads neither segment.
func (s *scopeService) follower() int {
	home, second := s.leading("a"), s.leading("z")
	for i := range s.nodes {
		if i != home && i != second {
			return i
		}
	}
	s.t.Fatalf("node %d leads the home, node %d the rest, and there is no third", home, second)
	return -1
}

// sick waits until a dry run of a scope in the second half of the keys warns of that, and
// then sees everything optional refused, through every running node.
func (s *scopeService) sick(ctx context.Context, t *testing.T, why string) {
	t.Helper()
	create := func(c meshpb.ScopesClient) error {
		_, err := c.Create(ctx, &meshpb.CreateScopeRequest{Prefix: []byte("z/"), Policy: "priority: 8"})
		return err
	}
	d := s.holding("z")
	s.eventually(30*time.Second, "warning: "+why, func() bool { // a dead node is missed after seconds
		dry, err := s.tcp[s.running()[0]].DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("z/"), Policy: "priority: 8"})
		return err == nil && strings.Contains(strings.Join(dry.GetWarnings(), "\n"), why)
	})
	for _, i := range s.running() {
		refused(t, "a scope", create(s.tcp[i]), codes.Unavailable, why, "segment "+d.Segment.String(), `"z/"`)
		dry, err := s.tcp[i].DryRun(ctx, &meshpb.DryRunRequest{Prefix: []byte("z/"), Policy: "priority: 8"})
		if told := strings.Join(dry.GetWarnings(), "\n"); err != nil || !strings.Contains(told, "would be refused now") || !strings.Contains(told, why) {
			s.t.Errorf("a dry run through node %d warns of %q, %v", i, told, err)
		}
		if touched := dry.GetTouched(); len(touched) != 1 || touched[0].GetSegment() != uint64(d.Segment) || len(touched[0].GetAnchors()) != len(d.Anchors) {
			s.t.Errorf("a dry run through node %d touches %v, not %v", i, touched, d)
		}
		for _, dry := range []bool{false, true} {
			s.orders(i, d, dry)
		}
	}
	if now := s.holding("z"); now.Generation != d.Generation || len(now.Anchors) != len(d.Anchors) {
		s.t.Errorf("refused, and it became %v from %v", now, d)
	}
}

// orders sees what operators order refused, through one node, and dry too. A move has
// nowhere to go here.
func (s *scopeService) orders(through int, d *anchormesh.Descriptor, dry bool) {
	s.t.Helper()
	left := s.holding("a").Segment
	for what, order := range map[string]func(context.Context, meshpb.MeshClient) error{
		"a split": func(ctx context.Context, c meshpb.MeshClient) error {
			_, err := c.Split(ctx, &meshpb.SplitRequest{Boundary: []byte("z/1"), DryRun: dry})
			return err
		},
		"a merge": func(ctx context.Context, c meshpb.MeshClient) error {
			_, err := c.Merge(ctx, &meshpb.MergeRequest{Segment: uint64(left), Key: []byte("z"), DryRun: dry})
			return err
		},
	} {
		if what == "a merge" && left == d.Segment {
			continue // with whom?
		}
		var err error
		s.eventually(10*time.Second, "leader of the segment", func() bool {
			err = s.ask(through, order)
			return err == nil || !strings.Contains(err.Error(), "no known leader")
		})
		told := []string{"is still learning", "is silent", "which holds both"} // who cannot be asked whether it holds both
		if status.Code(err) != codes.Unavailable || !slices.ContainsFunc(told, func(why string) bool { return strings.Contains(err.Error(), why) }) {
			s.t.Errorf("%s (dry: %v) through node %d: %v", what, dry, through, err)
		}
	}
}

// running are the nodes that are not stopped.
func (s *scopeService) running() (out []int) {
	for i := range s.nodes {
		if s.nodes[i].stop != nil {
			out = append(out, i)
		}
	}
	return out
}
