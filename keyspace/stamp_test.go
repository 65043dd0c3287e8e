package keyspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

func stampedCommand(rev int64, op Op, m proto.Message) []byte {
	return append(AppendStamp(nil, rev), command(op, m)...)
}

func TestStampIsWrittenInPlace(t *testing.T) {
	cmd := command(OpPut, &pb.PutRequest{Key: []byte("k")})
	buf := append(make([]byte, StampBytes), cmd...)
	AppendStamp(buf[:0], 77)
	AppendStamp(buf[:0], 78)
	if rev, inner, ok := CutStamp(buf); !ok || rev != 78 || !bytes.Equal(inner, cmd) || &inner[0] != &buf[StampBytes] {
		t.Errorf("%x is %d %x %v", buf, rev, inner, ok)
	}
	if Cost(buf) != Cost(cmd) || Cost(cmd) == 0 {
		t.Errorf("a stamp makes the command cost %d, without it %d", Cost(buf), Cost(cmd))
	}
	for _, bad := range [][]byte{nil, buf[:StampBytes], cmd, append(AppendStamp(nil, 5), buf...), append(AppendStamp(nil, 0), cmd...), append(AppendStamp(nil, -3), cmd...)} {
		if _, _, ok := CutStamp(bad); ok {
			t.Errorf("%x is a stamped command", bad)
		}
	}
}

// Stamps leave gaps, those not above the segment's revision change nothing, and a
// command that writes nothing answers with its stamp and leaves the revision.
func TestStampedCommands(t *testing.T) {
	d := newDriver(t)
	put := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	o := d.raw(stampedCommand(10, OpPut, put))
	if got := unmarshal(t, o.Response, &pb.PutResponse{}); o.Err != nil || got.Header.Revision != 10 {
		t.Fatalf("%v, %v", got, o.Err)
	}
	for _, late := range []int64{10, 9, 1} {
		if o := d.raw(stampedCommand(late, OpPut, put)); !errors.Is(o.Err, ErrStampOrder) {
			t.Errorf("stamp %d: %+v", late, o)
		}
	}
	none := d.raw(stampedCommand(20, OpDeleteRange, &pb.DeleteRangeRequest{Key: []byte("none")}))
	if got := unmarshal(t, none.Response, &pb.DeleteRangeResponse{}); got.Header.Revision != 20 {
		t.Errorf("a deletion of nothing answers %v", got.Header)
	}
	empty := d.raw(stampedCommand(21, OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("k", 20), rangeOp("k", 10)}}))
	if got := unmarshal(t, empty.Response, &pb.TxnResponse{}); got.Header.Revision != 21 || len(got.Responses) != 2 || got.Responses[0].GetResponseRange().Count != 1 {
		t.Errorf("a transaction that reads answers %v, %v", got, empty.Err)
	}
	if rev, _ := d.space.Revision(); rev != 10 {
		t.Errorf("revision %d after commands that wrote nothing", rev)
	}
	if o := d.raw(stampedCommand(22, OpTxn, &pb.TxnRequest{Success: []*pb.RequestOp{rangeOp("k", 22)}})); !errors.Is(o.Err, ErrFutureRev) {
		t.Errorf("a range at the transaction's own stamp: %+v", o)
	}
	if o := d.raw(command(OpPut, put)); unmarshal(t, o.Response, &pb.PutResponse{}).Header.Revision != 11 {
		t.Error("a command without stamp does not count by one")
	}
}

func rangeOp(key string, rev int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key), Revision: rev}}}
}

// A compaction may go as far as its stamp, raises the segment to it, and needs no
// stamp above the segment's revision.
func TestCompactionAboveTheSegmentsRevision(t *testing.T) {
	d := newDriver(t)
	d.raw(stampedCommand(10, OpPut, &pb.PutRequest{Key: []byte("k")}))
	compact := func(stamp, rev int64) Outcome {
		return d.raw(stampedCommand(stamp, OpCompact, &pb.CompactionRequest{Revision: rev}))
	}
	if o := compact(30, 31); !errors.Is(o.Err, ErrFutureRev) {
		t.Fatalf("compaction above its stamp: %+v", o)
	}
	if o := d.raw(command(OpCompact, &pb.CompactionRequest{Revision: 11})); !errors.Is(o.Err, ErrFutureRev) {
		t.Fatalf("compaction without stamp above the revision: %+v", o)
	}
	o := compact(30, 25)
	if got := unmarshal(t, o.Response, &pb.CompactionResponse{}); o.Err != nil || got.Header.Revision != 30 {
		t.Fatalf("%v, %v", got, o.Err)
	}
	if rev, floor := d.space.Revision(); rev != 25 || floor != 25 {
		t.Fatalf("revision %d, compacted %d", rev, floor)
	}
	if o := d.raw(stampedCommand(25, OpPut, &pb.PutRequest{Key: []byte("k")})); !errors.Is(o.Err, ErrStampOrder) {
		t.Fatalf("a write at the floor: %+v", o)
	}
	d.raw(stampedCommand(40, OpPut, &pb.PutRequest{Key: []byte("k")}))
	if o := compact(35, 30); o.Err != nil {
		t.Fatalf("a compaction with an older stamp: %+v", o)
	}
	if o := compact(50, 30); !errors.Is(o.Err, ErrCompacted) {
		t.Fatalf("the same compaction again: %+v", o)
	}
}

// Stamped with the next revision every time, a segment answers as one that counts.
func TestStampsWithoutGapsAreDense(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 5))
		m := newModel(testIDs)
		g := &traffic{rng: rng, m: m}
		a, b := newReplica(t), newReplica(t)
		for i := range uint64(150) {
			op, req := g.write()
			m.index, m.term = i+1, 7
			m.apply(op, req)
			rev, _ := a.space.Revision()
			x := a.space.Apply(i+1, 7, [][]byte{command(op, req)}, true)[0]
			y := b.space.Apply(i+1, 7, [][]byte{stampedCommand(rev+1, op, req)}, true)[0]
			if after, _ := a.space.Revision(); !errors.Is(y.Err, x.Err) || after > rev && !bytes.Equal(x.Response, y.Response) {
				if op != OpCompact { // whose stamp allows one revision more
					t.Fatalf("seed %d, %v %v:\n%x %v\n%x %v", seed, op, req, x.Response, x.Err, y.Response, y.Err)
				}
			}
			if op == OpCompact && (x.Err == nil) != (y.Err == nil) {
				break
			}
		}
		if x, y := digest(t, a.space), digest(t, b.space); x.hash.Compacted == y.hash.Compacted && fmt.Sprint(x) != fmt.Sprint(y) {
			t.Fatalf("seed %d: %+v\n%+v", seed, x, y)
		}
	}
}

// Reads at a revision above the segment's own, at an earlier one, and below what was
// compacted in the meantime.
func TestReadsAtARevision(t *testing.T) {
	d, ctx := newDriver(t), context.Background()
	for _, rev := range []int64{10, 20, 30} {
		d.raw(stampedCommand(rev, OpPut, &pb.PutRequest{Key: []byte("k"), Value: fmt.Append(nil, rev)}))
	}
	read := func(at, client int64) (*pb.RangeResponse, error) {
		c, err := d.space.RangeAt(ctx, &codec.RangeRequest{Key: []byte("k"), Revision: client}, 3, at)
		if err != nil {
			return nil, err
		}
		return unmarshal(t, c.Bytes(), &pb.RangeResponse{}), nil
	}
	for _, c := range []struct{ at, client, mod int64 }{{100, 0, 30}, {100, 100, 30}, {100, 29, 20}, {25, 0, 20}, {25, 25, 20}, {25, 10, 10}} {
		got, err := read(c.at, c.client)
		if err != nil || got.Header.Revision != c.at || got.Kvs[0].ModRevision != c.mod {
			t.Errorf("at %d, client's %d: %v, %v", c.at, c.client, got, err)
		}
	}
	if _, err := read(25, 26); !errors.Is(err, ErrFutureRev) {
		t.Errorf("a client's revision above: %v", err)
	}
	txn, err := d.space.ReadTxnAt(ctx, &codec.TxnRequest{
		Compare: []codec.Compare{{Key: []byte("k"), Target: codec.CompareMod, Union: codec.UnionMod, Int: 20}},
		Success: []codec.RequestOp{{Kind: codec.KindRange, Range: codec.RangeRequest{Key: []byte("k")}}},
	}, 3, 25)
	if err != nil {
		t.Fatal(err)
	}
	if got := unmarshal(t, txn.Bytes(), &pb.TxnResponse{}); !got.Succeeded || got.Header.Revision != 25 || got.Responses[0].GetResponseRange().Kvs[0].ModRevision != 20 {
		t.Errorf("transaction at 25: %v", got)
	}
	got := &pb.RangeResponse{}
	err = d.space.RangeStreamAt(ctx, codec.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}}, 3, 100, 10, func(c codec.Chunks) error {
		proto.Merge(got, unmarshal(t, c.Bytes(), &pb.RangeStreamResponse{}).RangeResponse)
		return nil
	})
	if err != nil || got.Header.Revision != 100 || got.Count != 1 {
		t.Errorf("stream at 100: %v, %v", got, err)
	}
	d.raw(stampedCommand(40, OpCompact, &pb.CompactionRequest{Revision: 28}))
	if _, err := read(25, 0); !errors.Is(err, ErrOvertaken) {
		t.Errorf("at a revision that was compacted: %v", err)
	}
	if _, err := read(30, 20); !errors.Is(err, ErrCompacted) {
		t.Errorf("a client's revision that was compacted: %v", err)
	}
}
