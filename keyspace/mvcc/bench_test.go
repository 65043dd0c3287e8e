package mvcc

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

const benchKeys = 100000

func benchKey(i int) []byte {
	return fmt.Appendf(nil, "/registry/pods/namespace-%03d/pod-%08d", i%500, i)
}

func benchStore(b *testing.B) (*Store, *Segment) {
	f, err := bolt.OpenFile(bolt.DefaultFileConfig(filepath.Join(b.TempDir(), "scope.db")))
	must(b, err)
	opts := DefaultOptions()
	opts.MaxPendingBytes = 4 << 30
	s, err := Open(f, opts)
	must(b, err)
	b.Cleanup(func() { f.Close() })
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(b, err)
	return s, g
}

// fill writes every key once, in the given order, and commits.
func fill(b *testing.B, s *Store, g *Segment, order []int) {
	apply(g, order)
	must(b, s.Commit())
}

func apply(g *Segment, order []int) {
	val := make([]byte, 256)
	for len(order) > 0 {
		n := min(100, len(order))
		index, _ := g.Applied()
		batch := g.Begin(index+1, 1)
		for _, i := range order[:n] {
			x := batch.Txn()
			x.Put(benchKey(i), val, 0)
			x.End()
		}
		batch.End()
		order = order[n:]
	}
}

func ascending() (out []int) {
	for i := range benchKeys {
		out = append(out, i)
	}
	return out
}

// BenchmarkPut applies puts of 256 bytes to existing keys, 32 in an entry, without
// commits.
func BenchmarkPut(b *testing.B) {
	for _, pub := range []bool{false, true} {
		b.Run(fmt.Sprintf("publisher=%v", pub), func(b *testing.B) {
			s, g := benchStore(b)
			fill(b, s, g, ascending())
			if pub {
				g.SetPublisher(discard{})
			}
			keys, val := make([][]byte, benchKeys), make([]byte, 256)
			for i, k := range rand.New(rand.NewSource(1)).Perm(benchKeys) {
				keys[i] = benchKey(k)
			}
			b.ReportAllocs()
			b.ResetTimer()
			index, _ := g.Applied()
			for i := 0; i < b.N; {
				index++
				batch := g.Begin(index, 1)
				for range 32 {
					x := batch.Txn()
					x.Put(keys[i%benchKeys], val, 0)
					x.End()
					i++
				}
				batch.End()
			}
		})
	}
}

type discard struct{}

func (discard) Publish([]Event, int64) {}

// BenchmarkPutNew inserts new keys in random order.
func BenchmarkPutNew(b *testing.B) {
	_, g := benchStore(b)
	keys, val := make([][]byte, b.N), make([]byte, 256)
	for i, k := range rand.New(rand.NewSource(1)).Perm(b.N) {
		keys[i] = benchKey(k)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := 0; i < b.N; {
		batch := g.Begin(uint64(i+1), 1)
		for n := 0; n < 32 && i < b.N; n++ {
			x := batch.Txn()
			x.Put(keys[i], val, 0)
			x.End()
			i++
		}
		batch.End()
	}
}

// BenchmarkCommit is the cost per put of commits of 20000 puts.
func BenchmarkCommit(b *testing.B) {
	s, g := benchStore(b)
	val := make([]byte, 256)
	var spent time.Duration
	index, puts := uint64(0), 0
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		for range 200 {
			index++
			batch := g.Begin(index, 1)
			for range 100 {
				x := batch.Txn()
				x.Put(benchKey(puts%benchKeys), val, 0)
				x.End()
				puts++
			}
			batch.End()
		}
		b.StartTimer()
		start := time.Now()
		must(b, s.Commit())
		spent += time.Since(start)
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(puts), "ns/put")
}

// BenchmarkRange500 reads 500 neighbouring keys of a hundred thousand: written every
// 500th, in random order, and just now.
func BenchmarkRange500(b *testing.B) {
	s, g := benchStore(b)
	read := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			v := g.Read()
			res, err := v.Range([]byte("/registry/pods/namespace-042/"), []byte("/registry/pods/namespace-045/"), 0, 500, false)
			if err != nil || len(res.KVs) != 500 || res.Count != 600 {
				b.Fatal(err, len(res.KVs), res.Count)
			}
			v.Close()
		}
	}
	order := ascending()
	fill(b, s, g, order)
	b.Run("stored/interleaved", read)
	rand.New(rand.NewSource(1)).Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	fill(b, s, g, order)
	b.Run("stored/random", read)
	apply(g, slices.DeleteFunc(order, func(i int) bool { return i%500 < 42 || i%500 > 44 }))
	b.Run("buffered", read)
}

// BenchmarkGet reads single keys that lie in the file.
func BenchmarkGet(b *testing.B) {
	s, g := benchStore(b)
	fill(b, s, g, ascending())
	rng := rand.New(rand.NewSource(1))
	b.ReportAllocs()
	for b.Loop() {
		v := g.Read()
		if res, err := v.Range(benchKey(rng.Intn(benchKeys)), nil, 0, 0, false); err != nil || len(res.KVs) != 1 {
			b.Fatal(err)
		}
		v.Close()
	}
}

// BenchmarkOpen rebuilds the index of a hundred thousand keys; the file stays open.
func BenchmarkOpen(b *testing.B) {
	s, g := benchStore(b)
	fill(b, s, g, rand.New(rand.NewSource(1)).Perm(benchKeys))
	for b.Loop() {
		_, err := Open(s.backend, DefaultOptions())
		must(b, err)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchKeys, "ns/revision")
}

// BenchmarkReadDuringCommit reads single keys while a commit of 100 MB runs, and
// reports the latency without it beside that with it.
func BenchmarkReadDuringCommit(b *testing.B) {
	s, g := benchStore(b)
	fill(b, s, g, ascending())
	sample := func(name string, until func(n int) bool) {
		var took []time.Duration
		rng := rand.New(rand.NewSource(1))
		for n := 0; !until(n); n++ {
			key := benchKey(rng.Intn(benchKeys))
			start := time.Now()
			v := g.Read()
			if res, err := v.Range(key, nil, 0, 0, false); err != nil || len(res.KVs) != 1 {
				b.Fatal(err)
			}
			v.Close()
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), name+"-p50-ns")
		b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), name+"-p99-ns")
	}
	for b.Loop() {
		sample("idle", func(n int) bool { return n > 50000 })
		for s.Pending() < 100<<20 {
			apply(g, ascending())
		}
		done := make(chan error, 1)
		go func() { done <- s.Commit() }()
		sample("busy", func(int) bool { return len(done) > 0 })
		must(b, <-done)
	}
}

// BenchmarkCut cuts a segment of a million keys in half, with 25,000 writes that wait
// for a commit, and takes the child back in. It reports the longest entry of both.
func BenchmarkCut(b *testing.B) {
	const keys = 1_000_000
	s := mustStore(b, bolt.NewMemory())
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(b, err)
	perm := rand.New(rand.NewSource(1)).Perm(keys)
	for len(perm) > 0 {
		apply(g, perm[:100_000])
		must(b, s.Commit())
		perm = perm[100_000:]
	}
	apply(g, rand.New(rand.NewSource(2)).Perm(25_000))
	next := anchormesh.SegmentID(2)
	var cut, absorb time.Duration
	entry := func(longest *time.Duration, do func(batch *Batch)) {
		index, _ := g.Applied()
		start := time.Now()
		batch := g.Begin(index+1, 1)
		do(batch)
		batch.End()
		*longest = max(*longest, time.Since(start))
	}
	b.ReportAllocs()
	for b.Loop() {
		var child *Segment
		entry(&cut, func(batch *Batch) {
			child = batch.Cut(next, benchKey(keys/2), Meta{Applied: 5, Term: 1}).Segment()
		})
		next++
		entry(&absorb, func(batch *Batch) { batch.Absorb(child, 0) })
	}
	b.ReportMetric(float64(cut.Microseconds()), "longest-cut-µs")
	b.ReportMetric(float64(absorb.Microseconds()), "longest-absorb-µs")
}
