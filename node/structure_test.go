package node_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/node/proofs"
	"github.com/anchormesh/anchormesh/node/verify"
)

// admin is a connection to a node's own service.
func (m *testMesh) admin(i int) meshpb.MeshClient {
	m.t.Helper()
	conn, err := grpc.NewClient(m.nodes[i].cfg.Listen.Client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { conn.Close() })
	return meshpb.NewMeshClient(conn)
}

// told is what a node says for a look at the structure.
func (m *testMesh) told(ctx context.Context, i int) (out verify.Node, err error) {
	stream, err := m.admin(i).Structure(ctx, &meshpb.StructureRequest{})
	for err == nil {
		var item *meshpb.StructureItem
		if item, err = stream.Recv(); err != nil {
			break
		}
		var d *anchormesh.Descriptor
		switch {
		case item.GetNode() != nil:
			out.ID, out.Mesh = anchormesh.NodeID(item.GetNode().GetInfo().GetId()), anchormesh.MeshID(item.GetNode().GetMesh())
		case item.GetRoute() != nil:
			if d, err = meshpb.FromPB(item.GetRoute()); err == nil {
				out.Routes = append(out.Routes, d)
			}
		case item.GetReplica() != nil:
			r := item.GetReplica()
			if d, err = meshpb.FromPB(r.GetDescriptor_()); err == nil {
				out.Replicas = append(out.Replicas, verify.Replica{
					Descriptor: d, Chain: r.GetChain(), Proofs: r.GetProofs(), Leads: r.GetLeads(), Term: r.GetTerm(),
					Revision: r.GetRevision(), Compacted: r.GetCompactRevision(),
				})
			}
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return out, err
}

// look judges what the running nodes say now.
func (m *testMesh) look(ctx context.Context) verify.Report {
	m.t.Helper()
	var nodes []verify.Node
	for i := range m.nodes {
		if m.nodes[i].stop == nil {
			continue
		}
		n, err := m.told(ctx, i)
		if err != nil {
			m.t.Fatal(err)
		}
		nodes = append(nodes, n)
	}
	return verify.Look(nodes, proofs.Check)
}

// A mesh of four is split under writes: proofs come, the look finds nothing, a
// node without the replica gives the lineage of an anchor, and all nodes give one hash
// for one revision, whoever compacted already.
func TestStructureIsProved(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := m.client()
	var writes sync.WaitGroup
	writing, stop := context.WithCancel(ctx)
	for w := range 3 {
		writes.Go(func() {
			for k := 0; writing.Err() == nil; k++ {
				c.Put(writing, fmt.Sprintf("%c/%d", 'a'+k%26, w), fmt.Sprint(k)) // refused or unknown ones do no harm here
			}
		})
	}
	for _, at := range []string{"m", "f", "t", "h"} {
		m.split(at)
	}
	m.eventually(30*time.Second, "look without a finding while clients write", func() bool {
		r := m.look(ctx)
		if len(r.Findings) > 0 {
			t.Logf("for now: %+v", r.Findings)
		}
		return len(r.Findings) == 0 && len(r.Owners) == 5
	})
	stop()
	writes.Wait()
	for i := range m.nodes {
		reply, err := m.admin(i).Lineage(ctx, &meshpb.LineageRequest{Key: []byte("i")})
		if err != nil {
			t.Fatal(err)
		}
		chain, err := lineage.DecodeChain(reply.GetReplica().GetChain())
		if err != nil || chain.Last().Kind != lineage.Split || chain.Last().Evidence.Operator != "test" {
			t.Errorf("node %d: %+v, %v", i, chain, err)
		}
	}
	m.oneHash(ctx, c.Endpoints())
	m.plantedDifference(ctx)
}

// oneHash asks all nodes for the hash at a revision.
func (m *testMesh) oneHash(ctx context.Context, endpoints []string) {
	t, c := m.t, m.client()
	t.Helper()
	for k := range 8 { // versions for the compaction to remove
		put(ctx, t, c, "b", fmt.Sprint(k))
	}
	at := put(ctx, t, c, "z", "last")
	put(ctx, t, c, "a", "behind it")
	check := func(want int64) (hash uint32) {
		t.Helper()
		for i, e := range endpoints {
			h, err := c.HashKV(ctx, e, at)
			if err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				hash = h.Hash
			}
			if h.Hash != hash || h.HashRevision != at || h.CompactRevision != want || h.Header.Revision <= at {
				t.Errorf("node %d: %+v, node 0 had hash %08x", i, h, hash)
			}
		}
		return hash
	}
	before := check(-1)
	if _, err := c.Compact(ctx, at-5); err != nil {
		t.Fatal(err)
	}
	if after := check(at - 5); after == before {
		t.Error("a compaction makes no difference")
	}
	for rev, want := range map[int64]error{at - 6: rpctypes.ErrCompacted, at + 1000000: rpctypes.ErrFutureRev} {
		if _, err := c.HashKV(ctx, endpoints[0], rev); !errors.Is(err, want) {
			t.Errorf("at %d: %v, want %v", rev, err, want)
		}
	}
	m.eventually(20*time.Second, "status with a leader", func() bool { // it may be changing hands
		st, err := c.Status(ctx, endpoints[3])
		return err == nil && st.Leader != 0 && st.DbSize >= 0
	})
}

// Replicas that nobody uses are hashed where they stand, and sleep on; a write moves the
// place that they stand at.
func TestReplicasAreHashedAsleep(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m.split("m")
	m.split("t")
	for _, key := range []string{"a", "n", "x"} {
		put(ctx, t, m.client(), key, "v")
	}
	before := m.hashedAsleep(ctx, 3)
	put(ctx, t, m.client(), "n", "another history")
	after := m.hashedAsleep(ctx, 3)
	moved := 0
	for i := range before {
		if after[i].Stands.Index > before[i].Stands.Index && after[i].Sum != before[i].Sum {
			moved++
		}
	}
	if moved < 3 {
		t.Errorf("of the replicas of one segment, which was written to, %d have another hash", moved)
	}
}

// hashedAsleep returns the hashes of the replicas of so many segments, which all slept
// before and behind that, once they do.
func (m *testMesh) hashedAsleep(ctx context.Context, segments int) (answers []verify.Answer) {
	m.t.Helper()
	m.eventually(time.Minute, "hashes of replicas that sleep on", func() bool {
		together := false
		if m.atRest(segments) {
			answers, together = m.standing(ctx)
		}
		return together && m.atRest(segments)
	})
	return answers
}

// standing returns the hashes of all replicas as they stand, and whether that is where the
// others of their segments stand.
func (m *testMesh) standing(ctx context.Context) (answers []verify.Answer, together bool) {
	m.t.Helper()
	owners := m.look(ctx).Owners
	var ids []anchormesh.NodeID
	for i := range m.nodes {
		n, err := m.told(ctx, i)
		if err != nil {
			m.t.Fatal(err)
		}
		ids = append(ids, n.ID)
	}
	for _, q := range verify.Questions(owners, 0) {
		i := slices.Index(ids, q.Node)
		stream, err := m.admin(i).Hashes(ctx, &meshpb.HashesRequest{Replicas: []*meshpb.HashRequest{
			{Segment: uint64(q.Segment), Generation: uint64(q.Generation), Revision: q.At, Floor: q.Floor},
		}})
		if err != nil {
			m.t.Fatal(err)
		}
		reply, err := stream.Recv()
		if err != nil || reply.GetProblem() != "" {
			m.t.Fatal(err, reply.GetProblem())
		}
		q.Floor = reply.GetFloor()
		answers = append(answers, verify.Answer{Question: q, Sum: reply.GetSum(), Stands: lineage.Place{Index: reply.GetApplied(), Term: reply.GetTerm()}})
	}
	if together = len(verify.Apart(owners, answers)) == 0; together {
		if found := verify.Differing(answers); len(found) > 0 {
			m.t.Errorf("at one place they differ: %+v", found)
		}
	}
	return answers, together
}

// plantedDifference: the node's own hash of a replica tells one history from another,
// and a revision that nobody was given is refused.
func (m *testMesh) plantedDifference(ctx context.Context) {
	t := m.t
	t.Helper()
	var questions []verify.Question
	m.eventually(20*time.Second, "question to two replicas of each segment", func() bool { // those of a change that is under way are not asked
		questions = verify.Questions(m.look(ctx).Owners, 0)
		return len(questions) >= 10
	})
	q := questions[0]
	ask := func(at int64) (*meshpb.HashReply, error) {
		for i := range m.nodes {
			if n, err := m.told(ctx, i); err == nil && n.ID == q.Node {
				return m.admin(i).Hash(ctx, &meshpb.HashRequest{Segment: uint64(q.Segment), Generation: uint64(q.Generation), Revision: at, Floor: q.Floor})
			}
		}
		return nil, errors.New("the node is gone")
	}
	now, err := ask(q.At)
	if err != nil {
		t.Fatal(err)
	}
	put(ctx, t, m.client(), "a", "another history")
	next := verify.Questions(m.look(ctx).Owners, 0)
	later, err := ask(next[0].At)
	if err != nil || later.GetSum() == now.GetSum() {
		t.Errorf("another history has the same hash: %v, %v", later, err)
	}
	if _, err := ask(1 << 60); status.Code(err) != codes.OutOfRange {
		t.Errorf("a revision that nobody was given: %v", err)
	}
}

// Automatic compaction of a scope that was split happens once, at its home, by
// revisions of its line: all segments come to be compacted at the same one.
func TestAutomaticCompactionOfASplitScope(t *testing.T) {
	t.Parallel()
	m := newMesh(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, at := range []string{"m", "t"} {
		m.split(at)
	}
	for i := range m.nodes {
		m.stop(i)
		m.nodes[i].cfg.Compaction.Retention = "2s"
	}
	for i := range m.nodes {
		m.start(i)
	}
	c := m.client()
	m.eventually(40*time.Second, "compaction of all segments at one revision", func() bool {
		for _, key := range []string{"a", "n", "x"} {
			c.Put(ctx, key, "v") // only the line has to move
		}
		at, segments := int64(-1), 0
		for _, s := range m.segments(0) {
			if s.GetLocal() && s.GetCompactRevision() > 0 && (at < 0 || s.GetCompactRevision() == at) {
				at = s.GetCompactRevision()
				segments++
			}
		}
		return segments == 3
	})
}
