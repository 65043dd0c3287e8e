package etcdapi

import (
	"context"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/signed"
)

func (s *Server) kvService() service {
	return service{
		unary: map[string]unaryFunc{
			"Range":       s.raw(MethodRange),
			"Put":         s.raw(MethodPut),
			"DeleteRange": s.raw(MethodDeleteRange),
			"Txn":         s.raw(MethodTxn),
			"Compact":     s.raw(MethodCompact),
		},
		stream: map[string]grpc.StreamHandler{"RangeStream": s.rangeStream},
	}.from(&pb.KV_ServiceDesc)
}

// raw is the hot path: the request stays in the bytes it came in, the answer in
// the bytes the backend made.
func (s *Server) raw(m Method) unaryFunc {
	return func(ctx context.Context, dec func(any) error) (any, error) {
		call := &Call{Method: m}
		if err := dec(call); err != nil {
			return nil, err
		}
		answer, err := s.do(ctx, call)
		if err != nil {
			return nil, err // a nil Chunks in an any would be an answer
		}
		return answer, nil
	}
}

// do checks, runs and translates one call. The error is a gRPC status.
func (s *Server) do(ctx context.Context, call *Call) (codec.Chunks, error) {
	if err := s.checker.check(call); err != nil {
		return nil, err
	}
	if err := s.admit(ctx, func() bool { return s.led(call) }); err != nil {
		return nil, err
	}
	if call.Write {
		call.From = origin(ctx)
	}
	bounded, cancel := s.bound(ctx)
	defer cancel()
	answer, err := s.requests.Do(bounded, call)
	if err != nil {
		return nil, toWire(settle(ctx, call.Write, err))
	}
	return answer, nil
}

// origin is who gave a request: the libp2p peer whose connection it came on, if it did,
// and the proof that came with it. Nobody has a user name as long as authentication is
// off.
func origin(ctx context.Context) (o keyspace.Origin) {
	if p, ok := peer.FromContext(ctx); ok && p.Addr.Network() == "libp2p" {
		addr := p.Addr.String()
		o.Peer = addr[strings.LastIndexByte(addr, '/')+1:]
	}
	if proof := metadata.ValueFromIncomingContext(ctx, signed.Metadata); len(proof) == 1 && len(proof[0]) == signed.ProofBytes {
		o.Proof = []byte(proof[0])
	}
	return o
}

// bound gives a request its time limit. A client that waits no longer than that
// spares the server a second timer, 6 % of a put's cost here.
func (s *Server) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if d, ok := ctx.Deadline(); ok && time.Until(d) <= s.timeout {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.timeout)
}

func (s *Server) led(call *Call) bool {
	if call.Method.ofLeases() {
		return s.node.LeasesLed()
	}
	return s.node.KeysLed(call.Keys)
}
