package mvcc

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/anchormesh/anchormesh/keyspace/keyindex"
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
	h := hasher{v: v, rev: atRev, keepAt: atRev, sum: crc32.Update(0, castagnoli, []byte("key"))}
	// etcd keeps everything if nothing is alive at atRev; what is still there then
	// is what its compaction retained.
	if res, err := v.Range([]byte{0}, []byte{0}, atRev, 0, true); err != nil {
		return 0, 0, 0, err
	} else if res.Count == 0 {
		h.keepAt = v.compacted
	}
	h.stored()
	h.buffered(&v.src.frozen)
	h.buffered(&v.src.active)
	return h.sum, v.compacted, atRev, nil
}

type hasher struct {
	v      *View
	rev    int64 // hash up to here
	keepAt int64 // of compacted revisions count those alive here
	sum    uint32
	key    [18]byte
}

func (h *hasher) stored() {
	own, last := h.v.g.rng, min(h.rev, h.v.src.buffered()-1)
	c := h.v.src.revs.Cursor()
	for k, raw := c.Seek(nil); k != nil; k, raw = c.Next() {
		rk, kv, err := parseRevision(k, raw)
		if err != nil {
			panic(fmt.Sprintf("mvcc: segment %s: %v", h.v.g.id, err))
		}
		if rk.main > last {
			return
		}
		if own.Contains(kv.Key) {
			h.add(rk, kv.Key, raw)
		}
	}
}

func (h *hasher) buffered(t *tail) {
	for i := range t.n {
		e := t.at(i)
		if e.main > h.rev {
			return
		}
		key, end, _ := parseKey(e.raw)
		raw := e.raw
		if e.tomb {
			raw = raw[:end]
		}
		h.add(revKey{main: e.main, sub: int64(e.sub), origin: h.v.g.id, tomb: e.tomb}, key, raw)
	}
}

func (h *hasher) add(rk revKey, key, raw []byte) {
	if rk.main <= h.v.compacted && (rk.tomb || !h.kept(rk, key)) {
		return
	}
	binary.BigEndian.PutUint64(h.key[:], uint64(rk.main))
	h.key[8] = '_'
	binary.BigEndian.PutUint64(h.key[9:], uint64(rk.sub))
	k := h.key[:17]
	if rk.tomb {
		h.key[17] = 't'
		k = h.key[:18]
	}
	h.sum = crc32.Update(crc32.Update(h.sum, castagnoli, k), castagnoli, raw)
}

// kept reports whether a compacted revision is the one alive at keepAt.
func (h *hasher) kept(rk revKey, key []byte) bool {
	g := h.v.g
	g.mu.RLock()
	defer g.mu.RUnlock()
	ver, ok := g.index.Get(key, h.keepAt)
	return ok && ver.Mod == keyindex.Revision{Main: rk.main, Sub: ver.Mod.Sub} &&
		subOf(ver.Mod.Sub) == rk.sub && g.origins[ver.Mod.Sub>>32] == rk.origin
}
