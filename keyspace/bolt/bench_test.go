package bolt

import (
	"encoding/binary"
	"math/rand"
	"path/filepath"
	"testing"
)

func benchKey(i uint64) []byte {
	return binary.BigEndian.AppendUint64(nil, i)
}

// BenchmarkLookup looks 500 of a million records up, the same ones each time.
func BenchmarkLookup(b *testing.B) {
	f := mustOpen(b, filepath.Join(b.TempDir(), "s.db"))
	const n = 1000000
	val := make([]byte, 300)
	for i := uint64(0); i < n; {
		err := f.Update(func(tx Tx) error {
			bk, err := tx.Appending("r")
			for range 50000 {
				bk.Put(benchKey(i), val)
				i++
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	s := f.Snapshot()
	defer s.Release()
	r := s.Bucket("r")
	var keys [][]byte
	rng := rand.New(rand.NewSource(1))
	for range 500 {
		keys = append(keys, benchKey(uint64(rng.Intn(n))))
	}
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, k := range keys {
				if len(r.Get(k)) != 300 {
					b.Fatal("lost")
				}
			}
		}
	})
	b.Run("seek", func(b *testing.B) {
		c := r.Cursor()
		b.ReportAllocs()
		for b.Loop() {
			for _, k := range keys {
				if _, v := c.Seek(k); len(v) != 300 {
					b.Fatal("lost")
				}
			}
		}
	})
}
