package watches

import (
	"context"
	"math"
	"sync"

	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

// remoteBytes of events may wait on this node for a client that does not read; then
// the other node's hubs are not read any more.
const remoteBytes = 1 << 20

// remote is the threads of one weave that another node serves: one stream.
type remote struct {
	watches *Watches
	node    anchormesh.NodeID
	in      *inlets
	slot    slot
	cancelF context.CancelFunc
	threads map[int64]struct{} // the weave's lock guards it

	mu     sync.Mutex // taken inside the weave's
	queue  []weave.Event
	bytes  int
	room   chan struct{} // non-nil while the reader waits for room
	orders [][]byte
	more   chan struct{} // capacity 1: orders wait
	failed bool
}

func newRemote(w *Watches, node anchormesh.NodeID, in *inlets) *remote {
	r := &remote{watches: w, node: node, in: in, threads: make(map[int64]struct{}), more: make(chan struct{}, 1)}
	r.slot.source = r
	started := w.run(func(ctx context.Context) {
		ctx, cancel := context.WithCancel(ctx)
		r.mu.Lock()
		r.cancelF = cancel
		closed := r.failed
		r.mu.Unlock()
		defer cancel()
		if !closed {
			r.read(ctx, cancel)
		}
		r.fail()
	})
	if !started {
		r.failed = true
	}
	return r
}

// read takes what the other node sends until the stream ends.
func (r *remote) read(ctx context.Context, cancel context.CancelFunc) {
	conn, err := r.watches.peers.Conn(r.node)
	if err != nil {
		return
	}
	stream, err := conn.NewStream(ctx, &serviceDesc.Streams[0], flowMethod,
		grpc.ForceCodecV2(bytesCodec{}), grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32))
	if err != nil {
		return
	}
	r.watches.run(func(context.Context) {
		defer cancel()
		r.write(ctx, stream)
	})
	for {
		var b []byte
		if err := stream.RecvMsg(&b); err != nil {
			return
		}
		ev, err := parseEvent(b)
		if err != nil {
			r.watches.cfg.Logger.Warn("watch stream of another node refused", "from", r.node.Short(), "err", err)
			return
		}
		if !r.put(ctx, ev, len(b)) {
			return
		}
	}
}

// eventOverhead is what an event counts beyond its bytes.
const eventOverhead = 128

// put queues an event; it waits while the client has not read what came before.
func (r *remote) put(ctx context.Context, ev weave.Event, size int) bool {
	for {
		r.mu.Lock()
		if r.bytes < remoteBytes {
			r.queue = append(r.queue, ev)
			r.bytes += size + eventOverhead
			r.mu.Unlock()
			r.in.raise(&r.slot)
			return true
		}
		if r.room == nil {
			r.room = make(chan struct{})
		}
		room := r.room
		r.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return false
		}
	}
}

// write sends the orders.
func (r *remote) write(ctx context.Context, stream grpc.ClientStream) {
	for {
		r.mu.Lock()
		orders := r.orders
		r.orders = nil
		r.mu.Unlock()
		for _, b := range orders {
			if stream.SendMsg(b) != nil {
				return
			}
		}
		select {
		case <-r.more:
		case <-ctx.Done():
			return
		}
	}
}

func (r *remote) order(b []byte) {
	r.mu.Lock()
	if !r.failed {
		r.orders = append(r.orders, b)
	}
	r.mu.Unlock()
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// open begins a thread. If the stream has ended already, the thread breaks.
func (r *remote) open(o weave.Open) {
	r.threads[o.Request.ID] = struct{}{}
	r.order(appendOpen(nil, o))
	r.in.raise(&r.slot)
}

func (r *remote) cancel(id int64) {
	delete(r.threads, id)
	r.order(fields.AppendNumbers([]byte{msgCancel}, uint64(id)))
}

func (r *remote) barrier(over bool, b weave.Barrier) { r.order(appendBarrier(nil, over, b)) }

// fail ends the stream for good; what came before is still read.
func (r *remote) fail() {
	r.mu.Lock()
	r.failed, r.orders = true, nil
	r.mu.Unlock()
	r.in.raise(&r.slot)
}

// close ends the stream; nothing is read any more.
func (r *remote) close() {
	r.mu.Lock()
	r.failed, r.queue, r.orders = true, nil, nil
	cancel := r.cancelF
	r.mu.Unlock()
	clear(r.threads)
	if cancel != nil {
		cancel()
	}
}

// dead reports whether the stream has ended.
func (r *remote) dead() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

// poll returns what came for one of the threads, and at the end of the stream the
// threads that broke.
func (r *remote) poll() (weave.Event, bool) {
	for {
		ev, ended := r.pop()
		if ev == nil {
			if ended {
				for id := range r.threads {
					delete(r.threads, id)
					return weave.Broke{Thread: id}, true
				}
			}
			return nil, false
		}
		id, over := int64(0), true
		switch ev := ev.(type) {
		case weave.Broke:
			id = ev.Thread
		case weave.Came:
			id, over = ev.ID, ev.Canceled
		case marked:
			id, over = ev.ID, false
		}
		if _, mine := r.threads[id]; !mine {
			continue
		}
		if over {
			delete(r.threads, id)
		}
		return ev, true
	}
}

func (r *remote) pop() (ev weave.Event, ended bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return nil, r.failed
	}
	ev = r.queue[0]
	r.queue[0] = nil
	r.queue = r.queue[1:]
	if came, ok := ev.(weave.Came); ok {
		r.bytes -= came.Bytes
	}
	r.bytes -= eventOverhead
	if len(r.queue) == 0 {
		r.queue, r.bytes = nil, 0
	}
	if r.room != nil && r.bytes <= remoteBytes/2 {
		close(r.room)
		r.room = nil
	}
	return ev, false
}
