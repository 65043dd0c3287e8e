package route

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
)

// Table maps keys to descriptors. Lookups take no lock; changes are rare.
type Table struct {
	mu      sync.Mutex
	current atomic.Pointer[snapshot]
	changed chan struct{} // closed and replaced at each change
}

// snapshot is immutable; segments are sorted by the start of their range.
type snapshot struct {
	segments []*anchormesh.Descriptor
	leaders  map[anchormesh.SegmentID]anchormesh.NodeID
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{changed: make(chan struct{})}
	t.current.Store(&snapshot{leaders: map[anchormesh.SegmentID]anchormesh.NodeID{}})
	return t
}

// Lookup returns the segment that holds key.
func (t *Table) Lookup(key []byte) (*anchormesh.Descriptor, bool) {
	list := t.current.Load().segments
	i, found := slices.BinarySearchFunc(list, key, func(d *anchormesh.Descriptor, key []byte) int {
		return bytes.Compare(d.Range.Start, key)
	})
	if !found {
		i--
	}
	if i < 0 || !list[i].Range.Contains(key) {
		return nil, false
	}
	return list[i], true
}

// Covering returns the segments that keys touches, in key order, and whether
// they leave no hole.
func (t *Table) Covering(keys anchormesh.KeyRange) ([]*anchormesh.Descriptor, bool) {
	var out []*anchormesh.Descriptor
	next, whole := keys.Start, false
	for _, d := range t.current.Load().segments {
		if !d.Range.Overlaps(keys) {
			continue
		}
		if bytes.Compare(d.Range.Start, next) > 0 {
			return out, false
		}
		out = append(out, d)
		next = d.Range.End
		whole = len(next) == 0 || (len(keys.End) > 0 && bytes.Compare(next, keys.End) >= 0)
	}
	return out, whole
}

// Segment returns what is known of a segment.
func (t *Table) Segment(id anchormesh.SegmentID) (*anchormesh.Descriptor, bool) {
	for _, d := range t.current.Load().segments {
		if d.Segment == id {
			return d, true
		}
	}
	return nil, false
}

// All returns every known descriptor in key order. It must not be modified.
func (t *Table) All() []*anchormesh.Descriptor { return t.current.Load().segments }

// Leader returns the node that was last seen leading a segment.
func (t *Table) Leader(id anchormesh.SegmentID) (anchormesh.NodeID, bool) {
	node, ok := t.current.Load().leaders[id]
	return node, ok
}

// Changed returns a channel that is closed at the next change.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

// Learn takes a descriptor in if it is news, and reports whether it was.
func (t *Table) Learn(d *anchormesh.Descriptor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.current.Load()
	next := make([]*anchormesh.Descriptor, 0, len(old.segments)+1)
	for _, o := range old.segments {
		switch {
		case o.Segment == d.Segment:
			if !d.Newer(o) {
				return false
			}
		case o.Range.Overlaps(d.Range):
			if o.Generation >= d.Generation {
				return false
			}
		default:
			next = append(next, o)
		}
	}
	next = append(next, d)
	slices.SortFunc(next, func(a, b *anchormesh.Descriptor) int { return bytes.Compare(a.Range.Start, b.Range.Start) })
	t.replace(&snapshot{segments: next, leaders: old.leaders})
	return true
}

// SetLeader notes who leads a segment; empty forgets it.
func (t *Table) SetLeader(id anchormesh.SegmentID, node anchormesh.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.current.Load()
	if old.leaders[id] == node {
		return
	}
	leaders := make(map[anchormesh.SegmentID]anchormesh.NodeID, len(old.leaders)+1)
	for k, v := range old.leaders {
		leaders[k] = v
	}
	if node == "" {
		delete(leaders, id)
	} else {
		leaders[id] = node
	}
	t.replace(&snapshot{segments: old.segments, leaders: leaders})
}

// ForgetNode forgets that a node leads anything: it cannot be reached.
func (t *Table) ForgetNode(node anchormesh.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.current.Load()
	leaders := make(map[anchormesh.SegmentID]anchormesh.NodeID, len(old.leaders))
	for id, leader := range old.leaders {
		if leader != node {
			leaders[id] = leader
		}
	}
	if len(leaders) < len(old.leaders) {
		t.replace(&snapshot{segments: old.segments, leaders: leaders})
	}
}

func (t *Table) replace(s *snapshot) {
	t.current.Store(s)
	close(t.changed)
	t.changed = make(chan struct{})
}

// Askable returns the nodes of a segment's voters: those that are connected, or
// all if none is. To dial a node that is gone can take seconds.
func Askable(d *anchormesh.Descriptor, connected func(anchormesh.NodeID) bool) []anchormesh.NodeID {
	var all, reachable []anchormesh.NodeID
	for _, v := range d.Voters() {
		all = append(all, v.Node)
		if connected(v.Node) {
			reachable = append(reachable, v.Node)
		}
	}
	if len(reachable) > 0 {
		return reachable
	}
	return all
}
