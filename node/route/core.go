package route

import (
	"bytes"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
)

// chunkMax is how many parts a chunk holds; below chunkMin it joins the next.
const (
	chunkMax = 64
	chunkMin = 16
)

// Part is a range of keys and the descriptor that they are routed to, whose own
// range may be larger.
type Part struct {
	Range      anchormesh.KeyRange
	Descriptor *anchormesh.Descriptor
}

// cover is the keyspace cut into parts: sorted, without overlap, perhaps with
// holes; no two parts of one descriptor touch. It never changes. Every chunk
// holds at least one part.
type cover struct{ chunks [][]Part }

// beats reports whether d is routed to where both hold a key. Two segments of
// one generation share no key unless one was never committed: then the larger ID
// wins, for any order will do.
func beats(d, o *anchormesh.Descriptor) bool {
	if d.Generation != o.Generation || d.Segment == o.Segment {
		return d.Newer(o)
	}
	return d.Segment > o.Segment
}

// chunkOf returns the chunk that holds the last part beginning at or before key,
// or zero.
func (c cover) chunkOf(key []byte) int {
	i, found := slices.BinarySearchFunc(c.chunks, key, func(chunk []Part, key []byte) int {
		return bytes.Compare(chunk[0].Range.Start, key)
	})
	if !found {
		i--
	}
	return max(i, 0)
}

// find returns the chunk and the place in it of the first part that ends behind
// key.
func (c cover) find(key []byte) (chunk, at int) {
	if len(c.chunks) == 0 {
		return 0, 0
	}
	chunk = c.chunkOf(key)
	parts := c.chunks[chunk]
	at, found := slices.BinarySearchFunc(parts, key, func(p Part, key []byte) int { return bytes.Compare(p.Range.Start, key) })
	if !found && at > 0 && endsBehind(parts[at-1].Range.End, key) {
		at--
	}
	if at == len(parts) {
		return chunk + 1, 0
	}
	return chunk, at
}

// lookup returns the part that holds key.
func (c cover) lookup(key []byte) (*Part, bool) {
	chunk, at := c.find(key)
	if chunk >= len(c.chunks) || !c.chunks[chunk][at].Range.Contains(key) {
		return nil, false
	}
	return &c.chunks[chunk][at], true
}

// before returns the last part that begins below key, if it ends at key or behind it.
func (c cover) before(key []byte) (*Part, bool) {
	chunk, at := c.find(key)
	if chunk < len(c.chunks) && bytes.Compare(c.chunks[chunk][at].Range.Start, key) < 0 {
		return &c.chunks[chunk][at], true // it goes on behind key
	}
	if at == 0 {
		if chunk == 0 {
			return nil, false
		}
		chunk--
		at = len(c.chunks[chunk])
	}
	p := &c.chunks[chunk][at-1]
	return p, bytes.Equal(p.Range.End, key) || endsBehind(p.Range.End, key)
}

// parts returns what keys touches, clipped to it, up to the first hole, and
// whether there is none.
func (c cover) parts(keys anchormesh.KeyRange) (out []Part, whole bool) {
	if keys.Empty() {
		return nil, true
	}
	next := keys.Start
	chunk, at := c.find(keys.Start)
	for ; chunk < len(c.chunks); chunk, at = chunk+1, 0 {
		for _, p := range c.chunks[chunk][at:] {
			if bytes.Compare(p.Range.Start, next) > 0 {
				return out, false
			}
			p.Range = anchormesh.KeyRange{Start: next, End: firstEnd(p.Range.End, keys.End)}
			out = append(out, p)
			if next = p.Range.End; bytes.Equal(next, keys.End) {
				return out, true
			}
		}
	}
	return out, false
}

// put returns the cover with d wherever it wins, the parts that this replaces
// and those that stand in their place; with nothing replaced and nothing put in
// place, d wins nowhere.
func (c cover) put(d *anchormesh.Descriptor) (next cover, gone, come []Part) {
	if len(c.chunks) == 0 {
		come = []Part{{d.Range, d}}
		return cover{[][]Part{come}}, nil, come
	}
	from, to := c.span(d.Range)
	n := 3
	for _, chunk := range c.chunks[from : to+1] {
		n += len(chunk)
	}
	b := builder{d: d, at: d.Range.Start, out: make([]Part, 0, n)}
	var after []Part
	for i, chunk := range c.chunks[from : to+1] {
		for j, p := range chunk {
			switch {
			case p.Range.Overlaps(d.Range):
				gone = append(gone, p)
				b.meet(p)
			case bytes.Compare(p.Range.Start, d.Range.Start) < 0:
				b.out = append(b.out, p)
				b.first++
			case from+i == to: // the rest of the last chunk
				after = chunk[j:]
			default:
				invariant.Broken("part %v in chunk %d of %d..%d lies behind %v", p.Range, from+i, from, to, d.Range)
			}
			if after != nil {
				break
			}
		}
	}
	b.rest()
	if !b.won {
		return c, nil, nil
	}
	come = b.out[b.first:len(b.out):len(b.out)]
	return c.splice(from, to, append(b.out, after...)), gone, come
}

// span returns the first and the last chunk that r can touch.
func (c cover) span(r anchormesh.KeyRange) (from, to int) {
	from = c.chunkOf(r.Start)
	for to = from; to+1 < len(c.chunks) && endsBehind(r.End, c.chunks[to+1][0].Range.Start); to++ {
	}
	return from, to
}

// splice replaces the chunks from..to by chunks of these parts.
func (c cover) splice(from, to int, parts []Part) cover {
	if len(parts) < chunkMin && to+1 < len(c.chunks) {
		to++
		parts = slices.Concat(parts, c.chunks[to])
	} else if len(parts) < chunkMin && from > 0 {
		from--
		parts = slices.Concat(c.chunks[from], parts)
	}
	n := (len(parts) + chunkMax - 1) / chunkMax
	chunks := make([][]Part, 0, len(c.chunks)-(to-from+1)+n)
	chunks = append(chunks, c.chunks[:from]...)
	if n == 1 {
		chunks = append(chunks, parts)
		return cover{append(chunks, c.chunks[to+1:]...)}
	}
	for i := range n { // of equal size, so that none is full at once again
		chunks = append(chunks, slices.Clone(parts[i*len(parts)/n:(i+1)*len(parts)/n]))
	}
	return cover{append(chunks, c.chunks[to+1:]...)}
}

// builder lays a descriptor over the parts that it overlaps.
type builder struct {
	d    *anchormesh.Descriptor
	at   []byte // decided up to here
	done bool   // decided up to the end of d's range
	won  bool
	out  []Part
	// first is where what d concerns begins in out.
	first int
}

// meet decides the range up to the end of p, which overlaps d's.
func (b *builder) meet(p Part) {
	r := b.d.Range
	if bytes.Compare(p.Range.Start, r.Start) < 0 {
		b.add(p.Range.Start, r.Start, p.Descriptor)
	} else if bytes.Compare(b.at, p.Range.Start) < 0 {
		b.add(b.at, p.Range.Start, b.d)
		b.at = p.Range.Start
	}
	winner, end := p.Descriptor, firstEnd(p.Range.End, r.End)
	if beats(b.d, winner) {
		winner = b.d
	}
	b.add(b.at, end, winner)
	b.at, b.done = end, bytes.Equal(end, r.End)
	if !bytes.Equal(p.Range.End, end) {
		b.add(end, p.Range.End, p.Descriptor)
	}
}

// rest decides what is behind the last part.
func (b *builder) rest() {
	if !b.done {
		b.add(b.at, b.d.Range.End, b.d)
	}
}

func (b *builder) add(start, end []byte, d *anchormesh.Descriptor) {
	b.won = b.won || d == b.d
	if n := len(b.out); n > b.first && b.out[n-1].Descriptor == d && bytes.Equal(b.out[n-1].Range.End, start) {
		b.out[n-1].Range.End = end
		return
	}
	b.out = append(b.out, Part{anchormesh.KeyRange{Start: start, End: end}, d})
}

// endsBehind reports whether a range that ends at end goes on behind key; an
// empty end is that of the keyspace.
func endsBehind(end, key []byte) bool { return len(end) == 0 || bytes.Compare(end, key) > 0 }

// firstEnd returns the smaller of two ends.
func firstEnd(a, b []byte) []byte {
	if len(a) == 0 || len(b) > 0 && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}
