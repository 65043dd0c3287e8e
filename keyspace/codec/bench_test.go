package codec

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

var (
	benchPut = mustMarshal(&pb.PutRequest{Key: []byte("/registry/pods/default/web-0"), Value: make([]byte, 256), Lease: 123456789})
	benchTxn = mustMarshal(kubernetesTxn(make([]byte, 1024)))
)

// kubernetesTxn is the optimistic update that Kubernetes' API server sends.
func kubernetesTxn(value []byte) *pb.TxnRequest {
	key := []byte("/registry/pods/default/web-0")
	return &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: key, Result: pb.Compare_EQUAL, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 1234},
		}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	}
}

func BenchmarkParsePut(b *testing.B) {
	b.ReportAllocs()
	var r PutRequest
	for b.Loop() {
		if err := ParsePut(benchPut, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParsePutProto(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var r pb.PutRequest
		if err := proto.Unmarshal(benchPut, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTxn(b *testing.B) {
	b.ReportAllocs()
	var r TxnRequest
	for b.Loop() {
		if err := ParseTxn(benchTxn, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseTxnProto(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		var r pb.TxnRequest
		if err := proto.Unmarshal(benchTxn, &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendPutResponse(b *testing.B) {
	b.ReportAllocs()
	h := Header{ClusterID: 1 << 60, MemberID: 1 << 61, Revision: 1 << 20, RaftTerm: 3}
	var dst []byte
	for b.Loop() {
		dst = AppendPutResponse(dst[:0], h, nil)
	}
}

func BenchmarkRange500Chunks(b *testing.B) {
	b.ReportAllocs()
	raw := AppendKeyValue(nil, &KeyValue{Key: []byte("/registry/pods/default/web-0"), Create: 100, Mod: 200, Version: 3, Value: make([]byte, 256)})
	for b.Loop() {
		c := NewChunkBuilder(bufferSize)
		for range 500 {
			c.AppendRaw(2, raw)
		}
		if c.Finish().Size() == 0 {
			b.Fatal("empty")
		}
	}
}
