package route

import (
	"cmp"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// Buckets is into how many sums the journal's items are divided.
const Buckets = 256

// Version names what a table knows of one segment: its newest descriptor, or
// that it is buried.
type Version struct {
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	Changed    uint64
	Buried     bool
}

// Noted is a version and the number of the change that brought it.
type Noted struct {
	Seq uint64
	Version
}

// journal numbers what changes in a table. Like the cover it is pure.
type journal struct {
	seq   uint64
	count int
	items [Buckets]map[anchormesh.SegmentID]Noted
	sums  [Buckets]uint64
	log   []logged // ascending; what the items no longer confirm is skipped
}

type logged struct {
	seq     uint64
	segment anchormesh.SegmentID
}

// mix spreads the bits of x (the finaliser of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// BucketOf returns the bucket that a segment is counted in.
func BucketOf(segment anchormesh.SegmentID) int { return int(mix(uint64(segment)) % Buckets) }

// sum is the version's share of its bucket's sum. Sums find differences between
// nodes that trust each other; they are no proof of anything.
func (v Version) sum() uint64 {
	x := mix(uint64(v.Segment) + 0x9e3779b97f4a7c15)
	x = mix(x + uint64(v.Generation))
	x = mix(x + v.Changed)
	if v.Buried {
		x++
	}
	return mix(x)
}

func (j *journal) set(v Version) {
	b := BucketOf(v.Segment)
	old, had := j.items[b][v.Segment]
	if had && old.Version == v {
		return
	}
	if had {
		j.sums[b] -= old.sum()
	} else {
		j.count++
	}
	if j.items[b] == nil {
		j.items[b] = make(map[anchormesh.SegmentID]Noted)
	}
	j.seq++
	j.items[b][v.Segment] = Noted{j.seq, v}
	j.sums[b] += v.sum()
	j.log = append(j.log, logged{j.seq, v.Segment})
	if len(j.log) > 2*j.count+64 {
		j.log = slices.DeleteFunc(j.log, func(l logged) bool { return !j.holds(l) })
	}
}

func (j *journal) remove(segment anchormesh.SegmentID) {
	b := BucketOf(segment)
	if old, had := j.items[b][segment]; had {
		j.sums[b] -= old.sum()
		j.count--
		delete(j.items[b], segment)
	}
}

func (j *journal) get(segment anchormesh.SegmentID) (Noted, bool) {
	n, ok := j.items[BucketOf(segment)][segment]
	return n, ok
}

// holds reports whether a line of the log is the last word on its segment.
func (j *journal) holds(l logged) bool {
	n, ok := j.get(l.segment)
	return ok && n.Seq == l.seq
}

// since returns the items noted after seq, oldest first, at most limit.
func (j *journal) since(seq uint64, limit int) []Noted {
	i, _ := slices.BinarySearchFunc(j.log, seq+1, func(l logged, seq uint64) int { return cmp.Compare(l.seq, seq) })
	var out []Noted
	for _, l := range j.log[i:] {
		if len(out) == limit {
			break
		}
		if n, ok := j.get(l.segment); ok && n.Seq == l.seq {
			out = append(out, n)
		}
	}
	return out
}

// bucket returns the items of one bucket by segment.
func (j *journal) bucket(b int) []Version {
	out := make([]Version, 0, len(j.items[b]))
	for _, n := range j.items[b] {
		out = append(out, n.Version)
	}
	slices.SortFunc(out, func(a, b Version) int { return cmp.Compare(a.Segment, b.Segment) })
	return out
}

func (j *journal) total() uint64 {
	var sum uint64
	for _, s := range j.sums {
		sum += s
	}
	return sum
}
