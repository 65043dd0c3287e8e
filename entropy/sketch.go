package entropy

import (
	"bytes"
	"math"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/entropy/sample"
)

const (
	// SketchKeys is how many cells a sketch has at most.
	SketchKeys = 256
	// EvenKeys is how many equally busy keys count as full spread.
	EvenKeys = 16

	// unit is the weight of a fresh sample; what falls below faint is forgotten.
	unit, faint = 1 << 16, 1 << 10
)

// sketch is where in the range the load falls.
type sketch struct {
	cells []cell // by key
	total uint64
	// Decayed samples of all windows that had known keys before them, and those of
	// the fullest gap between known keys in each window.
	all, edge uint64
	edgeAt    []byte // the known key before that gap; empty: below all
	gaps      []uint64
}

// cell is the part of the range from key to last.
type cell struct {
	key, last []byte
	own       uint64 // weight of key itself
	rest      uint64 // weight of keys up to last that were joined to it
}

func (c *cell) weight() uint64 { return c.own + c.rest }

// observe decays what was and adds the samples.
func (s *sketch) observe(memory, length time.Duration, samples []sample.Sample) {
	l, m := uint64(max(length, time.Millisecond)/time.Millisecond), uint64(memory/time.Millisecond)
	fade := func(x *uint64) { *x = *x * m / (l + m) }
	fade(&s.edge)
	fade(&s.all)
	for i := range s.cells {
		fade(&s.cells[i].own)
		fade(&s.cells[i].rest)
	}
	s.cells = slices.DeleteFunc(s.cells, func(c cell) bool { return c.weight() < faint })
	s.seekEdge(samples)
	for i := range samples {
		s.add(samples[i].Key)
	}
	for len(s.cells) > SketchKeys {
		s.join()
	}
	s.total = 0
	for i := range s.cells {
		s.total += s.cells[i].weight()
	}
}

// seekEdge counts how many samples are of new keys in one and the same gap
// between the keys known before this window. Of keys that grow (or shrink) all
// are, of new keys all over the range few.
func (s *sketch) seekEdge(samples []sample.Sample) {
	if len(s.cells) == 0 || len(samples) == 0 {
		return
	}
	s.gaps = append(s.gaps[:0], make([]uint64, len(s.cells)+1)...)
	most := 0
	for i := range samples {
		gap, known := s.find(samples[i].Key)
		if known {
			continue
		}
		if s.gaps[gap]++; s.gaps[gap] > s.gaps[most] {
			most = gap
		}
	}
	// One of them is in the fullest gap whatever the load: it proves nothing.
	s.all += uint64(len(samples)-1) * unit
	s.edge += max(s.gaps[most], 1)*unit - unit
	s.edgeAt = nil
	if most > 0 {
		s.edgeAt = s.cells[most-1].key
	}
}

func (s *sketch) find(key []byte) (i int, known bool) {
	return slices.BinarySearchFunc(s.cells, key, func(c cell, k []byte) int { return bytes.Compare(c.key, k) })
}

func (s *sketch) add(key []byte) {
	i, known := s.find(key)
	if !known {
		key = bytes.Clone(key) // a window's samples share one buffer
		c := cell{key: key, last: key}
		// Inside a joined cell the key cuts it; where the weight of its rest lay is
		// not known any more.
		if i > 0 && bytes.Compare(key, s.cells[i-1].last) < 0 {
			c.last, s.cells[i-1].last = s.cells[i-1].last, s.cells[i-1].key
		}
		s.cells = slices.Insert(s.cells, i, c)
	}
	s.cells[i].own += unit
}

// join makes one cell of the two neighbours that are lightest together.
func (s *sketch) join() {
	best := 0
	pair := func(i int) uint64 { return s.cells[i].weight() + s.cells[i+1].weight() }
	for i := 1; i+1 < len(s.cells); i++ {
		if pair(i) < pair(best) {
			best = i
		}
	}
	s.cells[best].rest += s.cells[best+1].weight()
	s.cells[best].last = s.cells[best+1].last
	s.cells = slices.Delete(s.cells, best+1, best+2)
}

// clip forgets what lies outside rng and returns the share, in thousandths, of the
// load that lies inside. Where an edge was has to be learnt anew.
func (s *sketch) clip(rng anchormesh.KeyRange) uint64 {
	before := s.total
	s.cells = slices.DeleteFunc(s.cells, func(c cell) bool { return !rng.Contains(c.key) })
	s.total, s.all, s.edge, s.edgeAt = 0, 0, 0, nil
	for i := range s.cells {
		c := &s.cells[i]
		if !rng.Contains(c.last) {
			c.last = c.key
		}
		s.total += c.weight()
	}
	if before == 0 {
		return 1000
	}
	return s.total * 1000 / before
}

// parts is a sketch of keys that part what is kept into equal pieces.
func parts(marks [][]byte) *sketch {
	s := &sketch{}
	for _, key := range marks {
		s.add(key)
		s.total += unit
	}
	return s
}

// spread is the normalised entropy in thousandths.
func (s *sketch) spread() uint64 {
	if s.total == 0 {
		return 0
	}
	h := 0.0
	for i := range s.cells {
		if p := float64(s.cells[i].weight()) / float64(s.total); p > 0 {
			h -= p * math.Log2(p)
		}
	}
	return min(1000, uint64(math.Round(1000*h/math.Log2(EvenKeys))))
}

// hot is the busiest single key and its share in thousandths.
func (s *sketch) hot() (key []byte, share uint64) {
	for i := range s.cells {
		if x := s.cells[i].own * 1000 / max(s.total, 1); x > share {
			key, share = s.cells[i].key, x
		}
	}
	return key, share
}

// moving is the share of the load that is new keys in one gap, in thousandths,
// and the key before the gap.
func (s *sketch) moving() (share uint64, after []byte) {
	return s.edge * 1000 / max(s.all, 1), s.edgeAt
}

const (
	// splitFrom and splitTo bound, in thousandths, the load left of a split key:
	// within them a boundary at a '/' is preferred, ...
	splitFrom, splitTo = 350, 650
	// ... beyond these a split is not worth it.
	worthFrom, worthTo = 300, 700
)

// splitKey is the key at which the load falls apart best, inside rng, and the
// share left of it in thousandths; nil if there is none worth it.
func (s *sketch) splitKey(rng anchormesh.KeyRange) (key []byte, left uint64) {
	type candidate struct {
		key   []byte
		left  uint64
		depth int
		off   uint64
	}
	var best candidate
	sum := uint64(0)
	for i := 1; i < len(s.cells); i++ {
		sum += s.cells[i-1].weight()
		c := candidate{left: sum * 1000 / s.total}
		c.key, c.depth = boundary(s.cells[i-1].last, s.cells[i].key)
		c.off = max(c.left, 500) - min(c.left, 500)
		if c.left < worthFrom || c.left > worthTo || bytes.Compare(c.key, rng.Start) <= 0 || !rng.Contains(c.key) {
			continue
		}
		if c.left < splitFrom || c.left > splitTo {
			c.depth = math.MaxInt // only for want of a better one
		}
		if best.key == nil || c.depth < best.depth || c.depth == best.depth && c.off < best.off {
			best = c
		}
	}
	return best.key, best.left
}

// boundary is a short key above a and at most b, ending behind a '/' if a path
// component of b begins to differ there, and its depth in '/'.
func boundary(a, b []byte) (key []byte, depth int) {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	if slash := bytes.IndexByte(b[n:], '/'); slash >= 0 {
		key = b[:n+slash+1]
		return key, bytes.Count(key, []byte{'/'})
	}
	return b, math.MaxInt - 1
}
