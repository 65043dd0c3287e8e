package mvcc

import (
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// The figures are those of etcd 3.7.3's mvcc store, driven with the same history
// (hashByRev; etcd also remembers the hash it computed while compacting, which is
// of an older compact revision and is not compared here).
func TestHashIsEtcds(t *testing.T) {
	s := mustStore(t, bolt.NewMemory())
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	index := uint64(0)
	txn := func(f func(x *Txn)) {
		index++
		b := g.Begin(index, 1)
		x := b.Txn()
		f(x)
		x.End()
		b.End()
	}
	put := func(k, v string) { txn(func(x *Txn) { x.Put([]byte(k), []byte(v), 0) }) }
	compact := func(rev int64) {
		index++
		b := g.Begin(index, 1)
		must(t, b.Compact(rev))
		b.End()
	}
	// Every state is hashed as applied, as committed and as scrubbed.
	check := func(rev, compacted int64, want uint32) {
		t.Helper()
		for _, state := range []string{"applied", "committed", "scrubbed"} {
			got, comp, at, err := g.Hash(rev)
			if err != nil || got != want || comp != compacted || at != rev {
				t.Errorf("%s: Hash(%d) = %08x %d %d %v, etcd has %08x %d", state, rev, got, comp, at, err, want, compacted)
			}
			must(t, s.Commit())
			if state == "committed" {
				for more := true; more; {
					more, err = s.Scrub(1)
					must(t, err)
				}
			}
		}
	}
	check(1, -1, 0x40a4756d)
	put("a", "1")
	put("b", "2")
	put("a", "3")
	txn(func(x *Txn) { x.Delete([]byte("b")) })
	put("c", "")
	put("b", "4")
	txn(func(x *Txn) {
		x.Put([]byte("x"), []byte("y"), 77)
		x.Put([]byte("y"), []byte("z"), 0)
	})
	for rev, want := range []uint32{0x9a396dd7, 0x6ceed8d6, 0x7b5cbf9c, 0x43188ed4, 0x74191d60, 0xeee52449, 0x5fbdcee9} {
		check(int64(rev+2), -1, want)
	}
	compact(5)
	check(6, 5, 0x0e99eae4)
	check(7, 5, 0xa3f32339)
	check(8, 5, 0xa6a7a58e)
	txn(func(x *Txn) { x.DeleteRange([]byte("a"), []byte("z")) })
	check(9, 5, 0x02674c4f)
	compact(8)
	check(9, 8, 0x02674c4f)
	compact(9)
	put("a", "again")
	check(10, 9, 0xdc892482)
	if _, _, _, err := g.Hash(8); !errors.Is(err, ErrCompacted) {
		t.Errorf("hash below the compacted revision: %v", err)
	}
	if _, _, _, err := g.Hash(11); !errors.Is(err, ErrFutureRev) {
		t.Errorf("hash of the future: %v", err)
	}
}
