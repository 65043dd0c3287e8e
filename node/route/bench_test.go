package route

import (
	"fmt"
	"testing"

	"github.com/anchormesh/anchormesh"
)

func large(n int) *Table {
	tab := NewTable()
	for i := range n {
		tab.Learn(nth(i, n, 1))
	}
	return tab
}

func nth(i, n int, changed uint64) *anchormesh.Descriptor {
	start, end := fmt.Sprintf("/registry/%07d", i), fmt.Sprintf("/registry/%07d", i+1)
	if i == 0 {
		start = ""
	}
	if i == n-1 {
		end = ""
	}
	return descriptor(anchormesh.SegmentID(i+1), start, end, 1, changed)
}

func BenchmarkLookup10000(b *testing.B) {
	tab := large(10000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := tab.Lookup([]byte("/registry/0004711/x")); !ok {
			b.Fatal("lost")
		}
	}
}

func BenchmarkLearn10000(b *testing.B) {
	tab := large(10000)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if !tab.Learn(nth(i*7919%10000, 10000, uint64(i+2))) {
			b.Fatal("no news")
		}
	}
}

func BenchmarkSetLeader10000(b *testing.B) {
	tab := large(10000)
	nodes := []anchormesh.NodeID{"n1", "n2", "n3"}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		tab.SetLeader(anchormesh.SegmentID(i*7919%10000+1), nodes[i/10000%3])
	}
}

// TestLookupsNeedNoMemory: they are on the way of every request.
func TestLookupsNeedNoMemory(t *testing.T) {
	tab, key := large(3000), []byte("/registry/0001234/x")
	tab.SetLeader(1235, "n1")
	got := testing.AllocsPerRun(100, func() {
		d, ok := tab.Lookup(key)
		if !ok || d.Segment != 1235 {
			t.Fatal(d)
		}
		tab.Leader(d.Segment)
		tab.Segment(d.Segment)
	})
	if got > 2 { // the IDs' way into an interface
		t.Errorf("%v allocations", got)
	}
}
