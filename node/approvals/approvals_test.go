package approvals

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
)

const segment anchormesh.SegmentID = 9

var names = []anchormesh.NodeID{"a", "b", "c"}

// world is a strong segment with three voters, of which "a" leads.
type world struct {
	t       *testing.T
	net     *meshtest.Network
	nodes   map[anchormesh.NodeID]*hosttest.Node
	at      map[anchormesh.NodeID]*Approvals
	invalid atomic.Int64
	stop    context.CancelFunc
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, net: meshtest.NewNetwork(1), nodes: map[anchormesh.NodeID]*hosttest.Node{}, at: map[anchormesh.NodeID]*Approvals{}}
	for _, id := range names {
		w.nodes[id] = hosttest.Start(t, hosttest.NewDisk(t), w.net, id)
	}
	a := w.nodes["a"]
	if err := a.Host.Genesis(7, segment, "", 3); err != nil {
		t.Fatal(err)
	}
	a.Put(segment, "seed", "0")
	a.Join(segment, w.nodes["b"], w.nodes["c"])
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	t.Cleanup(stop)
	for id, n := range w.nodes {
		p := New(Config{
			Self: id, Sign: n.Sign, Verifier: NewVerifier(hosttest.Signed), Core: approval.DefaultConfig(), Logger: slog.New(slog.DiscardHandler),
			Listener: Listener{Invalid: func(anchormesh.SegmentID, anchormesh.NodeID) { w.invalid.Add(1) }},
		}, n.Host, n.Engine, nil, n.Mesh)
		n.Mesh.HandleCalls(Method, p.Serve)
		w.at[id] = p
		go func() { _ = p.Run(ctx) }()
	}
	w.amend(0, &policy.Policy{
		Class: anchormesh.Strong, Anchors: policy.Anchors{Count: 3}, Writes: policy.Writes{CreateOnly: true},
		Approvals: policy.Approvals{Threshold: policy.Fraction{Num: 1, Den: 2}},
	})
	return w
}

// amend puts a policy in force, by the votes of all.
func (w *world) amend(base uint64, p *policy.Policy) {
	w.t.Helper()
	w.mustSubmit(machine.Propose(&scope.Proposal{Kind: scope.Amend, Base: base, Version: base + 1, Policy: p, Operator: "test"}))
	record := w.replica("a").Machine.State().Scope
	open := record.Open[len(record.Open)-1]
	for _, id := range names[:2] {
		v := &scope.Vote{Node: id, Approve: true, Signature: hosttest.Signature(id, open.Statement(7, segment, true))}
		w.mustSubmit(machine.CastVote(open.ID, v))
	}
	if _, wanted := w.replica("a").Machine.State().Approvals(); !wanted {
		w.t.Fatal("the policy is not in force")
	}
}

func (w *world) replica(id anchormesh.NodeID) *host.Replica {
	r, _ := w.nodes[id].Host.Get(segment)
	return r
}

// submit puts a command into the log as it is, past all approvals.
func (w *world) submit(command []byte) consensus.Result {
	done := make(chan consensus.Result, 1)
	w.nodes["a"].Engine.Submit(segment, consensus.Proposal{
		Generation: w.replica("a").Machine.Descriptor().Generation, Alone: true, Payload: command, Done: func(r consensus.Result) { done <- r },
	})
	return <-done
}

func (w *world) mustSubmit(command []byte) {
	w.t.Helper()
	if res := w.submit(command); res.Err != nil {
		w.t.Fatal(res.Err)
	}
}

// write writes through the leader's approvals.
func (w *world) write(command []byte) error {
	done := make(chan consensus.Result, 1)
	w.at["a"].Propose(segment, w.replica("a").Machine.Descriptor().Generation, command, func(r consensus.Result) { done <- r })
	return (<-done).Err
}

func command(op keyspace.Op, m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return keyspace.AppendCommand(nil, op, raw)
}

func put(key, value string) []byte {
	return command(keyspace.OpPut, &pb.PutRequest{Key: []byte(key), Value: []byte(value)})
}

func remove(key string) []byte {
	return command(keyspace.OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte(key)})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// level waits until all replicas have applied as much as the leader, and compares them.
func (w *world) level() {
	w.t.Helper()
	hosttest.Eventually(w.t, time.Minute, "equal replicas", func() bool {
		applied, _ := w.replica("a").Machine.Segment().Applied()
		for _, id := range names {
			if now, _ := w.replica(id).Machine.Segment().Applied(); now != applied {
				return false
			}
		}
		return true
	})
	for _, id := range names {
		if h := w.nodes[id].Hash(segment); h != w.nodes["a"].Hash(segment) {
			w.t.Errorf("%s holds %s, a %s", id, h, w.nodes["a"].Hash(segment))
		}
	}
}

func TestWritesAreApproved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var left atomic.Int64
		for i := range 200 {
			left.Add(1)
			w.at["a"].Propose(segment, w.replica("a").Machine.Descriptor().Generation, put(fmt.Sprintf("k%03d", i), "v"), func(r consensus.Result) {
				if r.Err != nil {
					t.Error(r.Err)
				}
				left.Add(-1)
			})
		}
		hosttest.Eventually(t, time.Minute, "answers", func() bool { return left.Load() == 0 })
		var refused *machine.RefusedError
		if err := w.write(put("k000", "again")); !errors.As(err, &refused) || refused.By == "" {
			t.Errorf("a second creation: %v", err)
		}
		w.level()
		w.stop()
	})
}

// Counterexample 8: k was deleted, acknowledged; a voter that has not applied that yet
// and still sees k must not refuse that it is created anew. It waits, or says nothing.
func TestCounterexample8StaleApprover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.must(w.write(put("k", "1")))
		w.level()
		w.net.Cut("a", "c")
		w.must(w.write(remove("k")))
		applied, _ := w.replica("a").Machine.Segment().Applied()
		in := w.replica("a").Machine.InForce(applied+1, w.term())
		request := put("k", "2")
		q := &approval.Question{
			Mesh: in.Mesh, Segment: in.Segment, Generation: in.Generation, Configuration: in.Configuration, Term: in.Term,
			Sequence: in.Sequence + 1, Policy: in.Policy, Trust: in.Trust, Index: applied, Requests: 1,
			Digest: approval.Digest([]anchormesh.Hash{approval.Sum(request)}),
		}
		ask := func(index, behind uint64) (*approval.Vote, error) {
			q := *q
			q.Index = index
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			return w.at["c"].judge(ctx, w.replica("c"), &q, behind, [][]byte{request})
		}
		if refusals := w.replica("c").Machine.Space().Judge([][]byte{request}); refusals[0] == nil {
			t.Fatal("the voter is not behind: there is nothing to test")
		}
		if v, err := ask(applied, 0); err == nil {
			t.Errorf("behind the index, it voted: %+v", v)
		}
		if v, err := ask(1, in.Sequence); err == nil {
			t.Errorf("behind a batch, it voted: %+v", v)
		}
		w.net.Heal("a", "c")
		if v, err := ask(applied, in.Sequence); err != nil || len(v.Refusals) > 0 {
			t.Errorf("once it has applied: %+v, %v", v, err)
		}
		w.must(w.write(request))
		w.level()
		w.stop()
	})
}

func (w *world) term() uint64 {
	st, _ := w.nodes["a"].Engine.Status(segment)
	return st.Term
}

// A leader that skips or forges approvals has its entries rejected by every replica,
// which hold it against the leader.
func TestADoctoredLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var told atomic.Int64
		for _, id := range names {
			w.replica(id).Machine.OnForged(func(uint64, error) { told.Add(1) })
		}
		before := w.nodes["a"].Hash(segment)
		if res := w.submit(put("k", "1")); !errors.Is(res.Err, machine.ErrUnapproved) {
			t.Errorf("without approvals: %v", res.Err)
		}
		applied, _ := w.replica("a").Machine.Segment().Applied()
		in := w.replica("a").Machine.InForce(applied+1, w.term())
		batch := &approval.Batch{Slots: []approval.Slot{{Bytes: put("k", "1")}}, Question: approval.Question{
			Mesh: in.Mesh, Segment: in.Segment, Generation: in.Generation, Configuration: in.Configuration, Term: in.Term,
			Sequence: in.Sequence + 1, Policy: in.Policy, Trust: in.Trust, Index: applied, Requests: 1,
			Digest: approval.Digest([]anchormesh.Hash{approval.Sum(put("k", "1"))}),
		}}
		for _, id := range names { // all signed by the leader
			v := approval.Vote{Node: id}
			v.Signature = hosttest.Signature("a", batch.Question.Statement(&v))
			batch.Votes = append(batch.Votes, v)
		}
		if res := w.submit(batch.Append([]byte{byte(machine.OpApproved)})); !errors.Is(res.Err, approval.ErrForged) {
			t.Errorf("with forged approvals: %v", res.Err)
		}
		w.level()
		if after := w.nodes["c"].Hash(segment); after != before || told.Load() != 3 {
			t.Errorf("from %s to %s; %d of 3 replicas noticed", before, after, told.Load())
		}
		w.must(w.write(put("k", "1"))) // and honest writes go on
		w.stop()
	})
}

// Voters that answer nonsense, or nothing, cost their votes: two of three go on, one
// alone does not, and its write takes effect nowhere.
func TestVotersThatDoNotVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.nodes["c"].Mesh.HandleCalls(Method, func(_ anchormesh.NodeID, _ []byte, to mesh.Responder) { to.Reply([]byte("yes")) })
		w.must(w.write(put("k", "1")))
		hosttest.Eventually(t, time.Minute, "a note of the nonsense", func() bool { return w.invalid.Load() > 0 })
		w.nodes["c"].Mesh.HandleCalls(Method, func(from anchormesh.NodeID, p []byte, to mesh.Responder) {
			to.Reply(approval.AppendVote(nil, &approval.Vote{Signature: []byte("not c's")}))
		})
		w.must(w.write(put("l", "1")))
		w.nodes["b"].Mesh.HandleCalls(Method, func(anchormesh.NodeID, []byte, mesh.Responder) {})
		before := w.nodes["a"].Hash(segment)
		if err := w.write(put("m", "1")); !errors.Is(err, approval.ErrUnanswered) || w.nodes["a"].Hash(segment) != before {
			t.Errorf("with one vote of three: %v", err)
		}
		w.stop()
	})
}

// What was taken when the leader loses its place comes back without effect.
func TestADeposedLeaderGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for _, id := range []anchormesh.NodeID{"b", "c"} {
			w.nodes[id].Mesh.HandleCalls(Method, func(anchormesh.NodeID, []byte, mesh.Responder) {})
		}
		done := make(chan error, 1)
		w.at["a"].Propose(segment, w.replica("a").Machine.Descriptor().Generation, put("k", "1"), func(r consensus.Result) { done <- r.Err })
		synctest.Wait()
		to, _ := w.replica("a").Machine.Descriptor().AnchorOn("b")
		w.nodes["a"].Engine.TransferLeader(segment, to.Replica)
		hosttest.Eventually(t, time.Minute, "another leader", func() bool {
			st, _ := w.nodes["a"].Engine.Status(segment)
			return !st.Leads()
		})
		w.at["a"].Changed(segment)
		if err := <-done; !errors.Is(err, consensus.ErrNotLeader) {
			t.Errorf("the write came back with %v", err)
		}
		w.stop()
	})
}
