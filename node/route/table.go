package route

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
)

// Limits of a table.
const (
	SegmentsMax   = 1 << 17
	TombstonesMax = 4096
)

// Table maps keys to descriptors. Lookups take no lock; changes are rare.
type Table struct {
	current  atomic.Pointer[snapshot]
	segments sync.Map // SegmentID to its newest *Descriptor; buried ones are missing
	leaders  sync.Map // SegmentID to NodeID

	follows func(anchormesh.SegmentID) anchormesh.NodeID // see Follow

	mu      sync.Mutex
	known   map[anchormesh.SegmentID]*known
	led     map[anchormesh.NodeID]map[anchormesh.SegmentID]bool
	buried  graves
	journal journal
	changed chan struct{} // closed at the next change; nil if nobody waits
}

// known counts the parts that are routed to a segment: to its newest descriptor,
// and to older ones where others' descriptors are missing.
type known struct {
	newest     *anchormesh.Descriptor
	wins, left int
}

// snapshot is a cover and the list that All returns of it, made when asked for.
type snapshot struct {
	cover
	once sync.Once
	all  []*anchormesh.Descriptor
}

// NewTable returns an empty table.
func NewTable() *Table {
	t := &Table{
		follows: func(anchormesh.SegmentID) anchormesh.NodeID { return "" },
		known:   make(map[anchormesh.SegmentID]*known), led: make(map[anchormesh.NodeID]map[anchormesh.SegmentID]bool),
		buried: graves{byID: make(map[anchormesh.SegmentID]*grave), released: make(map[anchormesh.SegmentID]bool)},
	}
	t.current.Store(&snapshot{})
	return t
}

// Lookup returns the segment that key is routed to.
func (t *Table) Lookup(key []byte) (*anchormesh.Descriptor, bool) {
	if p, ok := t.current.Load().lookup(key); ok {
		return p.Descriptor, true
	}
	return nil, false
}

// Before returns where the last key below key is routed.
func (t *Table) Before(key []byte) (*anchormesh.Descriptor, bool) {
	if p, ok := t.current.Load().before(key); ok {
		return p.Descriptor, true
	}
	return nil, false
}

// Parts returns where the keys of a range are routed, in key order and clipped
// to the range, up to the first hole, and whether there is none.
func (t *Table) Parts(keys anchormesh.KeyRange) ([]Part, bool) { return t.current.Load().parts(keys) }

// Covering returns the segments that keys touches, each descriptor once, in key
// order up to the first hole, and whether there is none.
func (t *Table) Covering(keys anchormesh.KeyRange) ([]*anchormesh.Descriptor, bool) {
	parts, whole := t.Parts(keys)
	out := make([]*anchormesh.Descriptor, 0, len(parts))
	seen := make(map[*anchormesh.Descriptor]bool, len(parts))
	for _, p := range parts {
		if !seen[p.Descriptor] {
			seen[p.Descriptor] = true
			out = append(out, p.Descriptor)
		}
	}
	return out, whole
}

// Segment returns the newest that is known of a segment, if any key is routed to
// it and it is not buried.
func (t *Table) Segment(id anchormesh.SegmentID) (*anchormesh.Descriptor, bool) {
	if d, ok := t.segments.Load(id); ok {
		return d.(*anchormesh.Descriptor), true
	}
	return nil, false
}

// All returns the newest descriptor of each segment that any key is routed to,
// in key order. It must not be modified.
func (t *Table) All() []*anchormesh.Descriptor {
	s := t.current.Load()
	s.once.Do(func() {
		newest := make(map[anchormesh.SegmentID]*anchormesh.Descriptor)
		for _, chunk := range s.chunks {
			for _, p := range chunk {
				if o := newest[p.Descriptor.Segment]; o == nil || p.Descriptor.Newer(o) {
					newest[p.Descriptor.Segment] = p.Descriptor
				}
			}
		}
		for _, d := range newest {
			s.all = append(s.all, d)
		}
		slices.SortFunc(s.all, func(a, b *anchormesh.Descriptor) int {
			if c := bytes.Compare(a.Range.Start, b.Range.Start); c != 0 {
				return c
			}
			return cmp.Compare(b.Generation, a.Generation)
		})
	})
	return s.all
}

// Changed returns a channel that is closed at the next change.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// tellLocked closes what Changed returned.
func (t *Table) tellLocked() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// Learn takes a descriptor in, and reports whether any key is routed by it now.
func (t *Table) Learn(d *anchormesh.Descriptor) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := t.known[d.Segment]
	switch {
	case d.Range.Empty() || k == nil && len(t.known) >= SegmentsMax:
		return false
	case k != nil && k.newest.Generation == d.Generation && k.newest.Changed == d.Changed:
		return false // heard before: the most frequent case
	}
	next, gone, come := t.current.Load().put(d)
	switch {
	case k != nil && d.Newer(k.newest):
		*k = known{newest: d, left: k.wins + k.left}
		t.noteLocked(d.Segment)
	case k == nil && len(come) > 0:
		t.known[d.Segment] = &known{newest: d}
	}
	if len(come) == 0 {
		return false
	}
	t.countLocked(gone, -1)
	t.countLocked(come, 1)
	t.noteLocked(d.Segment)
	for _, p := range gone {
		t.noteLocked(p.Descriptor.Segment)
	}
	t.current.Store(&snapshot{cover: next})
	t.tellLocked()
	return true
}

func (t *Table) countLocked(parts []Part, by int) {
	for _, p := range parts {
		if k := t.known[p.Descriptor.Segment]; k.newest == p.Descriptor {
			k.wins += by
		} else {
			k.left += by
		}
	}
}

// noteLocked brings index and journal up to date with the parts of a segment.
func (t *Table) noteLocked(id anchormesh.SegmentID) {
	k := t.known[id]
	if k == nil {
		return // noted before
	}
	if k.wins+k.left == 0 {
		delete(t.known, id)
		t.segments.Delete(id)
		t.setLeaderLocked(id, "")
	}
	switch {
	case t.buried.byID[id] != nil: // it has the last word
	case k.wins+k.left == 0:
		t.journal.remove(id)
	case k.wins == 0: // known by what its neighbours were not heard of
		t.segments.Store(id, k.newest)
		t.journal.remove(id)
	default:
		t.segments.Store(id, k.newest)
		t.journal.set(Version{Segment: id, Generation: k.newest.Generation, Changed: k.newest.Changed})
	}
}

// Leader returns the node that was last seen leading a segment.
func (t *Table) Leader(id anchormesh.SegmentID) (anchormesh.NodeID, bool) {
	if node, ok := t.leaders.Load(id); ok {
		return node.(anchormesh.NodeID), true
	}
	return "", false
}

// Follow tells a table how to ask whom a segment's replica here follows; empty: there is
// none, or it knows of nobody. Such a replica hears of every change, and nothing that
// others say or that befalls a connection counts beside its word: it is said once, when
// it changes. It must be told before the table is used.
func (t *Table) Follow(follows func(anchormesh.SegmentID) anchormesh.NodeID) { t.follows = follows }

// Follows returns whom a segment's replica here follows; empty if there is none.
func (t *Table) Follows(id anchormesh.SegmentID) anchormesh.NodeID { return t.follows(id) }

// Guess notes who is said to lead a segment; empty: somebody does not that was said to.
func (t *Table) Guess(id anchormesh.SegmentID, node anchormesh.NodeID) {
	if t.follows(id) == "" {
		t.SetLeader(id, node)
	}
}

// SetLeader notes who leads a segment, by the word of its replica here; empty: it knows of
// nobody.
func (t *Table) SetLeader(id anchormesh.SegmentID, node anchormesh.NodeID) {
	if was, _ := t.Leader(id); was == node {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLeaderLocked(id, node)
	t.tellLocked()
}

func (t *Table) setLeaderLocked(id anchormesh.SegmentID, node anchormesh.NodeID) {
	if was, ok := t.Leader(id); ok {
		delete(t.led[was], id)
		if len(t.led[was]) == 0 {
			delete(t.led, was)
		}
	}
	if node == "" {
		t.leaders.Delete(id)
		return
	}
	if t.led[node] == nil {
		t.led[node] = make(map[anchormesh.SegmentID]bool)
	}
	t.led[node][id] = true
	t.leaders.Store(id, node)
}

// ForgetNode forgets that a node is said to lead anything: it cannot be reached.
func (t *Table) ForgetNode(node anchormesh.NodeID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	forgot := false
	for id := range t.led[node] {
		if t.follows(id) == "" {
			t.setLeaderLocked(id, "")
			forgot = true
		}
	}
	if forgot {
		t.tellLocked()
	}
}

// Candidates returns who may lead a segment: the node last seen leading it, then its
// other voters' nodes.
func (t *Table) Candidates(d *anchormesh.Descriptor) []anchormesh.NodeID {
	out := make([]anchormesh.NodeID, 0, len(d.Anchors)+1)
	if leader, ok := t.Leader(d.Segment); ok {
		out = append(out, leader)
	}
	for _, v := range d.Voters() {
		if !slices.Contains(out, v.Node) {
			out = append(out, v.Node)
		}
	}
	return out
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
