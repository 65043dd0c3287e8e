package keyindex

import (
	"fmt"
	"math/rand"
	"runtime"
	"testing"
)

const benchKeys = 1000000

func benchIndex(order []int) (*Index, [][]byte) {
	x := New()
	keys := make([][]byte, len(order))
	for i, k := range order {
		keys[i] = fmt.Appendf(nil, "/registry/pods/namespace-%03d/pod-%08d", k%500, k)
	}
	for i, key := range keys {
		x.Put(key, Revision{int64(i + 2), 0})
	}
	return x, keys
}

// BenchmarkMemory is what a key of one version costs: 38 bytes of it are the key.
func BenchmarkMemory(b *testing.B) {
	order := rand.New(rand.NewSource(1)).Perm(benchKeys)
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		x, keys := benchIndex(order)
		clear(keys)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc-24*benchKeys)/benchKeys, "B/key")
		runtime.KeepAlive(x)
		runtime.KeepAlive(keys)
	}
}

func BenchmarkGet(b *testing.B) {
	x, keys := benchIndex(rand.New(rand.NewSource(1)).Perm(benchKeys))
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if _, ok := x.Get(keys[i%benchKeys], 1<<60); !ok {
			b.Fatal("lost")
		}
		i += 7919
	}
}

func BenchmarkRange500(b *testing.B) {
	x, _ := benchIndex(rand.New(rand.NewSource(1)).Perm(benchKeys))
	dst := make([]Found, 0, 500)
	b.ReportAllocs()
	for b.Loop() {
		found, _, _, _ := x.Range(dst, Query{Start: []byte("/registry/pods/namespace-042/"), Rev: 1 << 60, Limit: 500, Step: 500})
		if len(found) != 500 {
			b.Fatal(len(found))
		}
	}
}
