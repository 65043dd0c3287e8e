package keyindex

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"
)

// An index that is cut and joined at random, and written, compacted and read in
// between, holds what the model holds; every tree stays ordered.
func TestCutAndJoinAgainstModel(t *testing.T) {
	for i := range 24 {
		seed := rand.Int63()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			runPieces(t, 100, []int{5, 100, 600, 100, 5, 3000}[i%6], rng.Intn)
		})
	}
}

func FuzzCutAndJoin(f *testing.F) {
	f.Add([]byte("cut join write compact"))
	f.Add([]byte{4, 3, 4, 9, 5, 0, 0, 7, 4, 2, 6, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		i := 0
		runPieces(t, min(len(script), 100), 200, func(n int) int {
			if i >= len(script) {
				return 0
			}
			i++
			return int(script[i-1]) * 7 % n
		})
	})
}

// piece is an index and where its keys begin.
type piece struct {
	from string
	x    *Index
}

func runPieces(t *testing.T, steps, keys int, next func(n int) int) {
	t.Helper()
	pieces := []piece{{"", New()}}
	m, main := &model{compacted: -1}, int64(1)
	name := func() string { return fmt.Sprintf("k%05d", next(keys)) }
	owner := func(key string) int {
		i, found := slices.BinarySearchFunc(pieces, key, func(p piece, key string) int {
			if p.from < key {
				return -1
			} else if p.from > key {
				return 1
			}
			return 0
		})
		if !found {
			i--
		}
		return i
	}
	write := func(key string, tomb bool) {
		main++
		x, w := pieces[owner(key)].x, write{key: key, mod: Revision{main, 0}, tomb: tomb}
		if !tomb {
			x.Put([]byte(key), w.mod)
		} else if !x.Delete([]byte(key), w.mod) {
			main--
			return
		}
		m.writes = append(m.writes, w)
	}
	for range steps {
		switch op := next(8); {
		case op < 3:
			for range 1 + next(keys)/8 {
				write(name(), next(4) == 0)
			}
		case op < 5:
			at := name()
			i := owner(at)
			if pieces[i].from != at {
				pieces = slices.Insert(pieces, i+1, piece{at, pieces[i].x.Cut([]byte(at))})
			}
		case op < 6 && len(pieces) > 1:
			i := next(len(pieces) - 1)
			pieces[i].x.Join(pieces[i+1].x)
			pieces = slices.Delete(pieces, i+1, i+2)
		case op < 7:
			m.compacted = max(m.compacted, main-int64(next(20)))
			for _, p := range pieces {
				p.x.Compact(nil, m.compacted, nil, 1<<30)
			}
		default:
			i := next(len(pieces))
			for range next(40) {
				if next(2) == 0 {
					write(name(), false)
				}
			}
			if i+1 < len(pieces) {
				checkRange(t, pieces[i].x, &model{writes: within(m, pieces[i].from, pieces[i+1].from)}, main, pieces[i].from, "l", 5, 3)
			}
		}
		checkPieces(t, pieces)
	}
	x := pieces[0].x
	for _, p := range pieces[1:] {
		x.Join(p.x)
	}
	x.Compact(nil, m.compacted, nil, 1<<30)
	if err := checkTree(x); err != nil {
		t.Fatal(err)
	}
	if diff := equalContents(contents(x), m.retained()); diff != "" {
		t.Fatal(diff)
	}
}

func within(m *model, from, to string) (out []write) {
	for _, w := range m.writes {
		if w.key >= from && w.key < to {
			out = append(out, w)
		}
	}
	return out
}

func checkPieces(t *testing.T, pieces []piece) {
	t.Helper()
	for i, p := range pieces {
		if err := checkTree(p.x); err != nil {
			t.Fatalf("piece from %q: %v", p.from, err)
		}
		first, some := p.x.root.edge(false)
		last, _ := p.x.root.edge(true)
		if some && (first < p.from || i+1 < len(pieces) && last >= pieces[i+1].from) {
			t.Fatalf("piece from %q holds %q to %q", p.from, first, last)
		}
	}
}

// Trees of four levels, cut everywhere, also beyond both ends, and put together again.
func TestCutOfTallTrees(t *testing.T) {
	seed := rand.Int63()
	rng := rand.New(rand.NewSource(seed))
	const keys = 60000
	x := New()
	for i, k := range rng.Perm(keys) {
		x.Put(fmt.Appendf(nil, "%06d", k), Revision{int64(i + 2), 0})
	}
	for range 60 {
		at := rng.Intn(keys + 1)
		switch rng.Intn(5) {
		case 0:
			at = rng.Intn(3)
		case 1:
			at = keys - rng.Intn(3)
		}
		y := x.Cut(fmt.Appendf(nil, "%06d", at))
		if x.Len() != at || y.Len() != keys-at {
			t.Fatalf("seed %d: cut at %d into %d and %d", seed, at, x.Len(), y.Len())
		}
		for _, half := range []*Index{x, y} {
			if err := checkTree(half); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		x.Join(y)
		if err := checkTree(x); err != nil || x.Len() != keys {
			t.Fatalf("seed %d: %d keys after joining at %d, %v", seed, x.Len(), at, err)
		}
	}
}

func TestJoinOfOverlappingIndexesPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("indexes whose keys overlap were joined")
		}
	}()
	a, b := New(), New()
	a.Put([]byte("m"), Revision{2, 0})
	b.Put([]byte("m"), Revision{3, 0})
	a.Join(b)
}

// BenchmarkCut cuts a million keys in half and joins them again.
func BenchmarkCut(b *testing.B) {
	x := New()
	for i, k := range rand.New(rand.NewSource(1)).Perm(1_000_000) {
		x.Put(fmt.Appendf(nil, "/registry/pods/%08d", k), Revision{int64(i + 2), 0})
	}
	at := []byte("/registry/pods/00500000")
	b.ReportAllocs()
	for b.Loop() {
		y := x.Cut(at)
		x.Join(y)
	}
}
