package codec

import (
	"bytes"
	"cmp"
	"math"
	"sort"
)

// AppendRange encodes a RangeRequest.
func AppendRange(dst []byte, r *RangeRequest) []byte {
	dst = appendBytes(dst, 1, r.Key)
	dst = appendBytes(dst, 2, r.RangeEnd)
	dst = appendInt(dst, 3, r.Limit)
	dst = appendInt(dst, 4, r.Revision)
	dst = appendInt(dst, 5, int64(r.SortOrder))
	dst = appendInt(dst, 6, int64(r.SortTarget))
	dst = appendBool(dst, 7, r.Serializable)
	dst = appendBool(dst, 8, r.KeysOnly)
	dst = appendBool(dst, 9, r.CountOnly)
	dst = appendInt(dst, 10, r.MinModRevision)
	dst = appendInt(dst, 11, r.MaxModRevision)
	dst = appendInt(dst, 12, r.MinCreateRevision)
	return appendInt(dst, 13, r.MaxCreateRevision)
}

// RangeMerge puts the answers of neighbouring ranges together to the answer that one
// range over all of them would give, to the byte but for the header. In key order,
// up or down, key-values go from the parts into the whole without being decoded or
// copied; for other orders they are decoded.
//
//	m := NewRangeMerge(q)
//	ask every range for m.Part(), with Key and RangeEnd cut to it, at one revision
//	m.Add(answer) for each, in key order
//	m.Finish(header)
type RangeMerge struct {
	q      RangeRequest
	mode   mergeMode
	parts  []rangePart
	sorted []sortable // in key order until Finish; of the modes that decode
	count  int64
}

type mergeMode uint8

const (
	mergeUp     mergeMode = iota // the parts one after the other
	mergeDown                    // the last part first
	mergeFirst                   // sort what comes first in key order: no order, but a target
	mergeSorted                  // sort everything
)

// rangePart is an answer's key-values, still encoded.
type rangePart struct {
	runs []run
	more bool
}

// run is some neighbouring fields of a RangeResponse, each a key-value.
type run struct {
	raw []byte
	n   int64
}

// sortable is a decoded key-value and the field it came from.
type sortable struct {
	field []byte
	kv    KeyValue
}

// NewRangeMerge begins the answer to q.
func NewRangeMerge(q RangeRequest) *RangeMerge {
	m := &RangeMerge{q: q}
	switch {
	case q.SortTarget == SortByKey && q.SortOrder == SortDescend:
		m.mode = mergeDown
	case q.SortTarget == SortByKey:
	case q.SortOrder == SortNone:
		m.mode = mergeFirst
	default:
		m.mode = mergeSorted
	}
	return m
}

func (m *RangeMerge) filtered() bool {
	q := &m.q
	return q.MinModRevision != 0 || q.MaxModRevision != 0 || q.MinCreateRevision != 0 || q.MaxCreateRevision != 0
}

// Part is the request that every range answers a part of.
func (m *RangeMerge) Part() RangeRequest {
	q := m.q
	if m.mode < mergeFirst {
		return q
	}
	// Equal ones fall as one sort of the whole lets them fall, so that is made here.
	q.SortOrder, q.SortTarget, q.Limit = SortNone, SortByKey, m.first()
	if m.q.SortTarget == SortByValue {
		q.KeysOnly = false
	}
	return q
}

// first is how many key-values, in key order, are sorted; zero is all.
func (m *RangeMerge) first() int64 {
	if m.mode == mergeFirst && m.q.Limit > 0 && m.q.Limit < math.MaxInt64 && !m.filtered() {
		return m.q.Limit + 1
	}
	return 0
}

// Add takes the next range's RangeResponse, which it keeps. The error is
// ErrMalformed.
func (m *RangeMerge) Add(answer Chunks) error {
	part, count, ok := splitRangeResponse(answer)
	if !ok { // perhaps only because a field lies in two pieces
		if part, count, ok = splitRangeResponse(Chunks{answer.Bytes()}); !ok {
			return ErrMalformed
		}
	}
	if m.mode >= mergeFirst {
		for _, r := range part.runs {
			if err := m.decode(r); err != nil {
				return err
			}
		}
		part.runs = nil
	}
	m.parts = append(m.parts, part)
	m.count += count
	return nil
}

func (m *RangeMerge) decode(r run) error {
	for f := (fields{rest: r.raw}); len(f.rest) > 0; {
		before := f.rest
		f.next()
		s := sortable{field: before[:len(before)-len(f.rest)]}
		if err := ParseKeyValue(f.val, &s.kv); err != nil {
			return err
		}
		m.sorted = append(m.sorted, s)
	}
	return nil
}

// Finish encodes the whole.
func (m *RangeMerge) Finish(h Header) Chunks {
	out := Chunks{AppendHeader(nil, 1, h)}
	more := false
	if m.mode < mergeFirst {
		out, more = m.appendRuns(out)
	} else {
		out, more = m.appendSorted(out)
	}
	return append(out, AppendRangeTail(nil, more, m.count))
}

func (m *RangeMerge) appendRuns(out Chunks) (_ Chunks, more bool) {
	left := int64(math.MaxInt64)
	if m.q.Limit > 0 {
		left = m.q.Limit
	}
	for i := range m.parts {
		if m.mode == mergeDown {
			i = len(m.parts) - 1 - i
		}
		p := &m.parts[i]
		for _, r := range p.runs {
			if r.n > left {
				r, more = r.first(left), true
			}
			left -= r.n
			if r.n > 0 {
				out = append(out, r.raw)
			}
		}
		more = more || p.more
	}
	return out, more
}

// first is the beginning of a run.
func (r run) first(n int64) run {
	f := fields{rest: r.raw}
	for range n {
		f.next()
	}
	return run{r.raw[:len(r.raw)-len(f.rest)], n}
}

func (m *RangeMerge) appendSorted(out Chunks) (_ Chunks, more bool) {
	kvs := m.sorted
	if n := m.first(); n > 0 && int64(len(kvs)) > n {
		kvs = kvs[:n]
	}
	m.sort(kvs)
	if m.q.Limit > 0 && int64(len(kvs)) > m.q.Limit {
		kvs, more = kvs[:m.q.Limit], true
	}
	strip := m.q.KeysOnly && m.q.SortTarget == SortByValue
	var body []byte
	for i := range kvs {
		if strip {
			kvs[i].kv.Value = nil
			body = AppendKeyValueField(body, 2, &kvs[i].kv)
		} else {
			body = append(body, kvs[i].field...)
		}
	}
	return append(out, body), more
}

func (m *RangeMerge) sort(kvs []sortable) {
	var less func(a, b *KeyValue) bool
	switch m.q.SortTarget {
	case SortByVersion:
		less = func(a, b *KeyValue) bool { return cmp.Less(a.Version, b.Version) }
	case SortByCreate:
		less = func(a, b *KeyValue) bool { return cmp.Less(a.Create, b.Create) }
	case SortByMod:
		less = func(a, b *KeyValue) bool { return cmp.Less(a.Mod, b.Mod) }
	case SortByValue:
		less = func(a, b *KeyValue) bool { return bytes.Compare(a.Value, b.Value) < 0 }
	default:
		return
	}
	switch m.q.SortOrder {
	case SortNone, SortAscend:
		sort.Sort(byField{kvs, less})
	case SortDescend:
		sort.Sort(sort.Reverse(byField{kvs, less}))
	}
}

// byField sorts with sort.Sort, as etcd does, because equal ones show how.
type byField struct {
	kvs  []sortable
	less func(a, b *KeyValue) bool
}

func (s byField) Len() int           { return len(s.kvs) }
func (s byField) Swap(i, j int)      { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }
func (s byField) Less(i, j int) bool { return s.less(&s.kvs[i].kv, &s.kvs[j].kv) }

// splitRangeResponse takes an answer apart. Every field must lie in one piece, as
// ChunkBuilder leaves those that are not referenced.
func splitRangeResponse(answer Chunks) (p rangePart, count int64, ok bool) {
	for _, piece := range answer {
		f := fields{rest: piece}
		begin, n := 0, int64(0) // of the run
		for at := 0; f.next(); at = len(piece) - len(f.rest) {
			switch f.tag {
			case 2<<3 | length:
				if n == 0 {
					begin = at
				}
				n++
				continue
			case 3<<3 | varint:
				p.more = f.v != 0
			case 4<<3 | varint:
				count = int64(f.v)
			case 1<<3 | length:
			default:
				return p, 0, false
			}
			p.add(piece[begin:at], n)
			n = 0
		}
		if f.bad {
			return p, 0, false
		}
		p.add(piece[begin:], n)
	}
	return p, count, true
}

func (p *rangePart) add(raw []byte, n int64) {
	if n > 0 {
		p.runs = append(p.runs, run{raw, n})
	}
}
