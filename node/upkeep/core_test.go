package upkeep

import (
	"math/rand/v2"
	"testing"

	"github.com/anchormesh/anchormesh/keyspace"
)

func using(bytes int64, share keyspace.Share) keyspace.Usage {
	return keyspace.Usage{Counted: true, Bytes: bytes, Keys: bytes / 10, Share: share}
}

func TestAScopeOfOneSegmentHasTheWhole(t *testing.T) {
	if less, more := Divide(10, 100, []keyspace.Usage{using(50, keyspace.Share{})}); len(less)+len(more) > 0 {
		t.Errorf("%v, %v", less, more)
	}
	half := keyspace.Share{Version: 3, Keys: keyspace.ShareWhole / 2, Bytes: keyspace.ShareWhole / 2}
	less, more := Divide(10, 100, []keyspace.Usage{using(50, half)})
	if len(less) > 0 || more[0] != (keyspace.Share{Version: 3, Keys: keyspace.ShareWhole, Bytes: keyspace.ShareWhole}) {
		t.Errorf("%v, %v", less, more)
	}
}

// Whatever the segments use and have: while shares are moved, and behind it, they add up
// to no more than before, or than the whole; each has what it holds as long as the quota
// does; and another round moves nothing.
func TestSharesAddUp(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 3))
		all, quota := make([]keyspace.Usage, 1+rng.IntN(6)), 100+rng.Int64N(1_000_000)
		total := int64(0)
		for i := range all {
			s := keyspace.Share{}
			if rng.IntN(3) > 0 {
				s = keyspace.Share{Version: 1 + rng.Uint64N(9), Keys: rng.Uint32N(keyspace.ShareWhole), Bytes: rng.Uint32N(keyspace.ShareWhole)}
			}
			all[i] = using(rng.Int64N(quota)/int64(len(all)), s)
			if rng.IntN(20) == 0 {
				all[i].Bytes *= 3
			}
			total += all[i].Bytes
		}
		sum := func() (out uint64) {
			for _, u := range all {
				_, b := parts(u.Share)
				out += uint64(b)
			}
			return out
		}
		before := sum()
		less, more := Divide(0, quota, all)
		for _, step := range []map[int]keyspace.Share{less, more} {
			for i, s := range step {
				if s.Version != all[i].Share.Version {
					t.Fatalf("seed %d: share %+v in place of %+v", seed, s, all[i].Share)
				}
				s.Version++
				all[i].Share = s
				if now := sum(); now > max(before, keyspace.ShareWhole) {
					t.Fatalf("seed %d: shares add up to %d, before to %d", seed, now, before)
				}
			}
		}
		if now := sum(); now > keyspace.ShareWhole || now < keyspace.ShareWhole/4 && total < quota {
			t.Fatalf("seed %d: shares add up to %d of %d", seed, now, keyspace.ShareWhole)
		}
		for i, u := range all {
			_, b := parts(u.Share)
			room := quota*int64(b)/keyspace.ShareWhole - u.Bytes
			if fair := (quota - total) / int64(len(all)); fair > 0 && (room < fair-quota/apart/int64(len(all))-2 || room < fair/2-2) {
				t.Fatalf("seed %d: segment %d has room for %d, fair were %d", seed, i, room, fair)
			}
		}
		if less, more := Divide(0, quota, all); len(less)+len(more) > 0 {
			t.Fatalf("seed %d: another round moves %v and %v", seed, less, more)
		}
	}
}
