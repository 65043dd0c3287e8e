package upkeep

import (
	"math/bits"

	"github.com/anchormesh/anchormesh/keyspace"
)

// apart is how far a share may be from what it should be, in parts of what each segment
// has on average: an eighth. Below it nothing is moved, so that what sleeps is not woken, as
// long as each has half of the room that were its.
const apart = 8

// Divide returns the shares that the segments of a scope should have, of those that use
// what is given. Shares that need not change keep their version's parts. The shares that get
// less have to be in force before the others are.
func Divide(quotaKeys, quotaBytes int64, all []keyspace.Usage) (less, more map[int]keyspace.Share) {
	less, more = map[int]keyspace.Share{}, map[int]keyspace.Share{}
	keys, bytes := make([]uint32, len(all)), make([]uint32, len(all))
	usedKeys, usedBytes := make([]int64, len(all)), make([]int64, len(all))
	for i, u := range all {
		keys[i], bytes[i] = parts(u.Share)
		usedKeys[i], usedBytes[i] = u.Keys, u.Bytes
	}
	wantKeys, wantBytes := divide(quotaKeys, usedKeys, keys), divide(quotaBytes, usedBytes, bytes)
	for i, u := range all {
		lower := wantKeys[i] < keys[i] || wantBytes[i] < bytes[i]
		higher := wantKeys[i] > keys[i] || wantBytes[i] > bytes[i]
		next := keyspace.Share{Version: u.Share.Version, Keys: wantKeys[i], Bytes: wantBytes[i]}
		if lower {
			less[i] = keyspace.Share{Version: u.Share.Version, Keys: min(keys[i], next.Keys), Bytes: min(bytes[i], next.Bytes)}
			next.Version++
		}
		if higher {
			more[i] = next
		}
	}
	return less, more
}

func parts(s keyspace.Share) (keys, bytes uint32) {
	if s.Version == 0 {
		return keyspace.ShareWhole, keyspace.ShareWhole
	}
	return s.Keys, s.Bytes
}

// divide returns the parts that each should have, or those it has if they will do.
func divide(quota int64, used []int64, have []uint32) []uint32 {
	if quota <= 0 || len(used) == 0 {
		return have
	}
	total, sum := int64(0), uint64(0)
	for i := range used {
		total, sum = total+used[i], sum+uint64(have[i])
	}
	free := max(0, quota-total)
	base := max(quota, total) // of a scope that holds too much, each has what it holds
	want := make([]uint32, len(used))
	near := sum <= keyspace.ShareWhole
	for i := range used {
		want[i] = part(used[i]+free/int64(len(used)), base)
		near = near && distance(want[i], have[i]) <= keyspace.ShareWhole/apart/uint32(len(used)) &&
			2*room(quota, used[i], have[i]) >= free/int64(len(used))
	}
	if near {
		return have
	}
	fit(want)
	return want
}

// fit takes what parts that were rounded up are too much off the largest.
func fit(parts []uint32) {
	sum, largest := uint64(0), 0
	for i, p := range parts {
		if sum += uint64(p); p > parts[largest] {
			largest = i
		}
	}
	if sum > keyspace.ShareWhole {
		parts[largest] -= uint32(sum - keyspace.ShareWhole)
	}
}

// room is what a segment may still take in.
func room(quota, used int64, have uint32) int64 {
	hi, lo := bits.Mul64(uint64(quota), uint64(have))
	limit, _ := bits.Div64(hi, lo, keyspace.ShareWhole)
	return int64(limit) - used
}

// part is n of total, in parts of keyspace.ShareWhole, rounded up so that it comes to n
// again.
func part(n, total int64) uint32 {
	hi, lo := bits.Mul64(uint64(n), keyspace.ShareWhole)
	out, rest := bits.Div64(hi, lo, uint64(total))
	if rest > 0 {
		out++
	}
	return uint32(out)
}

func distance(a, b uint32) uint32 { return max(a, b) - min(a, b) }
