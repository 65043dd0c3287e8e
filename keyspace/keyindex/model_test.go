package keyindex

import (
	"fmt"
	"math/rand"
	"slices"
	"sort"
	"testing"
)

// model is the index as a list of all writes, searched from one end to the other.
type model struct {
	writes    []write
	compacted int64
}

type write struct {
	key  string
	mod  Revision
	tomb bool
}

func (m *model) versions(key string) (out []Version) {
	var v Version
	for _, w := range m.writes {
		switch {
		case w.key != key:
			continue
		case w.tomb:
			v = Version{Mod: w.mod}
		default:
			v = v.next(w.mod)
		}
		out = append(out, v)
	}
	return out
}

func (m *model) at(key string, rev int64) (out Version, ok bool) {
	for _, v := range m.versions(key) {
		if v.Mod.Main <= rev {
			out, ok = v, true
		}
	}
	return out, ok
}

// retained is compaction by its definition: what a read, or a watch, at or above
// the compacted revision can see.
func (m *model) retained() map[string][]Version {
	out := map[string][]Version{}
	for _, key := range m.keys() {
		all := m.versions(key)
		for i, v := range all {
			seen := v.Mod.Main >= m.compacted
			if i+1 == len(all) || all[i+1].Mod.Main > m.compacted {
				seen = seen || !v.Tombstone()
			} else {
				seen = false
			}
			if seen {
				out[key] = append(out[key], v)
			}
		}
	}
	return out
}

func (m *model) keys() []string {
	seen := map[string]bool{}
	for _, w := range m.writes {
		seen[w.key] = true
	}
	var out []string
	for k := range seen {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// contents lists everything an index holds.
func contents(x *Index) map[string][]Version {
	out := map[string][]Version{}
	changes, _ := x.Since(nil, nil, nil, 0, 1<<62, 1<<30)
	for _, c := range changes {
		out[c.Key] = append(out[c.Key], c.Version)
	}
	return out
}

func equalContents(a, b map[string][]Version) string {
	for k := range b {
		if _, ok := a[k]; !ok {
			return fmt.Sprintf("key %q is missing, want %v", k, b[k])
		}
	}
	for k, va := range a {
		if !slices.Equal(va, b[k]) {
			return fmt.Sprintf("key %q has %v, want %v", k, va, b[k])
		}
	}
	return ""
}

// checkTree proves the order and bounds of every node.
func checkTree(x *Index) error {
	count := 0
	var last string
	err := checkNode(x.root, "", "", &last, &count)
	if err == nil && count != x.Len() {
		return fmt.Errorf("%d keys in the tree, Len says %d", count, x.Len())
	}
	return err
}

func checkNode(n *node, low, high string, last *string, count *int) error {
	if n.leaf() {
		if len(n.keys) != len(n.heads) || len(n.keys) != len(n.olds) {
			return fmt.Errorf("arrays of a leaf differ in length")
		}
		for i, k := range n.keys {
			if *count > 0 && k <= *last || k < low || high != "" && k >= high {
				return fmt.Errorf("key %q out of order (after %q, within %q..%q)", k, *last, low, high)
			}
			if h := n.olds[i]; h != nil && len(h.versions) == 0 {
				return fmt.Errorf("key %q has an empty history", k)
			}
			*last = k
			*count++
		}
		return nil
	}
	if len(n.keys)+1 != len(n.kids) || len(n.kids) > nodeMax {
		return fmt.Errorf("branch of %d keys and %d children", len(n.keys), len(n.kids))
	}
	for i, kid := range n.kids {
		l, h := low, high
		if i > 0 {
			l = n.keys[i-1]
		}
		if i < len(n.keys) {
			h = n.keys[i]
		}
		if err := checkNode(kid, l, h, last, count); err != nil {
			return err
		}
	}
	return nil
}

// run drives an index and the model with the same operations and compares all
// answers. next draws a number below n; a fuzzer or a seed stands behind it.
func run(t *testing.T, steps, keys int, next func(n int) int) {
	t.Helper()
	x, m, main := New(), &model{compacted: -1}, int64(1)
	name := func() string { return fmt.Sprintf("k%03d", next(keys)) }
	for range steps {
		switch op := next(12); {
		case op < 6:
			main++
			sub := int64(0)
			for range 1 + next(3) {
				k, w := name(), write{}
				w = write{key: k, mod: Revision{main, sub}, tomb: next(3) == 0}
				want, live := m.at(k, main)
				live = live && !want.Tombstone()
				if !w.tomb {
					x.Put([]byte(k), w.mod)
				} else if got := x.Delete([]byte(k), w.mod); got != live {
					t.Fatalf("Delete(%s) says %v, model %v", k, got, live)
				}
				if !w.tomb || live {
					m.writes = append(m.writes, w)
					sub++
				}
			}
			if sub == 0 {
				main--
			}
		case op < 9:
			rev := max(m.compacted, main-int64(next(8)))
			k := name()
			want, ok := m.at(k, rev)
			ok = ok && !want.Tombstone()
			if got, found := x.Get([]byte(k), rev); found != ok || ok && got != want {
				t.Fatalf("Get(%s, %d) = %v %v, want %v %v", k, rev, got, found, want, ok)
			}
		case op < 11:
			checkRange(t, x, m, max(m.compacted, main-int64(next(8))), name(), name(), next(6), 1+next(5))
		default:
			m.compacted = max(m.compacted, main-int64(next(8)))
			checkCompact(t, x, m, 1+next(6))
		}
	}
	checkCompact(t, x, m, 1<<20)
}

func checkRange(t *testing.T, x *Index, m *model, rev int64, start, end string, limit, step int) {
	t.Helper()
	var want []Found
	for _, k := range m.keys() {
		if v, ok := m.at(k, rev); ok && !v.Tombstone() && k >= start && k < end {
			want = append(want, Found{k, v})
		}
	}
	total := int64(len(want))
	want = want[:min(limit, len(want))]
	q := Query{Start: []byte(start), End: []byte(end), Rev: rev, Limit: limit, Step: step}
	var got []Found
	var seen int64
	for more := true; more; {
		var n int
		var next string
		got, n, next, more = x.Range(got, q)
		seen += int64(n)
		q.Start = []byte(next)
	}
	if !slices.Equal(got, want) || seen != total {
		t.Fatalf("Range(%s, %s) at %d: %v of %d, want %v of %d", start, end, rev, got, seen, want, total)
	}
}

// checkCompact compacts in small steps; reads in the midst of it see no change.
func checkCompact(t *testing.T, x *Index, m *model, step int) {
	t.Helper()
	before := contents(x)
	var dropped []Dropped
	var from []byte
	for more := true; more; {
		var next string
		dropped, next, more = x.Compact(dropped, m.compacted, from, step)
		from = []byte(next)
		checkRange(t, x, m, m.compacted, "k", "l", 3, 1000)
	}
	after, want := contents(x), m.retained()
	if diff := equalContents(after, want); diff != "" {
		t.Fatalf("after Compact(%d): %s", m.compacted, diff)
	}
	if err := checkTree(x); err != nil {
		t.Fatal(err)
	}
	n := 0
	for k := range before {
		n += len(before[k]) - len(after[k])
	}
	if n != len(dropped) {
		t.Fatalf("Compact(%d) reports %d dropped, %d are gone", m.compacted, len(dropped), n)
	}
}

func TestAgainstModel(t *testing.T) {
	for range 30 {
		seed := rand.Int63()
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewSource(seed))
			run(t, 150, []int{3, 20, 200}[rng.Intn(3)], rng.Intn)
		})
	}
}

func FuzzAgainstModel(f *testing.F) {
	f.Add([]byte("put delete compact"))
	f.Add([]byte{11, 0, 0, 5, 1, 1, 11, 3, 9, 8, 7})
	f.Fuzz(func(t *testing.T, script []byte) {
		i := 0
		run(t, min(len(script), 200), 6, func(n int) int {
			if i >= len(script) {
				return 0
			}
			i++
			return int(script[i-1]) % n
		})
	})
}

// The tree itself, with enough keys for three levels, in several orders.
func TestTreeGrowsAndShrinks(t *testing.T) {
	seed := rand.Int63()
	rng := rand.New(rand.NewSource(seed))
	const keys = 20000
	orders := map[string][]int{"random": rng.Perm(keys), "up": nil, "down": nil}
	for i := range keys {
		orders["up"] = append(orders["up"], i)
		orders["down"] = append(orders["down"], keys-1-i)
	}
	for name, order := range orders {
		x := New()
		for i, k := range order {
			x.Put(fmt.Appendf(nil, "%08d", k), Revision{int64(i + 2), 0})
		}
		if err := checkTree(x); err != nil || x.Len() != keys {
			t.Fatalf("%s, seed %d: %d keys, %v", name, seed, x.Len(), err)
		}
		for i, k := range order {
			key := fmt.Appendf(nil, "%08d", k)
			if _, ok := x.Get(key, 1<<60); !ok || !x.Delete(key, Revision{int64(keys + i + 2), 0}) {
				t.Fatalf("%s, seed %d: key %s is lost", name, seed, key)
			}
		}
		var from []byte
		for more := true; more; {
			var next string
			_, next, more = x.Compact(nil, 3*keys, from, 777)
			from = []byte(next)
			if err := checkTree(x); err != nil {
				t.Fatalf("%s, seed %d: %v", name, seed, err)
			}
		}
		if x.Len() != 0 || !x.root.leaf() {
			t.Fatalf("%s, seed %d: %d keys left", name, seed, x.Len())
		}
	}
}
