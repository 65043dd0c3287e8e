package etcdapi

import (
	"context"
	"errors"
	"io"
	"math"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/anchormesh/anchormesh"
)

// relayedKey marks a stream or request that another node passed on. It is not
// passed on again: two nodes with stale routes would send it in a circle.
const relayedKey = "anchormesh-relayed"

// Relay returns the context in which a client's request is passed on to another
// node, or false if it was passed on to this one already.
func Relay(ctx context.Context) (context.Context, bool) {
	if len(metadata.ValueFromIncomingContext(ctx, relayedKey)) > 0 {
		return nil, false
	}
	return metadata.NewOutgoingContext(ctx, metadata.Pairs(relayedKey, "1")), true
}

// openUpstream passes a stream on to a node that can serve it, first request
// included. Messages pass through as bytes.
func (s *Server) openUpstream(ctx context.Context, keys anchormesh.KeyRange, first *frame) (grpc.ClientStream, error) {
	if len(metadata.ValueFromIncomingContext(ctx, relayedKey)) > 0 {
		return nil, ErrNotAnchor
	}
	conn, err := s.watches.Forward(ctx, keys)
	if err != nil {
		return nil, err
	}
	md := metadata.Pairs(relayedKey, "1")
	for _, key := range []string{rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataClientAPIVersionKey, rpctypes.TokenFieldNameGRPC} {
		md.Set(key, metadata.ValueFromIncomingContext(ctx, key)...)
	}
	upstream, err := conn.NewStream(metadata.NewOutgoingContext(ctx, md), &pb.Watch_ServiceDesc.Streams[0], pb.Watch_Watch_FullMethodName,
		grpc.ForceCodecV2(s.codec), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32))
	if err != nil {
		return nil, err
	}
	return upstream, relayed(upstream.SendMsg(first))
}

// relayed drops the io.EOF by which gRPC says that an upstream stream is over:
// its status is read by relay.
func relayed(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// relay sends what the upstream stream brings.
func (w *watchSession) relay(ctx context.Context) error {
	for {
		var out frame
		err := w.upstream.RecvMsg(&out)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return watchError(ctx, err)
		}
		if err := w.stream.SendMsg(&out); err != nil {
			return err
		}
	}
}
