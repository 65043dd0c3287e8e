package mvcc

import (
	"bytes"
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// source finds the bytes of revisions that the index names, at one moment of a
// segment.
type source struct {
	g       *Segment
	origins origins
	active  tail
	frozen  tail
	revs    bolt.Reader

	cursor  bolt.Cursor
	last    keyindex.Revision // where the cursor stands
	scratch []byte
}

// buffered is the first main revision that is not read from the backend.
func (s *source) buffered() int64 {
	return s.frozen.firstMain(s.active.firstMain(math.MaxInt64))
}

// fetch returns the encoded KeyValue of a live revision. stable says that it lies
// in a buffer, and so stays valid after the snapshot is released.
func (s *source) fetch(mod keyindex.Revision) (raw []byte, stable bool) {
	if mod.Main >= s.buffered() {
		t := &s.frozen
		if mod.Main >= s.active.firstMain(math.MaxInt64) {
			t = &s.active
		}
		if e, ok := t.get(mod); ok && !e.tomb {
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
	s.scratch = s.origins.appendRevKey(s.scratch[:0], mod, false)
	near := s.last.Less(mod) && mod.Main-s.last.Main < nearby
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

func revisionOf(e *entry) keyindex.Revision {
	return keyindex.Revision{Main: e.main, Sub: int64(e.sub)}
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
