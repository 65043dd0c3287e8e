package codec

import (
	"bytes"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

func randHeader(rng *rand.Rand) (Header, *pb.ResponseHeader) {
	h := Header{ClusterID: uint64(randInt(rng)), MemberID: uint64(randInt(rng)), Revision: randInt(rng), RaftTerm: uint64(randInt(rng))}
	return h, &pb.ResponseHeader{ClusterId: h.ClusterID, MemberId: h.MemberID, Revision: h.Revision, RaftTerm: h.RaftTerm}
}

func randKV(rng *rand.Rand) (*KeyValue, *mvccpb.KeyValue) {
	kv := &KeyValue{Key: randBytes(rng), Create: randInt(rng), Mod: randInt(rng), Version: randInt(rng), Value: randBytes(rng), Lease: randInt(rng)}
	if rng.IntN(10) == 0 {
		kv.Value = make([]byte, referenceMin-2+rng.IntN(5000))
	}
	return kv, &mvccpb.KeyValue{
		Key: kv.Key, CreateRevision: kv.Create, ModRevision: kv.Mod, Version: kv.Version, Value: kv.Value, Lease: kv.Lease,
	}
}

// randResponse encodes a random response with this package and returns etcd's
// form of the same.
func randResponse(rng *rand.Rand) ([]byte, proto.Message) {
	h, ph := randHeader(rng)
	switch rng.IntN(12) {
	case 0:
		kv, want := randKV(rng)
		return AppendKeyValue(nil, kv), want
	case 1:
		want := &pb.PutResponse{Header: ph}
		var prev []byte
		if flip(rng) {
			kv, pkv := randKV(rng)
			prev, want.PrevKv = AppendKeyValue([]byte{}, kv), pkv
		}
		return AppendPutResponse(nil, h, prev), want
	case 2:
		return randDeleteResponse(rng, h, ph)
	case 3:
		return randRangeResponse(rng, h, ph)
	case 4:
		return AppendHeaderResponse(nil, h), &pb.CompactionResponse{Header: ph}
	case 5:
		id, ttl := randInt(rng), randInt(rng)
		return AppendLeaseGrantResponse(nil, h, id, ttl), &pb.LeaseGrantResponse{Header: ph, ID: id, TTL: ttl}
	case 6:
		id, ttl, granted := randInt(rng), randInt(rng), randInt(rng)
		keys := [][]byte{[]byte("a"), {}, []byte("bc")}
		return AppendLeaseTimeToLiveResponse(nil, h, id, ttl, granted, keys),
			&pb.LeaseTimeToLiveResponse{Header: ph, ID: id, TTL: ttl, GrantedTTL: granted, Keys: keys}
	case 7:
		want := &pb.LeaseLeasesResponse{Header: ph}
		var ids []int64
		for range rng.IntN(4) {
			ids = append(ids, randInt(rng))
			want.Leases = append(want.Leases, &pb.LeaseStatus{ID: ids[len(ids)-1]})
		}
		return AppendLeaseLeasesResponse(nil, h, ids), want
	case 8:
		a := AlarmMember{MemberID: rng.Uint64(), Alarm: AlarmType(rng.IntN(3))}
		return AppendAlarmResponse(nil, h, []AlarmMember{a, {}}),
			&pb.AlarmResponse{Header: ph, Alarms: []*pb.AlarmMember{{MemberID: a.MemberID, Alarm: pb.AlarmType(a.Alarm)}, {}}}
	case 9:
		hash, c, r := rng.Uint32(), randInt(rng), randInt(rng)
		return AppendHashKVResponse(nil, h, hash, c, r), &pb.HashKVResponse{Header: ph, Hash: hash, CompactRevision: c, HashRevision: r}
	case 10:
		id, ttl := randInt(rng), randInt(rng)
		return AppendLeaseKeepAliveResponse(nil, h, id, ttl), &pb.LeaseKeepAliveResponse{Header: ph, ID: id, TTL: ttl}
	default:
		want := &pb.TxnResponse{Header: ph, Succeeded: flip(rng)}
		got := AppendTxnResponse(nil, h, want.Succeeded)
		return randTxnResponse(rng, got, want, 4), want
	}
}

func randDeleteResponse(rng *rand.Rand, h Header, ph *pb.ResponseHeader) ([]byte, *pb.DeleteRangeResponse) {
	want := &pb.DeleteRangeResponse{Header: ph, Deleted: randInt(rng)}
	got := AppendDeleteRangeResponse(nil, h, want.Deleted)
	for range rng.IntN(3) {
		kv, pkv := randKV(rng)
		got = AppendKeyValueField(got, 3, kv)
		want.PrevKvs = append(want.PrevKvs, pkv)
	}
	return got, want
}

func randRangeResponse(rng *rand.Rand, h Header, ph *pb.ResponseHeader) ([]byte, *pb.RangeResponse) {
	want := &pb.RangeResponse{Header: ph, More: flip(rng), Count: randInt(rng)}
	c := NewChunkBuilder(rng.IntN(200))
	c.AppendWith(64, func(dst []byte) []byte { return AppendHeader(dst, 1, h) })
	for range rng.IntN(40) {
		kv, pkv := randKV(rng)
		c.AppendRaw(2, AppendKeyValue(nil, kv))
		want.Kvs = append(want.Kvs, pkv)
	}
	c.AppendWith(16, func(dst []byte) []byte { return AppendRangeTail(dst, want.More, want.Count) })
	return c.Finish().Bytes(), want
}

func randTxnResponse(rng *rand.Rand, got []byte, want *pb.TxnResponse, depth int) []byte {
	for range rng.IntN(4) {
		kind := OpKind(rng.IntN(5))
		if depth == 0 && kind == KindTxn {
			kind = KindNone
		}
		var m OpMark
		got, m = BeginResponseOp(got, kind)
		op := &pb.ResponseOp{}
		h, ph := randHeader(rng)
		switch kind {
		case KindRange:
			b, r := randRangeResponse(rng, h, ph)
			got, op.Response = append(got, b...), &pb.ResponseOp_ResponseRange{ResponseRange: r}
		case KindPut:
			got, op.Response = AppendPutResponse(got, h, nil), &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: ph}}
		case KindDeleteRange:
			b, r := randDeleteResponse(rng, h, ph)
			got, op.Response = append(got, b...), &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: r}
		case KindTxn:
			r := &pb.TxnResponse{Header: ph, Succeeded: flip(rng)}
			got = AppendTxnResponse(got, h, r.Succeeded)
			got = randTxnResponse(rng, got, r, depth-1)
			op.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: r}
		}
		got = EndResponseOp(got, m)
		want.Responses = append(want.Responses, op)
	}
	return got
}

// TestEncodersEqualProto: the same bytes as proto.Marshal, and so the same
// message.
func TestEncodersEqualProto(t *testing.T) {
	const seed = 77
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range 5000 {
		got, m := randResponse(rng)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("seed %d, response %d, %T %v:\n got %x\nwant %x", seed, i, m, m, got, want)
		}
	}
}

func TestRequestEncodersRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	for range 500 {
		grant := LeaseGrantRequest{TTL: randInt(rng), ID: randInt(rng)}
		var gotGrant LeaseGrantRequest
		if err := ParseLeaseGrant(AppendLeaseGrant(nil, grant), &gotGrant); err != nil || gotGrant != grant {
			t.Fatalf("grant %+v became %+v, %v", grant, gotGrant, err)
		}
		exp := LeaseExpiry{ID: randInt(rng), Epoch: rng.Uint64(), Term: uint64(randInt(rng))}
		var gotExp LeaseExpiry
		if err := ParseLeaseExpiry(AppendLeaseExpiry(nil, exp), &gotExp); err != nil || gotExp != exp {
			t.Fatalf("expiry %+v became %+v, %v", exp, gotExp, err)
		}
		alarm := AlarmRequest{Action: AlarmAction(rng.IntN(3)), MemberID: rng.Uint64(), Alarm: AlarmType(rng.IntN(3))}
		var gotAlarm AlarmRequest
		if err := ParseAlarm(AppendAlarm(nil, alarm), &gotAlarm); err != nil || gotAlarm != alarm {
			t.Fatalf("alarm %+v became %+v, %v", alarm, gotAlarm, err)
		}
		cp := LeaseCheckpoint{ID: randInt(rng), Remaining: randInt(rng), Epoch: rng.Uint64(), Term: rng.Uint64()}
		cps, err := ParseLeaseCheckpoints(AppendLeaseCheckpoint(AppendLeaseCheckpoint(nil, cp), LeaseCheckpoint{}), nil)
		if err != nil || len(cps) != 2 || cps[0] != cp || cps[1] != (LeaseCheckpoint{}) {
			t.Fatalf("checkpoint %+v became %+v, %v", cp, cps, err)
		}
		kv, _ := randKV(rng)
		var gotKV KeyValue
		raw := AppendKeyValue(nil, kv)
		if err := ParseKeyValue(raw, &gotKV); err != nil || !bytes.Equal(AppendKeyValue(nil, &gotKV), raw) || len(raw) != kv.Size() {
			t.Fatalf("key-value %+v became %+v, %v", kv, gotKV, err)
		}
	}
}

func TestWrapChunks(t *testing.T) {
	kv := &mvccpb.KeyValue{Key: []byte("k"), Value: make([]byte, 3*referenceMin)}
	raw := mustMarshal(kv)
	c := NewChunkBuilder(64)
	c.AppendRaw(2, raw)
	chunks := c.Finish()
	if &chunks[1][0] != &raw[0] {
		t.Error("a large key-value was copied")
	}
	got := WrapChunks(chunks, 1)
	want := mustMarshal(&pb.RangeStreamResponse{RangeResponse: &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{kv}}})
	if !bytes.Equal(got.Bytes(), want) || got.Size() != len(want) {
		t.Errorf("got %x\nwant %x", got.Bytes(), want)
	}
}

func TestHeaderRevision(t *testing.T) {
	h := Header{ClusterID: 1 << 60, MemberID: 7, Revision: 300, RaftTerm: 4}
	answer := AppendHeader(nil, 1, h)
	answer = append(answer, 0x12, 1, 'x')
	if got := HeaderRevision(answer); got != 300 {
		t.Errorf("revision %d, want 300", got)
	}
	for _, b := range [][]byte{nil, {0x12, 1, 'x'}, {0x0a}, {0x0a, 5, 0x18}, {0x0a, 2, 0x18, 0xff}, AppendHeader(nil, 1, Header{})} {
		if got := HeaderRevision(b); got != 0 {
			t.Errorf("%x: revision %d, want none", b, got)
		}
	}
}
