package anchormesh

import (
	"bytes"
	"fmt"
)

// KeyRange is the half-open range of keys [Start, End). An empty Start is the
// beginning of the keyspace; an empty End is its end.
type KeyRange struct {
	Start, End []byte
}

// PrefixRange returns the keys that begin with prefix; all of them if it is empty.
func PrefixRange(prefix []byte) KeyRange {
	end := bytes.Clone(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) > 0 {
		end[len(end)-1]++
	}
	return KeyRange{Start: prefix, End: end}
}

// Contains reports whether key lies in the range.
func (r KeyRange) Contains(key []byte) bool {
	return bytes.Compare(key, r.Start) >= 0 && (len(r.End) == 0 || bytes.Compare(key, r.End) < 0)
}

// Covers reports whether every key of o lies in the range.
func (r KeyRange) Covers(o KeyRange) bool {
	if bytes.Compare(o.Start, r.Start) < 0 {
		return false
	}
	if len(r.End) == 0 {
		return true
	}
	return len(o.End) != 0 && bytes.Compare(o.End, r.End) <= 0
}

// Overlaps reports whether the two ranges share a key.
func (r KeyRange) Overlaps(o KeyRange) bool {
	before := func(end, start []byte) bool { return len(end) != 0 && bytes.Compare(end, start) <= 0 }
	return !before(r.End, o.Start) && !before(o.End, r.Start)
}

// Intersect returns what both ranges hold, which is Empty if they share nothing.
func (r KeyRange) Intersect(o KeyRange) KeyRange {
	out := r
	if bytes.Compare(o.Start, out.Start) > 0 {
		out.Start = o.Start
	}
	if len(out.End) == 0 || (len(o.End) > 0 && bytes.Compare(o.End, out.End) < 0) {
		out.End = o.End
	}
	return out
}

// Hull returns the smallest range that covers both.
func (r KeyRange) Hull(o KeyRange) KeyRange {
	out := r
	if bytes.Compare(o.Start, out.Start) < 0 {
		out.Start = o.Start
	}
	if len(o.End) == 0 || (len(out.End) > 0 && bytes.Compare(o.End, out.End) > 0) {
		out.End = o.End
	}
	return out
}

// Empty reports whether the range holds no key.
func (r KeyRange) Empty() bool {
	return len(r.End) != 0 && bytes.Compare(r.Start, r.End) >= 0
}

// Equal reports whether both ends are the same.
func (r KeyRange) Equal(o KeyRange) bool {
	return bytes.Equal(r.Start, o.Start) && bytes.Equal(r.End, o.End)
}

// String shows the range as ["a", "b"), with ∞ for an open end.
func (r KeyRange) String() string {
	if len(r.End) == 0 {
		return fmt.Sprintf("[%q, ∞)", r.Start)
	}
	return fmt.Sprintf("[%q, %q)", r.Start, r.End)
}

// RequestRange turns etcd's (key, range_end) pair into a KeyRange: no range_end
// is the single key, a range_end of one zero byte is everything from key on.
func RequestRange(key, rangeEnd []byte) KeyRange {
	switch {
	case len(rangeEnd) == 0:
		end := make([]byte, len(key)+1)
		copy(end, key)
		return KeyRange{Start: key, End: end}
	case len(rangeEnd) == 1 && rangeEnd[0] == 0:
		if len(key) == 1 && key[0] == 0 {
			return KeyRange{}
		}
		return KeyRange{Start: key}
	default:
		return KeyRange{Start: key, End: rangeEnd}
	}
}
