package commit

import (
	"bytes"

	"github.com/anchormesh/anchormesh"
)

// clip returns what r and o share, and whether that is anything.
func clip(r, o anchormesh.KeyRange) (anchormesh.KeyRange, bool) {
	if !r.Overlaps(o) {
		return anchormesh.KeyRange{}, false
	}
	if bytes.Compare(o.Start, r.Start) > 0 {
		r.Start = o.Start
	}
	if len(o.End) != 0 && (len(r.End) == 0 || bytes.Compare(o.End, r.End) < 0) {
		r.End = o.End
	}
	return r, !r.Empty()
}

// subtract returns what is left of spans without the keys of r.
func subtract(spans []anchormesh.KeyRange, r anchormesh.KeyRange) []anchormesh.KeyRange {
	var out []anchormesh.KeyRange
	for _, s := range spans {
		if !s.Overlaps(r) {
			out = append(out, s)
			continue
		}
		if bytes.Compare(s.Start, r.Start) < 0 {
			out = append(out, anchormesh.KeyRange{Start: s.Start, End: r.Start})
		}
		if len(r.End) != 0 && (len(s.End) == 0 || bytes.Compare(r.End, s.End) < 0) {
			out = append(out, anchormesh.KeyRange{Start: r.End, End: s.End})
		}
	}
	return out
}

// hull returns the smallest range that holds all locks; there is at least one.
func hull(locks []Lock) anchormesh.KeyRange {
	out := locks[0].Range
	for _, l := range locks[1:] {
		out = out.Hull(l.Range)
	}
	return out
}
