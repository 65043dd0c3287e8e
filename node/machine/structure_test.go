package machine

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"weak"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// bench is a machine over a store in memory.
type bench struct {
	t       testing.TB
	store   *mvcc.Store
	m       *Machine
	index   uint64
	changes []Change
}

func voters(names ...anchormesh.NodeID) (out []anchormesh.Anchor) {
	for i, n := range names {
		out = append(out, anchormesh.Anchor{Node: n, Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
	}
	return out
}

func newBench(t *testing.T) *bench {
	store, err := mvcc.Open(bolt.NewMemory(), mvcc.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Founding(&anchormesh.Descriptor{
		Mesh: 7, Segment: 9, Generation: 1, NextReplica: 4, Anchors: voters("a", "b", "c"),
	}, 3, lineage.Place{Index: 5, Term: 1})
	if err != nil {
		t.Fatal(err)
	}
	seg, err := store.Create(9, anchormesh.KeyRange{}, mvcc.Meta{Applied: 5, Term: 1, State: s.Encode()})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store, index: 5}
	b.m = b.machine(seg)
	return b
}

func (b *bench) machine(seg *mvcc.Segment) *Machine {
	space, err := keyspace.NewSpace(seg, keyspace.Identity{ClusterID: 7, MemberID: 1}, keyspace.DefaultLimits())
	if err != nil {
		b.t.Fatal(err)
	}
	m, err := New(seg, space, b.verify, func(c Change) { b.changes = append(b.changes, c) })
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// apply applies one entry of a generation and returns its first outcome.
func (b *bench) apply(gen anchormesh.Generation, payloads ...[]byte) consensus.Outcome {
	b.index++
	out := b.m.Apply(&consensus.Entry{Index: b.index, Term: 2, Generation: gen, Payloads: payloads}, true)
	return out[0]
}

func put(key, value string) []byte {
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		panic(err)
	}
	return keyspace.AppendCommand(nil, keyspace.OpPut, raw)
}

func stamped(rev int64, command []byte) []byte {
	return append(keyspace.AppendStamp(nil, rev), command...)
}

// A split leaves two segments that share the history, the left one under the old
// name; both are described, chained and stamped, and the home's window begins at
// the newest revision.
func TestSplit(t *testing.T) {
	b := newBench(t)
	for _, k := range []string{"a", "m", "z"} {
		b.apply(1, put(k, "v"))
	}
	split := &Split{At: []byte("m"), Right: 11, Evidence: lineage.Evidence{Reason: lineage.Load, Pressure: 1500, Spread: 900, Numbers: []uint64{1, 2}}}
	if out := b.apply(1, split.Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	c := b.changes[len(b.changes)-1]
	left, right := c.State.Descriptor, c.Born.Descriptor
	if left.Segment != 9 || left.Generation != 2 || !left.Range.Equal(anchormesh.KeyRange{End: []byte("m")}) || !left.Stamped {
		t.Errorf("left is %+v", left)
	}
	if right.Segment != 11 || right.Generation != 2 || !right.Range.Equal(anchormesh.KeyRange{Start: []byte("m")}) || !right.Stamped {
		t.Errorf("right is %+v", right)
	}
	if c.State.Line != 9 || c.Born.Line != 9 || c.State.Window != 4 || c.Born.Window != 0 {
		t.Errorf("lines %d, %d; windows %d, %d", c.State.Line, c.Born.Line, c.State.Window, c.Born.Window)
	}
	if !c.State.Chain.Last().Describes(left) || !c.Born.Chain.Last().Describes(right) || right.Lineage != left.Lineage {
		t.Error("the lineages do not describe the children")
	}
	if got := c.State.Chain.Last().Evidence; got.Pressure != 1500 || !slices.Equal(got.Numbers, []uint64{1, 2}) {
		t.Errorf("evidence %+v", got)
	}
	child := b.machine(c.Child)
	if rev, _ := child.Segment().Revision(); rev != 4 || child.Start().Index != BirthIndex {
		t.Errorf("the child begins at revision %d, log index %d", rev, child.Start().Index)
	}
	if out := b.apply(1, put("a", "late")); !errors.Is(out.Err, ErrGeneration) {
		t.Errorf("an entry of the old generation: %v", out.Err)
	}
	if out := b.apply(2, stamped(10, put("a", "w"))); out.Err != nil {
		t.Errorf("a stamped write: %v", out.Err)
	}
	if rev, _ := b.m.Segment().Revision(); rev != 10 {
		t.Errorf("left is at revision %d", rev)
	}
}

// Nothing of a machine keeps a state that is over, which is most of what a segment takes.
func TestAStateThatIsOverIsLetGo(t *testing.T) {
	b := newBench(t)
	for i, change := range [][]byte{
		(&Split{At: []byte("m"), Right: 11}).Command(), Window(100), (&Split{At: []byte("c"), Right: 12}).Command(),
	} {
		b.m.Electorate() // as for votes on it
		before := weak.Make(b.m.State())
		if out := b.apply(b.gen(), change); out.Err != nil {
			t.Fatal(out.Err)
		}
		b.changes = nil
		runtime.GC()
		if before.Value() != nil {
			t.Errorf("the state before change %d is still there", i)
		}
	}
	if err := b.store.Commit(); err != nil {
		t.Fatal(err)
	}
	if index, conf := b.m.Durable(); index != b.index || len(conf.GetVoters()) != 3 {
		t.Errorf("durable at %d with %v", index, conf)
	}
}

// The home's window grows by entries, and never falls: counterexample 4a, and 22f,
// in which a split named an older window than the one in force.
func TestWindow(t *testing.T) {
	b := newBench(t)
	b.apply(1, put("a", "v"))
	if out := b.apply(1, Window(100)); !errors.Is(out.Err, ErrRefused) {
		t.Errorf("a window of a scope that counts as it applies: %v", out.Err)
	}
	b.apply(1, (&Split{At: []byte("m"), Right: 11}).Command())
	if out := b.apply(2, Window(1000)); out.Err != nil || b.m.State().Window != 1000 {
		t.Errorf("window %d, %v", b.m.State().Window, out.Err)
	}
	if out := b.apply(2, Window(500)); !errors.Is(out.Err, ErrRefused) || b.m.State().Window != 1000 {
		t.Errorf("a smaller window: %d, %v", b.m.State().Window, out.Err)
	}
	if out := b.apply(2, (&Split{At: []byte("f"), Right: 12}).Command()); out.Err != nil || b.m.State().Window != 1000 {
		t.Errorf("a split takes window %d with it: %v", b.m.State().Window, out.Err)
	}
	if out := b.apply(2, Window(2000)); !errors.Is(out.Err, ErrGeneration) || b.m.State().Window != 1000 {
		t.Errorf("a window proposed before the split: %d, %v", b.m.State().Window, out.Err)
	}
	restarted := b.machine(b.m.Segment())
	if got := restarted.State(); got.Window != 1000 || got.Line != 9 {
		t.Errorf("read back: window %d of line %d", got.Window, got.Line)
	}
}

// What the state does not allow is a known outcome with a reason, on every replica.
func TestSplitsThatAreRefused(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		split Split
		want  string
	}{
		"at the first key":    {Split{At: nil, Right: 11}, "does not lie inside"},
		"below the first key": {Split{At: []byte{0}, Right: 11}, "no key can lie below"},
		"no name":             {Split{At: []byte("m")}, "no name"},
		"the parent's name":   {Split{At: []byte("m"), Right: 9}, "no name"},
		"too long":            {Split{At: bytes.Repeat([]byte("k"), BoundaryMax+1), Right: 11}, "too long"},
		"cut short":           {Split{}, ""},
	} {
		command := c.split.Command()
		if c.want == "" {
			command = command[:5]
		}
		out := b.apply(1, command)
		if out.Err == nil || !strings.Contains(out.Err.Error(), c.want) {
			t.Errorf("%s: %v", name, out.Err)
		}
	}
	b.index++
	conf := &raftpb.ConfState{Voters: []uint64{1, 2}, VotersOutgoing: []uint64{1, 2, 3}, AutoLeave: new(true)}
	joint := b.m.State().after(&anchormesh.Descriptor{
		Mesh: 7, Segment: 9, Generation: 1, NextReplica: 4, Anchors: voters("a", "b"),
	}, conf, lineage.Place{Index: b.index, Term: 2})
	if err := joint.Allows(&Split{At: []byte("m"), Right: 11}); !errors.Is(err, ErrRefused) {
		t.Errorf("while the configuration is joint: %v", err)
	}
	if got := b.m.Descriptor(); got.Generation != 1 || len(b.changes) != 0 {
		t.Errorf("the segment changed: %+v", got)
	}
	if applied, _ := b.m.Segment().Applied(); applied != b.index-1 {
		t.Errorf("refused entries were not counted as applied: %d of %d", applied, b.index-1)
	}
}

func FuzzParseSplit(f *testing.F) {
	f.Add((&Split{At: []byte("m"), Right: 11, Evidence: lineage.Evidence{Operator: "me", Numbers: []uint64{1}}}).Command()[1:])
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSplit(data)
		if err != nil {
			return
		}
		again, err := parseSplit(s.Command()[1:])
		if err != nil || !bytes.Equal(again.At, s.At) || again.Right != s.Right {
			t.Fatalf("%+v came back as %+v, %v", s, again, err)
		}
	})
}

// A change of the anchors that was proposed before a split was applied, and stands
// behind it in the log, knows nothing of it: its descriptor still has the whole range.
func TestChangeOfAnchorsBehindASplit(t *testing.T) {
	b := newBench(t)
	before := b.m.Descriptor().Clone()
	before.Anchors = append(before.Anchors, anchormesh.Anchor{Node: "d", Replica: 4, Role: anchormesh.Learner})
	before.NextReplica = 5
	if out := b.apply(1, (&Split{At: []byte("m"), Right: 11}).Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	b.index++
	b.m.Apply(&consensus.Entry{Index: b.index, Term: 2, Generation: 1, Conf: &consensus.ConfChange{
		Context: meshpb.EncodeDescriptor(before), State: &raftpb.ConfState{Voters: []uint64{1, 2, 3}, Learners: []uint64{4}},
	}}, true)
	d := b.m.Descriptor()
	if d.Generation != 2 || !d.Range.Equal(anchormesh.KeyRange{End: []byte("m")}) || !d.Stamped {
		t.Errorf("the split is undone: %+v", d)
	}
	if len(d.Anchors) != 4 || d.NextReplica != 5 || d.Changed != b.index || d.Lineage != b.m.State().Chain.Head() {
		t.Errorf("the change is not in force: %+v", d)
	}
}
