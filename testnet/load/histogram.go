package load

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width grows with their value, in
// the manner of HdrHistogram (Tene): values below 2^(subBits+1) ns have a bucket
// each, every further power of two is cut into 2^subBits.
//
//	bucket = shift<<subBits + v>>shift,  shift = max(0, len(v)-subBits-1)
//
// The zero value is empty. It is not safe for concurrent use.
type histogram struct {
	buckets [histBuckets]uint32
	count   uint64
	sum     time.Duration
	max     time.Duration
}

const (
	subBits     = 7
	histBits    = 40 // longer than 2^40 ns (18 minutes) is counted as that long
	histBuckets = (histBits-subBits-1)<<subBits + 2<<subBits
)

func (h *histogram) record(d time.Duration) {
	d = max(0, min(d, 1<<histBits-1))
	h.buckets[bucketOf(uint64(d))]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

func bucketOf(v uint64) int {
	shift := max(0, bits.Len64(v)-subBits-1)
	return shift<<subBits + int(v>>shift)
}

// bucketMax returns the largest value of a bucket.
func bucketMax(i int) time.Duration {
	shift := max(0, i>>subBits-1)
	return time.Duration((i-shift<<subBits+1)<<shift - 1)
}

// merge adds other to h.
func (h *histogram) merge(other *histogram) {
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
	h.count += other.count
	h.sum += other.sum
	h.max = max(h.max, other.max)
}

// quantile returns the value that a share q of the recorded do not exceed, as
// the upper end of its bucket; 0 if nothing was recorded.
func (h *histogram) quantile(q float64) time.Duration {
	if h.count == 0 {
		return 0
	}
	rank := max(1, uint64(q*float64(h.count)+0.5))
	var seen uint64
	for i, n := range h.buckets {
		seen += uint64(n)
		if seen >= rank {
			return min(bucketMax(i), h.max)
		}
	}
	return h.max
}

func (h *histogram) mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}
