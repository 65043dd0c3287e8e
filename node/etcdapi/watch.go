package etcdapi

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

func (s *Server) watchService() service {
	return service{
		stream: map[string]grpc.StreamHandler{"Watch": s.watch},
	}.from(&pb.Watch_ServiceDesc)
}

// watch serves one Watch stream with two goroutines: this one sends, the other
// receives. Where the stream is served, here or on an anchor node, is decided by
// its first watch.
func (s *Server) watch(_ any, stream grpc.ServerStream) error {
	if err := s.admit(stream.Context(), func() bool { return true }); err != nil {
		return err
	}
	ctx, end := s.openStream(stream.Context())
	defer end(nil)
	w := &watchSession{server: s, stream: stream, end: end, placed: make(chan struct{})}
	defer w.close()
	go w.receive(ctx)
	select {
	case <-w.placed:
	case <-ctx.Done():
		return watchError(ctx, ctx.Err())
	}
	if w.upstream != nil {
		return w.relay(ctx)
	}
	return w.send(ctx)
}

// watchError is streamError, with etcd's word for a client that went away.
func watchError(ctx context.Context, err error) error {
	if errors.Is(streamCause(ctx, err), context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return streamError(ctx, err)
}

// watchSession is one Watch stream.
type watchSession struct {
	server *Server
	stream grpc.ServerStream
	end    func(error)
	placed chan struct{} // closed when watches or upstream is set

	upstream grpc.ClientStream // an anchor node's stream, if this one is relayed

	// sending serialises what is sent, and guards creates. It is held while a
	// slow client blocks, so nobody who must not wait may take it.
	sending sync.Mutex
	creates []pendingCreate // in the order in which the client asked

	mu      sync.Mutex  // taken inside sending, never around it
	watches WatchStream // the watches, if they are served here
	closed  bool
	leading map[int64]*leader // by watch, of a require-leader stream
}

// pendingCreate is a create request whose response was not sent yet. Responses
// go out in the order of the requests, because clients match them by it.
type pendingCreate struct {
	keys    anchormesh.KeyRange
	refusal *pb.WatchResponse // nil: Next brings the response
}

// leader is what a require-leader stream knows of one watch.
type leader struct {
	keys   anchormesh.KeyRange
	missed int    // election timeouts without a leader, in a row
	reason string // set when the watch was cancelled for that
}

// close ends the watches, now or as soon as they are placed.
func (w *watchSession) close() {
	w.mu.Lock()
	w.closed = true
	watches := w.watches
	w.mu.Unlock()
	if watches != nil {
		watches.Close()
	}
}

// receive takes the client's requests until the stream ends. A client that only
// closes its sending side goes on being served, as in etcd.
func (w *watchSession) receive(ctx context.Context) {
	for {
		in := new(frame)
		err := w.stream.RecvMsg(in)
		if err == nil {
			err = w.handle(ctx, in)
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF):
			if w.upstream != nil {
				w.upstream.CloseSend()
			}
		default:
			w.end(served(err))
		}
		return
	}
}

// handle acts on one request; an error ends the stream.
func (w *watchSession) handle(ctx context.Context, in *frame) error {
	if w.upstream != nil {
		return relayed(w.upstream.SendMsg(in))
	}
	var req pb.WatchRequest
	if err := proto.Unmarshal(in.raw, &req); err != nil {
		return status.Errorf(codes.Internal, "grpc: failed to unmarshal the received message: %v", err)
	}
	switch r := req.RequestUnion.(type) {
	case *pb.WatchRequest_CreateRequest:
		return w.create(ctx, r.CreateRequest, in)
	case *pb.WatchRequest_CancelRequest:
		if w.watches != nil {
			w.watches.Cancel(r.CancelRequest.GetWatchId())
		}
	case *pb.WatchRequest_ProgressRequest:
		if w.watches != nil {
			w.watches.RequestProgress()
		}
	}
	return nil // a request of a later API is ignored, as in etcd
}

func (w *watchSession) create(ctx context.Context, r *pb.WatchCreateRequest, in *frame) error {
	if len(r.GetKey()) == 0 {
		r.Key = []byte{0} // the smallest key
	}
	keys := anchormesh.RequestRange(r.Key, r.RangeEnd)
	if w.watches == nil {
		if err := w.place(ctx, keys, in); err != nil || w.upstream != nil {
			return err
		}
	}
	if r.StartRevision < 0 {
		// The stream refuses it as well, once it has caught up with what the client
		// wrote through this node: the revision in the answer must not be older.
		if _, _, err := w.watches.Create(ctx, watch.Request{Range: keys, StartRevision: r.StartRevision}); err == nil {
			panic("etcdapi: a watch from a negative revision was taken")
		}
		w.refuse(rpctypes.ErrCompacted)
		return nil
	}
	w.expect(pendingCreate{keys: keys})
	req := watch.Request{
		ID:             r.WatchId,
		Range:          keys,
		StartRevision:  r.StartRevision,
		PrevKV:         r.PrevKv,
		ProgressNotify: r.ProgressNotify,
		Fragment:       r.Fragment,
	}
	for _, f := range r.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			req.NoPut = true
		case pb.WatchCreateRequest_NODELETE:
			req.NoDelete = true
		}
	}
	_, _, err := w.watches.Create(ctx, req)
	if errors.Is(err, watch.ErrEmptyRange) || errors.Is(err, watch.ErrDuplicateID) {
		w.unexpect()
		w.refuse(err)
		return nil
	}
	return err
}

// place finds out who serves the stream and starts that.
func (w *watchSession) place(ctx context.Context, keys anchormesh.KeyRange, in *frame) error {
	needsLeader := requiresLeader(ctx)
	watches, err := w.server.watches.Open(ctx, keys)
	if errors.Is(err, ErrNotAnchor) {
		w.upstream, err = w.server.openUpstream(ctx, keys, in)
		if err == nil {
			close(w.placed)
		}
		return err
	}
	if err != nil {
		return err
	}
	if needsLeader && !w.server.node.KeysLed(keys) {
		watches.Close()
		return rpctypes.ErrGRPCNoLeader
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		watches.Close()
		return context.Canceled
	}
	w.watches = watches
	if needsLeader {
		w.leading = make(map[int64]*leader)
		w.server.everyElection(ctx, w.checkLeaders)
	}
	close(w.placed)
	return nil
}

// expect notes a create before its Created response can come.
func (w *watchSession) expect(p pendingCreate) {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.creates = append(w.creates, p)
}

func (w *watchSession) unexpect() {
	w.sending.Lock()
	defer w.sending.Unlock()
	w.creates = w.creates[:len(w.creates)-1]
}

// refuse answers a create request in its turn.
func (w *watchSession) refuse(reason error) {
	h := w.server.node.Header()
	w.expect(pendingCreate{refusal: &pb.WatchResponse{
		Header:       responseHeader(h),
		WatchId:      watch.StreamID,
		Created:      true,
		Canceled:     true,
		CancelReason: reason.Error(),
	}})
	w.sending.Lock()
	defer w.sending.Unlock()
	if err := w.sendRefusalsLocked(); err != nil {
		w.end(err)
	}
}

// sendRefusalsLocked sends the refusals whose turn it is.
func (w *watchSession) sendRefusalsLocked() error {
	for len(w.creates) > 0 && w.creates[0].refusal != nil {
		if err := w.stream.SendMsg(w.creates[0].refusal); err != nil {
			return err
		}
		w.creates = w.creates[1:]
	}
	return nil
}

// send hands responses to the client until the stream ends.
func (w *watchSession) send(ctx context.Context) error {
	for {
		r, err := w.watches.Next(ctx)
		if err != nil {
			return watchError(ctx, served(err))
		}
		if r.Canceled && r.Reason != nil && finalReason(r.Reason) == "" {
			// The watch goes on elsewhere. A cancel response would end it in the
			// client; the end of the stream makes the client resume it.
			return watchError(ctx, served(r.Reason))
		}
		if err := w.deliver(&r); err != nil {
			return watchError(ctx, err)
		}
	}
}

// finalReason is what a client is told of a watch that ends for good, or empty if it
// can go on elsewhere.
func finalReason(err error) string {
	switch {
	case errors.Is(err, weave.ErrNoLeader):
		return rpctypes.ErrGRPCNoLeader.Error()
	case errors.Is(err, weave.ErrPromise):
		return err.Error() // to resume would hide what was missed
	}
	return ""
}

// served gives the end of a hub that nobody gave a reason for etcd's class of
// errors on which clients reconnect.
func served(err error) error {
	if Status(err).Code() == codes.Unknown {
		return ErrNotAnchor
	}
	return err
}

// deliver sends one response.
func (w *watchSession) deliver(r *watch.Response) error {
	w.sending.Lock()
	defer w.sending.Unlock()
	var created pendingCreate
	if r.Created {
		created, w.creates = w.creates[0], w.creates[1:]
	}
	out := watchEncoder{header: w.server.node.Header(), limit: w.server.cfg.MaxRequestBytes + overheadBytes}
	if err := out.send(r, w.track(r, created.keys), w.stream.SendMsg); err != nil {
		return err
	}
	return w.sendRefusalsLocked()
}

// track notes that a watch began or ended, where leaders matter, and returns why
// it was cancelled if it cannot go on elsewhere.
func (w *watchSession) track(r *watch.Response, keys anchormesh.KeyRange) (reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r.Canceled {
		reason = finalReason(r.Reason)
	}
	switch l := w.leading[r.ID]; {
	case w.leading == nil:
	case r.Created:
		w.leading[r.ID] = &leader{keys: keys}
	case r.Canceled && l != nil:
		reason = cmp.Or(l.reason, reason)
		delete(w.leading, r.ID)
	}
	return reason
}

// checkLeaders cancels the watches that had no leader for too long, or ends the
// stream when it has no others.
func (w *watchSession) checkLeaders() {
	w.mu.Lock()
	var lost []int64
	for id, l := range w.leading {
		if l.missed++; w.server.node.KeysLed(l.keys) {
			l.missed = 0
		}
		if l.missed >= leaderlessMax {
			lost = append(lost, id)
		}
	}
	all := len(lost) == len(w.leading)
	if len(lost) > 0 && !all {
		for _, id := range lost {
			w.leading[id].reason = rpctypes.ErrGRPCNoLeader.Error()
		}
	}
	w.mu.Unlock()
	switch {
	case len(lost) == 0:
	case all:
		w.end(rpctypes.ErrGRPCNoLeader)
	default:
		for _, id := range lost {
			w.watches.Cancel(id)
		}
	}
}
