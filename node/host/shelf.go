package host

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
)

// shelf holds the replicas that run here. Requests look one up without a lock; to put
// one up or take one down copies a part, not all of ten thousand. It is changed by one
// at a time.
type shelf struct {
	parts [shelfParts]atomic.Pointer[map[anchormesh.SegmentID]*Replica]
	// version counts changes.
	version atomic.Uint64
	list    atomic.Pointer[listed]
}

// listed is what was held at a version.
type listed struct {
	version uint64
	ids     []anchormesh.SegmentID
}

const shelfParts = 128

func (s *shelf) part(id anchormesh.SegmentID) *atomic.Pointer[map[anchormesh.SegmentID]*Replica] {
	return &s.parts[uint64(id)%shelfParts]
}

func (s *shelf) get(id anchormesh.SegmentID) (*Replica, bool) {
	m := s.part(id).Load()
	if m == nil {
		return nil, false
	}
	r, ok := (*m)[id]
	return r, ok
}

// put puts a replica up; nil takes it down.
func (s *shelf) put(id anchormesh.SegmentID, r *Replica) {
	next := make(map[anchormesh.SegmentID]*Replica)
	if old := s.part(id).Load(); old != nil {
		next = maps.Clone(*old)
	}
	if r == nil {
		delete(next, id)
	} else {
		next[id] = r
	}
	s.part(id).Store(&next)
	s.version.Add(1)
}

// ids returns what is held, sorted; the same slice until something changes, which
// nobody may modify.
func (s *shelf) ids() []anchormesh.SegmentID {
	now := s.version.Load()
	if l := s.list.Load(); l != nil && l.version == now {
		return l.ids
	}
	all := []anchormesh.SegmentID{}
	s.each(func(id anchormesh.SegmentID, _ *Replica) { all = append(all, id) })
	slices.Sort(all)
	s.list.Store(&listed{version: now, ids: all}) // what came meanwhile has another version
	return all
}

// each visits what is held, in no order.
func (s *shelf) each(visit func(anchormesh.SegmentID, *Replica)) {
	for i := range s.parts {
		if m := s.parts[i].Load(); m != nil {
			for id, r := range *m {
				visit(id, r)
			}
		}
	}
}

// marks names replicas that somebody has to look after, so that nobody looks through
// all of them for it.
type marks struct {
	mu  sync.Mutex
	ids map[anchormesh.SegmentID]struct{}
}

func (m *marks) set(id anchormesh.SegmentID, on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !on {
		delete(m.ids, id)
		return
	}
	if m.ids == nil {
		m.ids = make(map[anchormesh.SegmentID]struct{})
	}
	m.ids[id] = struct{}{}
}

func (m *marks) list() []anchormesh.SegmentID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.ids) == 0 {
		return nil
	}
	return slices.Sorted(maps.Keys(m.ids))
}
