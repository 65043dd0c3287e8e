package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Hash is etcd's HashKV over the segment: CRC-32C over the name of etcd's key
// bucket and then, in revision order up to atRev (zero is the newest), over etcd's
// encoding of each revision and its KeyValue. Of what lies at or below the
// compacted revision only the versions alive at atRev count, so replicas that
// scrubbed differently agree; tombstones exactly at the compacted revision do not
// count, as in etcd since 3.5.16. The same history gives the same hash as in etcd
// 3.7. compactRev is -1 before the first compaction. The errors are ErrCompacted,
// ErrFutureRev and ErrGone.
func (g *Segment) Hash(atRev int64) (hash uint32, compactRev, rev int64, err error) {
	v := g.Read()
	defer v.Close()
	switch {
	case v.gone:
		return 0, 0, 0, ErrGone
	case atRev > 0 && atRev < v.compacted:
		return 0, 0, 0, ErrCompacted
	case atRev > v.rev:
		return 0, 0, 0, ErrFutureRev
	case atRev == 0:
		atRev = v.rev
	}
	h := hasher{v: v, rev: atRev, keepAt: atRev, floor: v.compacted}
	// etcd keeps everything if nothing is alive at atRev; what is still there then
	// is what its compaction retained.
	if res, err := v.Range([]byte{0}, []byte{0}, atRev, 0, true); err != nil {
		return 0, 0, 0, err
	} else if res.Count == 0 {
		h.keepAt = v.compacted
	}
	hash = crc32.Update(0, castagnoli, []byte("key"))
	h.run(func(key, raw []byte) { hash = crc32.Update(crc32.Update(hash, castagnoli, key), castagnoli, raw) })
	return hash, v.compacted, atRev, nil
}

// HashPart is this segment's share of the hash of a range over several segments, at
// a revision that the caller knows to be complete here, current or above. Shares are
// added, wrapping around, and Fold makes the answer of the sum. Where the range is
// cut, and when it was, makes no difference to the sum.
//
// etcd's CRC cannot be put together so: it runs over the revisions in their order,
// which jumps between the segments, and what a revision adds depends on how many
// bytes come behind it. Here each revision that Hash would count is hashed for itself.
// Of what lies at or below floor only the versions alive at rev count: floor is the
// highest compacted revision of all the segments, so that one that has not heard of
// a compaction agrees with those that have. The errors are ErrCompacted, also if
// floor is below the compacted revision or above rev, and ErrGone.
func (g *Segment) HashPart(rev, floor int64) (sum uint64, err error) {
	v := g.ReadAt(rev)
	defer v.Close()
	switch {
	case v.gone:
		return 0, ErrGone
	case rev < v.compacted || floor < v.compacted || floor > rev:
		return 0, ErrCompacted
	}
	h := hasher{v: v, rev: rev, keepAt: rev, floor: floor}
	h.run(func(key, raw []byte) {
		x := uint64(crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, raw))
		x |= uint64(crc32.Update(crc32.ChecksumIEEE(key), crc32.IEEETable, raw)) << 32
		sum += mix(x)
	})
	return sum, nil
}

// Fold makes the hash that is shown of a sum of HashParts.
func Fold(sum uint64) uint32 {
	sum = mix(sum)
	return uint32(sum ^ sum>>32)
}

// mix is the last step of splitmix64: without it differences of CRCs, which are
// linear, could cancel out.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

type hasher struct {
	v      *View
	rev    int64 // hash up to here
	keepAt int64 // of revisions at or below floor count those alive here
	floor  int64
	key    [18]byte
}

// run calls add with etcd's key and the value of every revision that counts.
func (h *hasher) run(add func(key, raw []byte)) {
	w := h.v.src.walk(1, h.rev)
	for r, ok := w.next(); ok; r, ok = w.next() {
		key, end, _ := parseKey(r.raw)
		if !h.v.rng.Contains(key) {
			continue
		}
		if r.tomb {
			r.raw = r.raw[:end]
		}
		if _, err := r.parse(r.raw); err != nil {
			panic(fmt.Sprintf("mvcc: segment %s: %v", h.v.g.id, err))
		}
		if r.main > h.floor || !r.tomb && h.kept(r.revKey, key) {
			add(h.name(r.revKey), r.raw)
		}
	}
}

// name is etcd's key of a revision, valid until the next one.
func (h *hasher) name(rk revKey) []byte {
	binary.BigEndian.PutUint64(h.key[:], uint64(rk.main))
	h.key[8] = '_'
	binary.BigEndian.PutUint64(h.key[9:], uint64(rk.sub))
	if !rk.tomb {
		return h.key[:17]
	}
	h.key[17] = 't'
	return h.key[:18]
}

// kept reports whether a compacted revision is the one alive at keepAt.
func (h *hasher) kept(rk revKey, key []byte) bool {
	ver, ok := h.v.version(key, h.keepAt)
	return ok && ver.Mod.Main == rk.main && subOf(ver.Mod.Sub) == rk.sub &&
		h.v.g.store.origins.names()[ver.Mod.Sub>>32] == rk.origin
}
