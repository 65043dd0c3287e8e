package watches

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

// flowMethod is where a node gets the events of segments that it does not hold.
const flowMethod = "/anchormesh.Watches/Flow"

var serviceDesc = grpc.ServiceDesc{
	ServiceName: "anchormesh.Watches",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "Flow", ServerStreams: true, ClientStreams: true,
		Handler: func(srv any, stream grpc.ServerStream) error { return srv.(*Watches).serve(stream) },
	}},
}

// Register adds what other nodes ask of this one to a server.
func (w *Watches) Register(s grpc.ServiceRegistrar) { s.RegisterService(&serviceDesc, w) }

// served is the threads that another node's weave has here.
type served struct {
	watches *Watches
	in      *inlets
	members map[*frontier]uint64
	marks   map[int64]string // the lines that threads were marked on

	mu     sync.Mutex
	local  *flows
	closed bool
}

// serve serves one stream of another node: this goroutine sends, another receives.
func (w *Watches) serve(stream grpc.ServerStream) error {
	in := &inlets{notify: make(chan struct{}, 1)}
	s := &served{watches: w, in: in, local: newFlows(w.host, in), members: make(map[*frontier]uint64), marks: make(map[int64]string)}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	defer s.close()
	go func() {
		defer cancel()
		s.receive(stream)
	}()
	for {
		s.mu.Lock()
		ev, ok := in.next()
		if came, is := ev.(weave.Came); is && came.Mark {
			ev = marked{came, s.marks[came.ID]}
		}
		s.mu.Unlock()
		if ok {
			if err := stream.SendMsg(encodeEvent(ev)); err != nil {
				return err
			}
			continue
		}
		select {
		case <-in.notify:
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *served) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.local.close()
	for f, id := range s.members {
		f.leave(id)
	}
}

// receive carries out orders until the stream ends or one cannot be read.
func (s *served) receive(stream grpc.ServerStream) {
	for {
		var m wrapperspb.BytesValue
		if err := stream.RecvMsg(&m); err != nil {
			return
		}
		o, err := parseOrder(m.GetValue())
		if err != nil {
			return
		}
		s.carryOut(o)
	}
}

func (s *served) carryOut(o order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
	case o.open != nil:
		if s.local.open(o.open.Segment, o.open.Request) != nil {
			s.local.fail(o.open.Request.ID)
		}
	case o.barrier != nil:
		s.barrier(o.over, *o.barrier)
	default:
		s.local.cancel(o.cancel)
		delete(s.marks, o.cancel)
	}
}

func (s *served) barrier(over bool, b weave.Barrier) {
	r, here := s.watches.host.Get(b.Segment)
	if !here {
		return // its hub has stopped: the threads have ended
	}
	f := s.watches.frontier([][]byte{r.Machine.Descriptor().Line}, over)
	id, joined := s.members[f]
	if !joined {
		id = f.join(s)
		s.members[f] = id
	}
	f.barrier(id, b)
}

// told implements member; threads of others ask nothing of the home here.
func (s *served) told(weave.Told, [][]byte) {}

// mark implements member.
func (s *served) mark(on *anchormesh.Descriptor, revision int64, threads []int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		for _, id := range threads {
			s.marks[id] = string(on.Line)
		}
		s.local.mark(on.Segment, on.Range, revision, threads)
	}
}
