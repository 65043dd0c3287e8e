package etcdapi

import (
	"context"
	"errors"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

func (s *Server) leaseService() service {
	return service{
		unary: map[string]unaryFunc{
			"LeaseGrant":      s.raw(MethodLeaseGrant),
			"LeaseRevoke":     s.raw(MethodLeaseRevoke),
			"LeaseTimeToLive": s.raw(MethodLeaseTimeToLive),
			"LeaseLeases":     s.raw(MethodLeaseLeases),
		},
		stream: map[string]grpc.StreamHandler{"LeaseKeepAlive": s.keepAlive},
	}.from(&pb.Lease_ServiceDesc)
}

// keepAliveBatchMax bounds the keep-alives of one stream that wait and are
// renewed together; a client with more in flight is not read from meanwhile.
const keepAliveBatchMax = 1024

// keepAlive answers keep-alives in order. All that came in while the last batch
// was renewed are the next batch: one check of leadership, however many.
func (s *Server) keepAlive(_ any, stream grpc.ServerStream) error {
	if err := s.admit(stream.Context(), s.node.LeasesLed); err != nil {
		return err
	}
	ctx, end := s.openStream(stream.Context())
	defer end(nil)
	if requiresLeader(ctx) {
		s.endWithoutLeader(ctx, s.node.LeasesLed, end)
	}
	box := newLeaseInbox()
	go box.receive(stream)
	for {
		ids, err := box.take(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return streamError(ctx, err)
		}
		if err := s.renew(ctx, stream, ids); err != nil {
			return streamError(ctx, err)
		}
	}
}

func (s *Server) renew(ctx context.Context, stream grpc.ServerStream, ids []int64) error {
	bounded, cancel := s.bound(ctx)
	defer cancel()
	header, ttls, err := s.leases.KeepAlive(bounded, ids)
	if err != nil {
		// A keep-alive is no log entry, but etcd words its timeout as a write's.
		return settle(ctx, true, err)
	}
	for i, id := range ids {
		answer := codec.AppendLeaseKeepAliveResponse(make([]byte, 0, 64), header, id, ttls[i])
		if err := stream.SendMsg(&frame{answer}); err != nil {
			return err
		}
	}
	return nil
}

// leaseInbox holds the keep-alives that arrived and were not taken yet.
type leaseInbox struct {
	mu     sync.Mutex
	ids    []int64
	err    error         // why no more will come
	filled chan struct{} // has a value when there is something to take
	room   chan struct{} // has a value when a full box was taken
}

func newLeaseInbox() *leaseInbox {
	return &leaseInbox{filled: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// receive fills the box until the stream ends, which it does at the latest when
// the handler returns.
func (b *leaseInbox) receive(stream grpc.ServerStream) {
	for {
		var in frame
		err := stream.RecvMsg(&in)
		var id int64
		if err == nil {
			if id, err = codec.ParseLeaseID(in.raw); err != nil {
				err = malformed(err)
			}
		}
		full := b.put(id, err)
		if err != nil {
			return
		}
		if full {
			select {
			case <-b.room:
			case <-stream.Context().Done():
			}
		}
	}
}

func (b *leaseInbox) put(id int64, err error) (full bool) {
	b.mu.Lock()
	if err == nil {
		b.ids = append(b.ids, id)
	}
	b.err = err
	full = len(b.ids) >= keepAliveBatchMax
	b.mu.Unlock()
	signal(b.filled)
	return full
}

// take waits for keep-alives and returns all there are; what arrived before the
// end of the stream comes before its error.
func (b *leaseInbox) take(ctx context.Context) ([]int64, error) {
	for {
		b.mu.Lock()
		ids, err := b.ids, b.err
		b.ids = nil
		b.mu.Unlock()
		if len(ids) > 0 {
			if len(ids) >= keepAliveBatchMax {
				signal(b.room)
			}
			return ids, nil
		}
		if err != nil {
			return nil, err
		}
		select {
		case <-b.filled:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
