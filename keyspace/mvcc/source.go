package mvcc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// source finds the bytes of revisions that the index names, at one moment of a
// segment.
type source struct {
	g      *Segment
	active tail
	sealed []*sealed
	revs   bolt.Reader

	cursor  bolt.Cursor
	last    keyindex.Revision // where the cursor stands
	scratch []byte
}

// pending is a revision that may not be in the backend yet.
func (s *source) pending(mod keyindex.Revision) (*entry, bool) {
	origin := mod.Sub >> 32
	if origin == s.g.own {
		if e, ok := s.active.get(mod); ok {
			return e, true
		}
	}
	for _, t := range s.sealed {
		if t.number == origin {
			if e, ok := t.get(mod); ok {
				return e, true
			}
		}
	}
	return nil, false
}

// fetch returns the encoded KeyValue of a live revision. stable says that it lies
// in a buffer, and so stays valid after the snapshot is released.
func (s *source) fetch(mod keyindex.Revision) (raw []byte, stable bool) {
	if e, ok := s.pending(mod); ok {
		if !e.tomb {
			return e.raw, true
		}
	} else if raw := s.stored(mod); raw != nil {
		return raw, false
	}
	panic(fmt.Sprintf("mvcc: segment %s: revision %v is in the index and nowhere else", s.g.id, mod))
}

// nearby is how many steps of a cursor cost less than a new descent.
const nearby = 8

// stored looks a revision up in the backend. Keys that were written one after the
// other are often read so, and then the next record is at hand.
func (s *source) stored(mod keyindex.Revision) []byte {
	if s.cursor == nil {
		s.cursor = s.revs.Cursor()
		s.scratch = make([]byte, 0, revKeyMax)
		s.last = keyindex.Revision{Main: -nearby}
	}
	s.scratch = s.g.store.origins.names().appendRevKey(s.scratch[:0], mod, false)
	// Not Less: it looks at the origin first, the backend's keys at the sub revision.
	behind := s.last.Main < mod.Main || s.last.Main == mod.Main && subOf(s.last.Sub) < subOf(mod.Sub)
	near := behind && mod.Main-s.last.Main < nearby
	s.last = mod
	if near {
		for range nearby {
			k, v := s.cursor.Next()
			switch c := bytes.Compare(k, s.scratch); {
			case k == nil || c > 0:
				return nil
			case c == 0:
				return v
			}
		}
	}
	k, v := s.cursor.Seek(s.scratch)
	if !bytes.Equal(k, s.scratch) {
		return nil
	}
	return v
}

// kv is a revision as a KV that is valid as long as the source.
func (s *source) kv(mod keyindex.Revision) KV {
	raw, _ := s.fetch(mod)
	return s.parse(raw)
}

// own is a revision as a KV that stays valid.
func (s *source) own(mod keyindex.Revision) KV {
	raw, stable := s.fetch(mod)
	if !stable {
		raw = bytes.Clone(raw)
	}
	return s.parse(raw)
}

func (s *source) parse(raw []byte) KV {
	kv, ok := parseKV(raw)
	if !ok {
		panic(fmt.Sprintf("mvcc: segment %s: stored value %q is no KeyValue", s.g.id, raw))
	}
	return kv
}

// walk visits revisions in the order of the backend's keys, whether they are in the
// backend already or in a buffer, those of other segments that lie in between
// included. A commit shows its work in the backend before the buffers are dropped,
// so a revision may be in both; it is visited once.
type walk struct {
	to     int64 // last main revision
	cursor bolt.Cursor
	stored visit // the next one of the backend
	more   bool  // there is one
	tails  []tailWalk
}

type tailWalk struct {
	t      *tail
	next   int
	origin anchormesh.SegmentID
}

// visit is a revision and its encoded KeyValue. From a buffer it is stable, and a
// tombstone has its mod revision behind the key.
type visit struct {
	revKey
	raw    []byte
	stable bool
}

func (s *source) walk(from, to int64) *walk {
	w := &walk{to: to, cursor: s.revs.Cursor()}
	for _, t := range s.sealed {
		w.tails = append(w.tails, tailWalk{&t.tail, t.seek(from, 0), t.origin})
	}
	w.tails = append(w.tails, tailWalk{&s.active, s.active.seek(from, 0), s.g.id})
	w.take(w.cursor.Seek(binary.BigEndian.AppendUint64(nil, uint64(from))))
	return w
}

// take makes a record of the backend the next one.
func (w *walk) take(k, v []byte) {
	if w.more = k != nil; !w.more {
		return
	}
	rk, ok := parseRevKey(k)
	if !ok {
		panic(fmt.Sprintf("mvcc: the store holds a revision under %x", k))
	}
	w.stored, w.more = visit{revKey: rk, raw: v}, rk.main <= w.to
}

func (w *walk) next() (visit, bool) {
	first, at := -1, revKey{}
	for i := range w.tails {
		t := &w.tails[i]
		if t.next == t.t.n {
			continue
		}
		e := t.t.at(t.next)
		k := revKey{main: e.main, sub: int64(e.sub), origin: t.origin, tomb: e.tomb}
		if e.main <= w.to && (first < 0 || k.before(at)) {
			first, at = i, k
		}
	}
	switch {
	case w.more && (first < 0 || w.stored.before(at)):
		v := w.stored
		w.take(w.cursor.Next())
		return v, true
	case first < 0:
		return visit{}, false
	case w.more && !at.before(w.stored.revKey):
		w.take(w.cursor.Next())
	}
	t := &w.tails[first]
	t.next++
	return visit{at, t.t.at(t.next - 1).raw, true}, true
}

// checkRev turns the revision of a request into the one to read at.
func checkRev(atRev, current, compacted int64) (int64, error) {
	switch {
	case atRev > current:
		return 0, ErrFutureRev
	case atRev <= 0:
		return current, nil
	case atRev < compacted:
		return 0, ErrCompacted
	}
	return atRev, nil
}

// bounds turns etcd's (key, range_end) into [start, stop): no end is the single
// key, an end of one zero byte is everything from key on.
func bounds(key, end []byte) (start, stop []byte, single bool) {
	switch {
	case len(end) == 0:
		return key, nil, true
	case len(end) == 1 && end[0] == 0:
		return key, nil, false
	}
	return key, end, false
}

// keyLimit is the most keys that the index returns: etcd's limit of zero is none.
func keyLimit(limit int64, countOnly bool) int {
	switch {
	case countOnly:
		return 0
	case limit <= 0 || limit > math.MaxInt32:
		return math.MaxInt
	}
	return int(limit)
}

func revisionOf(e *entry) keyindex.Revision {
	return keyindex.Revision{Main: e.main, Sub: int64(e.sub)}
}
