package match

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/cockroachdb/datadriven"
)

// TestIndex runs scripts of add, remove and match.
func TestIndex(t *testing.T) {
	datadriven.RunTest(t, "testdata/index", func(t *testing.T, d *datadriven.TestData) string {
		x := New[string](1)
		entries := map[string]*Entry[string]{}
		var out strings.Builder
		for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
			f := strings.Fields(line)
			switch f[0] {
			case "key":
				entries[f[1]] = x.Add(anchormesh.RequestRange([]byte(f[2]), nil), f[1])
			case "range":
				end := []byte(f[3])
				if f[3] == "-" {
					end = nil
				}
				entries[f[1]] = x.Add(anchormesh.KeyRange{Start: []byte(strings.TrimPrefix(f[2], "-")), End: end}, f[1])
			case "remove":
				x.Remove(entries[f[1]])
			case "match":
				fmt.Fprintf(&out, "%s: %s\n", f[1], strings.Join(x.AppendMatches(nil, []byte(f[1])), " "))
			default:
				d.Fatalf(t, "unknown line %q", line)
			}
		}
		fmt.Fprintf(&out, "len %d\n", x.Len())
		return out.String()
	})
}

// TestIndexAgainstScan compares the index with a list that is scanned.
func TestIndexAgainstScan(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	key := func() []byte {
		b := make([]byte, rng.IntN(3))
		for i := range b {
			b[i] = byte('a' + rng.IntN(4))
		}
		return b
	}
	x := New[int](rng.Uint64())
	type filed struct {
		rng   anchormesh.KeyRange
		entry *Entry[int]
	}
	live := map[int]filed{}
	for i := range 4000 {
		if r := (anchormesh.KeyRange{Start: key(), End: key()}); rng.IntN(2) == 0 && !r.Empty() {
			if rng.IntN(3) == 0 {
				r = anchormesh.RequestRange(r.Start, nil)
			}
			live[i] = filed{r, x.Add(r, i)}
		} else if len(live) > 0 && rng.IntN(3) == 0 {
			for id, f := range live {
				if !f.entry.Range().Equal(f.rng) {
					t.Fatalf("seed %d: entry of %v says %v", seed, f.rng, f.entry.Range())
				}
				x.Remove(f.entry)
				delete(live, id)
				break
			}
		}
		k := key()
		var want []int
		for id, f := range live {
			if f.rng.Contains(k) {
				want = append(want, id)
			}
		}
		got := x.AppendMatches(nil, k)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) || x.Len() != len(live) {
			t.Fatalf("seed %d: step %d, key %q: got %v, want %v", seed, i, k, got, want)
		}
		checkTree(t, x.ranges)
	}
}

func checkTree(t *testing.T, n *node[int]) {
	t.Helper()
	if n == nil {
		return
	}
	want := *n
	want.update()
	for _, child := range []*node[int]{n.left, n.right} {
		if child != nil && child.priority > n.priority {
			t.Fatalf("heap order broken at [%q, %q)", n.start, n.end)
		}
		checkTree(t, child)
	}
	if want.maxEnd != n.maxEnd {
		t.Fatalf("largest end of [%q, %q) is %q, want %q", n.start, n.end, n.maxEnd, want.maxEnd)
	}
}

// BenchmarkMatch looks a key up among 10,000 single-key watches and 10,000
// distinct ranges of which one matches.
func BenchmarkMatch(b *testing.B) {
	x := New[int](7)
	for i := range 10_000 {
		k := fmt.Appendf(nil, "registry/pods/ns-%05d/", i)
		x.Add(anchormesh.RequestRange(k, append(slices.Clone(k[:len(k)-1]), '0')), i)
		x.Add(anchormesh.RequestRange(fmt.Appendf(nil, "registry/pods/ns-%05d/x", i), nil), i)
	}
	key := []byte("registry/pods/ns-04711/x")
	var dst []int
	b.ReportAllocs()
	for b.Loop() {
		dst = x.AppendMatches(dst[:0], key)
	}
	if len(dst) != 2 {
		b.Fatalf("matched %d", len(dst))
	}
}
