package weave

import (
	"reflect"
	"testing"

	"github.com/anchormesh/anchormesh"
)

// TestQuestionsAreShared: one question serves those that had asked before it began;
// who comes later is gathered into the next, with the smallest since.
func TestQuestionsAreShared(t *testing.T) {
	f := NewFrontier(1)
	first, ok := f.Ask(1, Ask{Seq: 7, Since: 50})
	if !ok || first != (Question{ID: 1, Since: 50}) {
		t.Fatalf("got %v %v", first, ok)
	}
	for weave, since := range []int64{90, 40, 60} {
		if q, ok := f.Ask(uint64(weave), Ask{Seq: uint64(weave), Since: since}); ok {
			t.Fatalf("question %v beside another", q)
		}
	}
	keys := []anchormesh.KeyRange{keyRange("a-b")}
	tell, next, ok := f.Answer(first, 100, keys)
	if want := []Tell{{1, Told{Seq: 7, Revision: 100, Since: 50, Ranges: keys}}}; !reflect.DeepEqual(tell, want) {
		t.Fatalf("told %v, want %v", tell, want)
	}
	if !ok || next != (Question{ID: 2, Since: 40}) {
		t.Fatalf("next %v %v", next, ok)
	}
	f.Closed(0)
	tell, _, ok = f.Answer(next, 110, nil)
	if ok || len(tell) != 2 || tell[0].Told.Since != 40 || tell[1].Weave != 2 {
		t.Fatalf("told %v, another question: %v", tell, ok)
	}
	if tell, _, _ := f.Answer(next, 110, nil); tell != nil {
		t.Fatalf("an answer that came twice told %v", tell)
	}
}

// TestBarriersAreShared: a barrier under way serves every wish up to its revision; the
// others get the next, one for all, at the highest of their revisions.
func TestBarriersAreShared(t *testing.T) {
	f := NewFrontier(1)
	wish := func(weave uint64, rev int64, threads ...int64) (Bar, bool) {
		return f.Barrier(weave, Barrier{Segment: 4, Revision: rev, Threads: threads})
	}
	first, ok := wish(1, 50, 3)
	if !ok || first != (Bar{4, 50}) {
		t.Fatalf("got %v %v", first, ok)
	}
	for _, w := range []struct {
		weave uint64
		rev   int64
		ids   []int64
	}{{2, 45, []int64{8}}, {1, 70, []int64{3}}, {2, 60, []int64{9, 8}}, {1, 80, []int64{3, 2}}} {
		if b, ok := wish(w.weave, w.rev, w.ids...); ok {
			t.Fatalf("barrier %v beside another", b)
		}
	}
	marks, next, ok := f.Barred(first)
	if want := []Mark{{1, 50, []int64{3}}, {2, 50, []int64{8}}}; !reflect.DeepEqual(marks, want) {
		t.Fatalf("marks %v, want %v", marks, want)
	}
	if !ok || next != (Bar{4, 80}) {
		t.Fatalf("next %v %v", next, ok)
	}
	if marks, _, _ := f.Barred(first); marks != nil {
		t.Fatalf("an answer that came twice marked %v", marks)
	}
	f.Closed(7)
	marks, _, ok = f.Barred(next)
	if want := []Mark{{1, 80, []int64{2, 3}}, {2, 80, []int64{9, 8}}}; ok || !reflect.DeepEqual(marks, want) {
		t.Fatalf("marks %v, want %v; another barrier: %v", marks, want, ok)
	}
	if len(f.bars) != 0 {
		t.Fatalf("kept %v", f.bars)
	}
	third, _ := wish(1, 90, 3)
	f.Left(4)
	if marks, _, _ := f.Barred(third); marks != nil {
		t.Fatalf("of a segment that left: %v", marks)
	}
}
