package route

import (
	"fmt"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
)

func descriptor(id anchormesh.SegmentID, start, end string, gen anchormesh.Generation, changed uint64) *anchormesh.Descriptor {
	return &anchormesh.Descriptor{
		Segment: id, Generation: gen, Changed: changed,
		Range: anchormesh.KeyRange{Start: []byte(start), End: []byte(end)},
	}
}

func show(t *Table) string {
	var out []string
	for _, d := range t.All() {
		out = append(out, fmt.Sprintf("%d%v@%d.%d", uint64(d.Segment), d.Range, d.Generation, d.Changed))
	}
	return strings.Join(out, " ")
}

func TestLookupFindsTheSegmentThatHoldsTheKey(t *testing.T) {
	tab := NewTable()
	if _, ok := tab.Lookup([]byte("a")); ok {
		t.Error("an empty table knows a segment")
	}
	tab.Learn(descriptor(2, "g", "p", 1, 1))
	tab.Learn(descriptor(1, "", "g", 1, 1))
	tab.Learn(descriptor(3, "p", "", 1, 1))
	for key, want := range map[string]anchormesh.SegmentID{"": 1, "a": 1, "fzz": 1, "g": 2, "o": 2, "p": 3, "zz": 3} {
		if d, ok := tab.Lookup([]byte(key)); !ok || d.Segment != want {
			t.Errorf("key %q: segment %v, want %v", key, d, want)
		}
	}
}

func TestOnlyNewsAreLearnt(t *testing.T) {
	tab := NewTable()
	for _, step := range []struct {
		d    *anchormesh.Descriptor
		news bool
		want string
	}{
		{descriptor(1, "", "", 1, 5), true, `1["", ∞)@1.5`},
		{descriptor(1, "", "", 1, 5), false, `1["", ∞)@1.5`},
		{descriptor(1, "", "", 1, 4), false, `1["", ∞)@1.5`},
		{descriptor(1, "", "", 1, 9), true, `1["", ∞)@1.9`},
		// A child of a later generation displaces its parent where it can; the
		// parent stays as a hint for the rest, and does not come back by hearsay.
		{descriptor(2, "", "m", 2, 1), true, `2["", "m")@2.1 1["", ∞)@1.9`},
		{descriptor(1, "", "", 1, 10), true, `2["", "m")@2.1 1["", ∞)@1.10`},
		{descriptor(3, "m", "", 2, 1), true, `2["", "m")@2.1 3["m", ∞)@2.1`},
		{descriptor(1, "", "", 1, 99), false, `2["", "m")@2.1 3["m", ∞)@2.1`},
	} {
		if got := tab.Learn(step.d); got != step.news {
			t.Errorf("learning %v: news %v, want %v", step.d, got, step.news)
		}
		if got := show(tab); got != step.want {
			t.Errorf("the table is %s, want %s", got, step.want)
		}
	}
}

func TestCoveringSeesHoles(t *testing.T) {
	tab := NewTable()
	tab.Learn(descriptor(1, "", "g", 1, 1))
	tab.Learn(descriptor(3, "p", "", 1, 1))
	for _, c := range []struct {
		start, end string
		n          int
		whole      bool
	}{
		{"a", "b", 1, true}, {"a", "g", 1, true}, {"a", "h", 1, false}, {"h", "i", 0, false}, {"q", "", 1, true}, {"", "", 1, false},
	} {
		got, whole := tab.Covering(anchormesh.KeyRange{Start: []byte(c.start), End: []byte(c.end)})
		if len(got) != c.n || whole != c.whole {
			t.Errorf("[%q, %q): %d segments, whole %v; want %d, %v", c.start, c.end, len(got), whole, c.n, c.whole)
		}
	}
}

func TestChangedIsClosedAtEveryChange(t *testing.T) {
	tab := NewTable()
	changed := tab.Changed()
	tab.Learn(descriptor(1, "", "", 1, 1))
	<-changed
	changed = tab.Changed()
	tab.SetLeader(1, "n1")
	<-changed
	changed = tab.Changed()
	tab.SetLeader(1, "n1") // nothing new
	select {
	case <-changed:
		t.Error("a leader that is known already counts as a change")
	default:
	}
	tab.SetLeader(2, "n2")
	tab.ForgetNode("n1")
	if leader, ok := tab.Leader(2); !ok || leader != "n2" {
		t.Errorf("the leader on another node is %q now", leader)
	}
	if leader, ok := tab.Leader(1); ok {
		t.Errorf("a forgotten leader is %q", leader)
	}
}

// What a replica here says of its leader is said once: no connection that breaks and nothing
// that others say makes it forgotten, or watches that require a leader would end here until
// the next election.
func TestAReplicaKnowsItsLeaderBetter(t *testing.T) {
	tab, follows := NewTable(), anchormesh.NodeID("n1")
	tab.Follow(func(id anchormesh.SegmentID) anchormesh.NodeID {
		if id == 1 {
			return follows
		}
		return ""
	})
	tab.SetLeader(1, "n1")
	tab.Guess(2, "n1")
	tab.ForgetNode("n1")
	tab.Guess(1, "")
	tab.Guess(1, "n2")
	if leader, _ := tab.Leader(1); leader != "n1" {
		t.Errorf("the replica's leader is %q now", leader)
	}
	if leader, ok := tab.Leader(2); ok {
		t.Errorf("a forgotten leader is %q", leader)
	}
	follows = "" // it is gone, or knows of nobody
	tab.Guess(1, "n2")
	if leader, _ := tab.Leader(1); leader != "n2" {
		t.Errorf("what others say is %q", leader)
	}
}

// Before finds who holds the last key below another one, in a table of many chunks too.
func TestBeforeFindsTheSegmentThatEndsThere(t *testing.T) {
	tab := NewTable()
	if _, ok := tab.Before([]byte("a")); ok {
		t.Error("an empty table knows a segment")
	}
	const n = 500
	key := func(i int) string { return fmt.Sprintf("%04d", i) }
	for i := range n {
		end := key(i + 1)
		if i == n-1 {
			end = ""
		}
		if i == 100 || i == 200 {
			continue // holes
		}
		tab.Learn(descriptor(anchormesh.SegmentID(i+1), key(i), end, 1, 1))
	}
	if _, ok := tab.Before([]byte(key(0))); ok {
		t.Error("something is before the first key")
	}
	for i := 1; i < n; i++ {
		for at, want := range map[string]int{key(i): i - 1, key(i) + "x": i} {
			d, ok := tab.Before([]byte(at))
			if hole := want == 100 || want == 200; hole != !ok || ok && d.Segment != anchormesh.SegmentID(want+1) {
				t.Fatalf("before %q: %v, %v", at, d, ok)
			}
		}
	}
}
