package dispatch

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/host"
)

// shown remembers, for each line of revisions, the largest number that this node put into
// the header of an answer.
type shown struct {
	mu    sync.Mutex
	lines atomic.Pointer[map[string]*atomic.Int64] // by the prefix of the line's scope; never changed, but replaced
}

// of returns the largest number shown of a line.
func (s *shown) of(line []byte) anchormesh.Revision {
	if m := s.lines.Load(); m != nil {
		if n := (*m)[string(line)]; n != nil {
			return n.Load()
		}
	}
	return 0
}

// note takes an answer in that is about to be given.
func (s *shown) note(line []byte, answer codec.Chunks) {
	if len(answer) == 0 {
		return
	}
	revision := codec.HeaderRevision(answer[0])
	n := s.entry(line)
	for {
		old := n.Load()
		if revision <= old || n.CompareAndSwap(old, revision) {
			return
		}
	}
}

func (s *shown) entry(line []byte) *atomic.Int64 {
	if m := s.lines.Load(); m != nil {
		if n := (*m)[string(line)]; n != nil {
			return n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*atomic.Int64)
	if m := s.lines.Load(); m != nil {
		maps.Copy(next, *m)
	}
	if next[string(line)] == nil {
		next[string(line)] = new(atomic.Int64)
	}
	s.lines.Store(&next)
	return next[string(line)]
}

// freshPatience bounds the wait of a serializable read for being as fresh as the answers
// before it. It is to be answered where nobody leads, too.
const freshPatience = 100 * time.Millisecond

// freshEnough returns the revision at which a serializable read of the replica here is
// answered, or zero for the newest that the replica has. A member of etcd never shows a
// revision below one that it showed before (clientv3/ordering relies on it); a replica of
// one segment of many stands where its segment was last written. So a barrier has to say that
// nothing came since, if it says it soon. floor is what the asking node has shown.
func (d *Dispatcher) freshEnough(ctx context.Context, r *host.Replica, desc *anchormesh.Descriptor, floor anchormesh.Revision) anchormesh.Revision {
	if r.Machine.State().Line == 0 {
		return 0
	}
	floor = max(floor, d.shown.of(desc.Line))
	if at, _ := r.Machine.Segment().Revision(); at >= floor {
		return 0
	}
	ctx, cancel := context.WithTimeout(ctx, freshPatience)
	defer cancel()
	if d.barrier(ctx, desc, floor) != nil {
		return 0
	}
	return floor
}
