package keyspace

import (
	"fmt"
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// traffic makes random requests over few keys, so that they meet.
type traffic struct {
	rng *rand.Rand
	m   *model // to aim at revisions that exist
}

func (g *traffic) one(n int) bool { return g.rng.IntN(n) == 0 }

func (g *traffic) key() []byte {
	return fmt.Appendf(nil, "%c%d", 'a'+rune(g.rng.IntN(3)), g.rng.IntN(4))
}

// end returns a range_end: none, a key, everything, or a prefix.
func (g *traffic) end() []byte {
	switch g.rng.IntN(5) {
	case 0, 1:
		return nil
	case 2:
		return []byte{0}
	case 3:
		return g.key()
	}
	return []byte{'a' + byte(g.rng.IntN(3)) + 1}
}

func (g *traffic) value() []byte {
	if g.one(8) {
		return nil
	}
	return fmt.Appendf(nil, "v%d", g.rng.IntN(6))
}

func (g *traffic) lease() int64 { return int64(g.rng.IntN(4) + 1) }

func (g *traffic) revision() int64 {
	switch g.rng.IntN(6) {
	case 0:
		return g.m.rev + int64(g.rng.IntN(3)) - 1
	case 1:
		return max(g.m.compacted, 0) + int64(g.rng.IntN(3)) - 1
	case 2, 3:
		return 1 + g.rng.Int64N(g.m.rev)
	}
	return 0
}

func (g *traffic) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.one(3)}
	switch g.rng.IntN(6) {
	case 0, 1:
		r.Lease = g.lease()
	case 2:
		r.IgnoreLease = true
	case 3:
		r.IgnoreValue, r.Value = true, nil
	}
	return r
}

func (g *traffic) delete() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.one(2)}
	if g.one(3) {
		r.RangeEnd = g.end()
	}
	return r
}

func (g *traffic) ranges() *pb.RangeRequest {
	r := &pb.RangeRequest{Key: g.key(), RangeEnd: g.end(), Revision: g.revision(), KeysOnly: g.one(4), CountOnly: g.one(6)}
	if g.one(5) {
		r.Key = []byte{0}
	}
	if g.one(2) {
		r.Limit = int64(g.rng.IntN(6)) - 1
	}
	if g.one(3) {
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(g.rng.IntN(3)), pb.RangeRequest_SortTarget(g.rng.IntN(5))
	}
	for _, f := range []*int64{&r.MinModRevision, &r.MaxModRevision, &r.MinCreateRevision, &r.MaxCreateRevision} {
		if g.one(12) {
			*f = g.revision()
		}
	}
	return r
}

func (g *traffic) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Result: pb.Compare_CompareResult(g.rng.IntN(4)), Target: pb.Compare_CompareTarget(g.rng.IntN(5))}
	if g.one(3) {
		c.RangeEnd = g.end()
	}
	union := c.Target
	if g.one(10) {
		union = pb.Compare_CompareTarget(g.rng.IntN(6))
	}
	switch union {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: int64(g.rng.IntN(3))}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.revision()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.revision()}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: g.value()}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: int64(g.rng.IntN(5))}
	}
	return c
}

func (g *traffic) txn(depth int, readOnly bool) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.rng.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	for range g.rng.IntN(4) {
		r.Success = append(r.Success, g.op(depth, readOnly))
	}
	for range g.rng.IntN(4) {
		r.Failure = append(r.Failure, g.op(depth, readOnly))
	}
	return r
}

func (g *traffic) op(depth int, readOnly bool) *pb.RequestOp {
	kind := g.rng.IntN(9)
	switch {
	case readOnly || kind < 3:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.ranges()}}
	case kind < 6:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case kind < 8 || depth == 0:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.delete()}}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth-1, false)}}
}

// write returns a command for the log.
func (g *traffic) write() (Op, proto.Message) {
	switch g.rng.IntN(40) {
	case 0:
		return OpCompact, &pb.CompactionRequest{Revision: g.revision()}
	case 1, 2, 3:
		return OpLeaseGrant, &pb.LeaseGrantRequest{ID: int64(g.rng.IntN(5)), TTL: int64(g.rng.IntN(100)) - 1}
	case 4:
		return OpLeaseGrant, &pb.LeaseGrantRequest{ID: 9, TTL: 9_000_000_001}
	case 5:
		return OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: g.lease()}
	case 6:
		return OpLeaseCheckpoint, &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: g.lease()}, {ID: g.lease()}}}
	case 7:
		return OpAlarm, &pb.AlarmRequest{
			Action: pb.AlarmRequest_AlarmAction(g.rng.IntN(3)), Alarm: pb.AlarmType(g.rng.IntN(3)), MemberID: uint64(g.rng.IntN(2)),
		}
	case 8, 9, 10: // keep alarms from standing for ever
		return OpAlarm, &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType(1 + g.rng.IntN(2)), MemberID: uint64(g.rng.IntN(2)),
		}
	case 11, 12, 13, 14, 15, 16, 17, 18:
		return OpDeleteRange, g.delete()
	case 19, 20, 21, 22, 23, 24, 25, 26, 27, 28:
		return OpTxn, g.txn(2, false)
	}
	return OpPut, g.put()
}
