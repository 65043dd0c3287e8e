package codec

import (
	"math/rand/v2"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// seedMessages returns n encoded random requests of all kinds.
func seedMessages(rng *rand.Rand, n int) [][]byte {
	out := make([][]byte, 0, n)
	for range n {
		var m proto.Message
		switch rng.IntN(8) {
		case 0:
			m = randPut(rng)
		case 1:
			m = randRange(rng)
		case 2:
			m = randDelete(rng)
		case 3:
			m = &pb.CompactionRequest{Revision: randInt(rng), Physical: rng.IntN(2) == 0}
		case 4:
			m = &pb.LeaseGrantRequest{TTL: randInt(rng), ID: randInt(rng)}
		case 5:
			m = &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: randInt(rng), Remaining_TTL: randInt(rng)}, {}}}
		case 6:
			m = &pb.AlarmRequest{Action: pb.AlarmRequest_AlarmAction(rng.IntN(4)), MemberID: rng.Uint64(), Alarm: pb.AlarmType(rng.IntN(3))}
		default:
			m = randTxn(rng, 4)
		}
		out = append(out, mustMarshal(m))
	}
	return out
}

func randBytes(rng *rand.Rand) []byte {
	if rng.IntN(4) == 0 {
		return nil
	}
	b := make([]byte, rng.IntN(12))
	if rng.IntN(10) == 0 {
		b = make([]byte, rng.IntN(400))
	}
	for i := range b {
		b[i] = byte(rng.UintN(256))
	}
	return b
}

func randInt(rng *rand.Rand) int64 {
	switch rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return int64(rng.Uint64())
	default:
		return rng.Int64N(1000)
	}
}

func flip(rng *rand.Rand) bool { return rng.IntN(2) == 0 }

func randPut(rng *rand.Rand) *pb.PutRequest {
	return &pb.PutRequest{
		Key: randBytes(rng), Value: randBytes(rng), Lease: randInt(rng),
		PrevKv: flip(rng), IgnoreValue: flip(rng), IgnoreLease: flip(rng),
	}
}

func randRange(rng *rand.Rand) *pb.RangeRequest {
	return &pb.RangeRequest{
		Key: randBytes(rng), RangeEnd: randBytes(rng), Limit: randInt(rng), Revision: randInt(rng),
		SortOrder: pb.RangeRequest_SortOrder(rng.IntN(5) - 1), SortTarget: pb.RangeRequest_SortTarget(rng.IntN(7) - 1),
		Serializable: flip(rng), KeysOnly: flip(rng), CountOnly: flip(rng),
		MinModRevision: randInt(rng), MaxModRevision: randInt(rng),
		MinCreateRevision: randInt(rng), MaxCreateRevision: randInt(rng),
	}
}

func randDelete(rng *rand.Rand) *pb.DeleteRangeRequest {
	return &pb.DeleteRangeRequest{Key: randBytes(rng), RangeEnd: randBytes(rng), PrevKv: flip(rng)}
}

func randCompare(rng *rand.Rand) *pb.Compare {
	c := &pb.Compare{
		Result: pb.Compare_CompareResult(rng.IntN(5)), Target: pb.Compare_CompareTarget(rng.IntN(6)),
		Key: randBytes(rng), RangeEnd: randBytes(rng),
	}
	switch rng.IntN(6) {
	case 0:
		c.TargetUnion = &pb.Compare_Version{Version: randInt(rng)}
	case 1:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: randInt(rng)}
	case 2:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: randInt(rng)}
	case 3:
		c.TargetUnion = &pb.Compare_Value{Value: randBytes(rng)}
	case 4:
		c.TargetUnion = &pb.Compare_Lease{Lease: randInt(rng)}
	}
	return c
}

func randTxn(rng *rand.Rand, depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range rng.IntN(3) {
		r.Compare = append(r.Compare, randCompare(rng))
	}
	for range rng.IntN(3) {
		r.Success = append(r.Success, randOp(rng, depth))
	}
	for range rng.IntN(3) {
		r.Failure = append(r.Failure, randOp(rng, depth))
	}
	return r
}

func randOp(rng *rand.Rand, depth int) *pb.RequestOp {
	switch rng.IntN(5) {
	case 0:
		return &pb.RequestOp{}
	case 1:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: randRange(rng)}}
	case 2:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: randPut(rng)}}
	case 3:
		if depth > 0 {
			return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: randTxn(rng, depth-1)}}
		}
	}
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: randDelete(rng)}}
}

// mutate damages b in one place: a byte changed, cut, doubled or inserted.
func mutate(rng *rand.Rand, b []byte) []byte {
	if len(b) == 0 {
		return []byte{byte(rng.UintN(256))}
	}
	b, i := slices.Clone(b), rng.IntN(len(b))
	switch rng.IntN(5) {
	case 0:
		b[i] = byte(rng.UintN(256))
	case 1:
		b[i] ^= 1 << rng.UintN(8)
	case 2:
		b = b[:i]
	case 3:
		b = append(b, b[i:]...)
	default:
		b = slices.Insert(b, i, byte(rng.UintN(256)))
	}
	return b
}
