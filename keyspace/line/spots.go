package line

import "github.com/anchormesh/anchormesh"

// spot is a key range that got stamps, as one generation of one segment.
type spot struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	keys       anchormesh.KeyRange
	last       anchormesh.Revision // the largest stamp it got
	newer      *spot
	older      *spot
}

// spots remembers where stamps went, the latest first. Stamps only grow, so a
// range that gets one moves to the front, and a question for what got stamps
// since a number reads no further than its answer.
//
// The key is the segment, what is remembered the range: a segment of another
// generation has another range, and its old spot stays until it is forgotten. Who
// asked the old range by its segment's name would miss a child.
type spots struct {
	max     int
	floor   anchormesh.Revision // what was given up to here is not remembered
	latest  map[anchormesh.SegmentID]*spot
	ends    spot // newer: the oldest, older: the newest
	entries int
}

// reset forgets all that was given up to floor, which is everything.
func (s *spots) reset(floor anchormesh.Revision, most int) {
	s.max, s.floor, s.entries = most, floor, 0
	s.latest = make(map[anchormesh.SegmentID]*spot)
	s.ends.newer, s.ends.older = &s.ends, &s.ends
}

// note records that a segment got stamps up to last.
func (s *spots) note(segment anchormesh.SegmentID, generation anchormesh.Generation, keys anchormesh.KeyRange, last anchormesh.Revision) {
	p := s.latest[segment]
	if p == nil || p.generation != generation || !p.keys.Equal(keys) {
		if s.entries == s.max {
			s.forget()
		}
		p = &spot{segment: segment, generation: generation, keys: keys}
		s.latest[segment] = p
		s.entries++
	} else {
		p.unlink()
	}
	p.last = last
	p.newer, p.older = &s.ends, s.ends.older
	p.newer.older, p.older.newer = p, p
}

// forget drops the range that got its last stamp before all others.
func (s *spots) forget() {
	p := s.ends.newer
	p.unlink()
	s.entries--
	s.floor = max(s.floor, p.last)
	if s.latest[p.segment] == p {
		delete(s.latest, p.segment)
	}
}

func (p *spot) unlink() { p.newer.older, p.older.newer = p.older, p.newer }

// since names the ranges, up to most, that got stamps above a number.
func (s *spots) since(number anchormesh.Revision, most int) (out Spread) {
	if number < s.floor {
		return Spread{All: true}
	}
	for p := s.ends.older; p != &s.ends && p.last > number; p = p.older {
		if len(out.Ranges) == most {
			return Spread{All: true}
		}
		out.Ranges = append(out.Ranges, p.keys)
	}
	return out
}
