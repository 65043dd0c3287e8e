package etcdapi

import (
	"context"
	"errors"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// fakeStream feeds messages to a stream handler and takes what it sends.
type fakeStream struct {
	grpc.ServerStream
	ctx context.Context
	in  [][]byte
	c   wireCodec
	out [][]byte
}

func (f *fakeStream) Context() context.Context { return f.ctx }

func (f *fakeStream) RecvMsg(m any) error {
	if len(f.in) == 0 {
		return io.ErrUnexpectedEOF
	}
	raw := f.in[0]
	f.in = f.in[1:]
	return f.c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(raw)}, m)
}

func (f *fakeStream) SendMsg(m any) error {
	b, err := f.c.Marshal(m)
	f.out = append(f.out, b.Materialize())
	return err
}

// Any bytes sent to any method end in an answer or an error, never in a panic,
// and an answer is a message.
func FuzzRequests(f *testing.F) {
	seeds := []proto.Message{
		&pb.RangeRequest{Key: []byte("a"), RangeEnd: []byte{0}, Limit: 3},
		&pb.PutRequest{Key: []byte("a"), Value: []byte("v"), PrevKv: true},
		&pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("c")},
		&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a")}}, Success: ops(put("a"), del("b", "c"), nest(ops(put("d")), ops(get("e"))))},
		&pb.CompactionRequest{Revision: 1},
		&pb.LeaseGrantRequest{TTL: 4},
		&pb.AlarmRequest{Action: 1, Alarm: 2},
		&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1}}},
		&pb.HashKVRequest{Revision: 4},
	}
	for i, m := range seeds {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		for method := range byte(32) {
			f.Add(method, raw, []byte{byte(i)})
		}
	}
	f.Fuzz(func(t *testing.T, method byte, first, second []byte) {
		s := newStub(t)
		srv, err := New(DefaultConfig(), s.backends())
		if err != nil {
			t.Fatal(err)
		}
		defer srv.grpc.Stop()
		var methods []grpc.MethodDesc
		var streams []grpc.StreamDesc
		for _, svc := range []service{srv.kvService(), srv.watchService(), srv.leaseService(), srv.clusterService(), srv.maintenanceService(), srv.authService()} {
			d := svc.desc(Listener{})
			methods, streams = append(methods, d.Methods...), append(streams, d.Streams...)
		}
		ctx, cancel := context.WithCancel(metadata.NewIncomingContext(context.Background(), metadata.Pairs("hasleader", "true", "client-api-version", string(second))))
		defer cancel()
		if i := int(method) % (len(methods) + len(streams)); i >= len(methods) {
			stream := &fakeStream{ctx: ctx, in: [][]byte{first, second}, c: srv.codec}
			err := streams[i-len(methods)].Handler(srv, stream)
			if err == nil {
				return
			}
			if _, ok := status.FromError(err); !ok && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s ends with %v, which is no status", streams[i-len(methods)].StreamName, err)
			}
		} else {
			m := methods[i]
			answer, err := m.Handler(srv, ctx, func(v any) error {
				return srv.codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer(first)}, v)
			}, nil)
			if err == nil {
				if _, err := srv.codec.Marshal(answer); err != nil {
					t.Errorf("%s: %v", m.MethodName, err)
				}
			} else if chunks, ok := answer.(codec.Chunks); ok && chunks != nil {
				t.Errorf("%s: an answer and %v", m.MethodName, err)
			}
		}
	})
}
