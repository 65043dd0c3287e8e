package commit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// oracle is one segment with all keys, evaluated by package keyspace.
type oracle struct {
	t      *testing.T
	space  *keyspace.Space
	index  uint64
	events []mvcc.Event
}

func (o *oracle) Publish(events []mvcc.Event, _ int64) { o.events = events }

func newOracle(t *testing.T) *oracle {
	store, err := mvcc.Open(bolt.NewMemory(), mvcc.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	seg, err := store.Create(1, anchormesh.KeyRange{}, mvcc.Meta{})
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{t: t}
	seg.SetPublisher(o)
	o.space, err = keyspace.NewSpace(seg, keyspace.Identity{ClusterID: 7, MemberID: 9}, keyspace.DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	for id := range int64(4) {
		o.do(keyspace.OpLeaseGrant, &pb.LeaseGrantRequest{ID: id + 1, TTL: 60})
	}
	return o
}

func (o *oracle) do(op keyspace.Op, m proto.Message) keyspace.Outcome {
	raw, err := proto.Marshal(m)
	if err != nil {
		o.t.Fatal(err)
	}
	o.index++
	o.events = nil
	return o.space.Apply(o.index, 1, [][]byte{keyspace.AppendCommand(nil, op, raw)}, true)[0]
}

// got reads what a participant would.
func (o *oracle) got(r commit.Read) commit.Got {
	current, compacted := o.space.Revision()
	switch {
	case r.Revision > current:
		return commit.Got{Err: keyspace.ErrFutureRev}
	case r.Revision != 0 && r.Revision < compacted:
		return commit.Got{Err: keyspace.ErrCompacted}
	}
	q := codec.RangeRequest{Key: r.Range.Start, RangeEnd: r.Range.End, Revision: max(r.Revision, 0)}
	if len(q.Key) == 0 {
		q.Key = []byte{0}
	}
	if len(q.RangeEnd) == 0 {
		q.RangeEnd = []byte{0}
	}
	c, err := o.space.Range(context.Background(), &q, 1)
	if err != nil {
		o.t.Fatal(err)
	}
	var resp pb.RangeResponse
	if err := proto.Unmarshal(c.Bytes(), &resp); err != nil {
		o.t.Fatal(err)
	}
	var out commit.Got
	for _, kv := range resp.Kvs {
		k := codec.KeyValue{Key: kv.Key, Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, Value: kv.Value, Lease: kv.Lease}
		if !r.Values {
			k.Value = nil
		}
		out.KVs = append(out.KVs, k)
	}
	return out
}

// generator makes random requests over few keys, so that they meet.
type generator struct {
	*rand.Rand
	o *oracle
}

func (g generator) one(n int) bool { return g.IntN(n) == 0 }
func (g generator) key() []byte    { return fmt.Appendf(nil, "%c%d", 'a'+rune(g.IntN(3)), g.IntN(4)) }

func (g generator) end() []byte {
	switch g.IntN(5) {
	case 0, 1:
		return nil
	case 2:
		return []byte{0}
	case 3:
		return g.key()
	}
	return []byte{'a' + byte(g.IntN(3)) + 1}
}

func (g generator) revision() int64 {
	current, compacted := g.o.space.Revision()
	switch g.IntN(12) {
	case 0:
		return current + int64(g.IntN(3))
	case 1:
		return compacted + int64(g.IntN(3)) - 1
	case 2:
		return int64(g.IntN(int(current) + 1))
	}
	return 0
}

func (g generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), PrevKv: g.one(3), Value: fmt.Appendf(nil, "v%d", g.IntN(6))}
	switch g.IntN(8) {
	case 0, 1:
		r.Lease = int64(g.IntN(4)) + 1
	case 2:
		r.IgnoreLease = true
	case 3:
		r.IgnoreValue, r.Value = true, nil
	case 4:
		r.Value = nil
	}
	return r
}

func (g generator) ranges() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: g.key(), RangeEnd: g.end(), Revision: g.revision(), KeysOnly: g.one(4), CountOnly: g.one(6)}
	if g.one(5) {
		r.Key = []byte{0}
	}
	if g.one(2) {
		r.Limit = int64(g.IntN(6)) - 1
	}
	if g.one(3) {
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(g.IntN(3)), pb.RangeRequest_SortTarget(g.IntN(5))
	}
	for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.one(12) {
			*f = g.revision()
		}
	}
	return r
}

func (g generator) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Result: pb.Compare_CompareResult(g.IntN(4)), Target: pb.Compare_CompareTarget(g.IntN(5))}
	if g.one(3) {
		c.RangeEnd = g.end()
	}
	switch g.IntN(6) {
	case 0, 1:
		c.TargetUnion = &pb.Compare_Version{Version: int64(g.IntN(3))}
	case 2:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.revision()}
	case 3:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.revision()}
	case 4:
		c.TargetUnion = &pb.Compare_Value{Value: fmt.Appendf(nil, "v%d", g.IntN(6))}
	case 5:
		c.TargetUnion = &pb.Compare_Lease{Lease: int64(g.IntN(5))}
	}
	return c
}

func (g generator) remove() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.one(2)}
	if g.one(3) {
		r.RangeEnd = g.end()
	}
	return r
}

func (g generator) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	for range g.IntN(4) {
		r.Success = append(r.Success, g.op(depth))
	}
	for range g.IntN(4) {
		r.Failure = append(r.Failure, g.op(depth))
	}
	return r
}

func (g generator) op(depth int) *pb.RequestOp {
	switch kind := g.IntN(9); {
	case kind < 3:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.ranges()}}
	case kind < 6:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case kind < 8 || depth == 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.remove()}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth - 1)}}
}

// segments cuts the keyspace at random keys.
func (g generator) segments() []commit.Segment {
	var cuts [][]byte
	for range g.IntN(5) {
		cuts = append(cuts, g.key())
	}
	slices.SortFunc(cuts, bytes.Compare)
	cuts = slices.CompactFunc(cuts, bytes.Equal)
	var out []commit.Segment
	var from []byte
	for _, c := range cuts {
		out = append(out, commit.Segment{Range: anchormesh.KeyRange{Start: from, End: c}})
		from = c
	}
	return append(out, commit.Segment{Range: anchormesh.KeyRange{Start: from}})
}

// divided evaluates a request over segments, on what the oracle holds.
func (o *oracle) divided(op keyspace.Op, m proto.Message, segments []commit.Segment) (*commit.Division, *commit.Plan, error) {
	raw, err := proto.Marshal(m)
	if err != nil {
		o.t.Fatal(err)
	}
	var d *commit.Division
	if op == keyspace.OpTxn {
		txn := new(codec.TxnRequest)
		if err := codec.ParseTxn(raw, txn); err != nil {
			o.t.Fatal(err)
		}
		d, err = commit.Divide(txn, segments)
	} else {
		var r codec.DeleteRangeRequest
		if err := codec.ParseDeleteRange(raw, &r); err != nil {
			o.t.Fatal(err)
		}
		d, err = commit.DivideDelete(&r, segments)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	read := make([][]commit.Got, len(d.Parts))
	for i, p := range d.Parts {
		for _, r := range p.Reads {
			if !segments[slices.IndexFunc(segments, func(s commit.Segment) bool { return s.Range.Contains(p.Key()) })].Range.Covers(r.Range) {
				o.t.Fatalf("part %d reads %v outside of its segment", i, r.Range)
			}
			read[i] = append(read[i], o.got(r))
		}
	}
	plan, err := d.Join(read)
	return d, plan, err
}

// TestDividedAsWhole: a request over any cut of the keyspace writes, answers and
// fails as the same request in one segment does.
func TestDividedAsWhole(t *testing.T) {
	for seed := range uint64(40) {
		o := newOracle(t)
		g := generator{rand.New(rand.NewPCG(seed, 1)), o}
		for range 150 {
			if g.one(25) {
				o.do(keyspace.OpCompact, &pb.CompactionRequest{Revision: g.revision()})
			}
			var op = keyspace.OpTxn
			var m proto.Message = g.txn(2)
			if g.one(5) {
				op, m = keyspace.OpDeleteRange, g.remove()
			}
			d, plan, err := o.divided(op, m, g.segments())
			whole := o.do(op, m)
			if err != nil || whole.Err != nil {
				if !errors.Is(whole.Err, err) && !(errors.Is(err, commit.ErrKeyNotFound) && errors.Is(whole.Err, keyspace.ErrKeyNotFound)) {
					t.Fatalf("seed %d: %v: divided %v, whole %v", seed, m, err, whole.Err)
				}
				continue
			}
			if got := plan.Answer(o.space.Header(1)); !bytes.Equal(got, whole.Response) {
				t.Fatalf("seed %d: %v\ndivided %x\nwhole   %x", seed, m, got, whole.Response)
			}
			compareWrites(t, seed, d, plan, o.events)
		}
	}
}

func compareWrites(t *testing.T, seed uint64, d *commit.Division, plan *commit.Plan, events []mvcc.Event) {
	t.Helper()
	var writes []commit.Write
	for i, part := range plan.Writes {
		for _, w := range part {
			if !d.Spans[i].Contains(w.Key) {
				t.Fatalf("seed %d: part %d writes %q outside of %v", seed, i, w.Key, d.Spans[i])
			}
		}
		writes = append(writes, part...)
	}
	slices.SortFunc(writes, func(a, b commit.Write) int { return int(a.Sub) - int(b.Sub) })
	if len(writes) != len(events) {
		t.Fatalf("seed %d: %d writes, want %d", seed, len(writes), len(events))
	}
	for i, w := range writes {
		e := &events[i]
		if int64(w.Sub) != e.Sub || w.Delete != e.Delete || !bytes.Equal(w.Key, e.KV.Key) ||
			!w.Delete && (!bytes.Equal(w.Value, e.KV.Value()) || w.Lease != e.KV.Lease) {
			t.Fatalf("seed %d: write %d is %+v, want %+v", seed, i, w, e)
		}
	}
}

func keys(ks ...string) *codec.TxnRequest {
	r := &codec.TxnRequest{}
	for _, k := range ks {
		r.Success = append(r.Success, codec.RequestOp{Kind: codec.KindPut, Put: codec.PutRequest{Key: []byte(k)}})
	}
	return r
}

func TestDivideRefuses(t *testing.T) {
	left := commit.Segment{Range: anchormesh.KeyRange{End: []byte("m")}}
	right := commit.Segment{Range: anchormesh.KeyRange{Start: []byte("m")}}
	if d, err := commit.Divide(keys("x", "a", "b"), []commit.Segment{left, right}); err != nil || len(d.Parts) != 2 || string(d.Decision) != "a" {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := commit.Divide(keys("a", "x"), []commit.Segment{left}); !errors.Is(err, commit.ErrNoSegment) {
		t.Errorf("a gap in the routes: %v", err)
	}
	right.Light = true
	if _, err := commit.Divide(keys("x", "y"), []commit.Segment{left, right}); err != nil {
		t.Errorf("within a light segment: %v", err)
	}
	many := make([]string, commit.RangesMax+1)
	if _, err := commit.Divide(keys(many...), []commit.Segment{left, right}); !errors.Is(err, commit.ErrTooLarge) {
		t.Errorf("too many ranges: %v", err)
	}
}

// TestCounterexample2dALightParticipantMayNotDecide: see also the model, which finds
// the torn transaction if one does.
func TestCounterexample2dALightParticipantMayNotDecide(t *testing.T) {
	segments := []commit.Segment{{Range: anchormesh.KeyRange{End: []byte("m")}, Light: true}, {Range: anchormesh.KeyRange{Start: []byte("m")}}}
	if _, err := commit.Divide(keys("a", "x"), segments); !errors.Is(err, commit.ErrLight) {
		t.Fatalf("a transaction over a light segment and another: %v", err)
	}
}
