package weave

import (
	"fmt"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

const sleepers = 10_000

// wide returns a weave with a watch of everything over so many segments.
func wide(n int) *Weave {
	w, err := New(DefaultLimits())
	if err != nil {
		panic(err)
	}
	at := func(i int) []byte {
		if i == 0 || i == n {
			return nil
		}
		return fmt.Appendf(nil, "%05d", i)
	}
	parts := make([]Part, n)
	for i := range parts {
		parts[i] = Part{anchormesh.SegmentID(i + 1), anchormesh.KeyRange{Start: at(i), End: at(i + 1)}}
	}
	w.Step(time.Time{}, Create{})
	w.Step(time.Time{}, Located{Thread: 1, Parts: parts})
	fx := w.Step(time.Time{}, Told{Seq: 1, Revision: 10})
	for _, b := range fx.Barrier {
		fx = w.Step(time.Time{}, Came{watch.Response{ID: b.Threads[0], Revision: 10, Mark: true}})
	}
	if len(fx.Send) != 1 || !fx.Send[0].Created {
		panic(fmt.Sprintf("not created: %v", fx))
	}
	return w
}

// TestSleepersSleep (counterexample 13): a watch of ten thousand segments that has
// begun shows events of one without a barrier for any other.
func TestSleepersSleep(t *testing.T) {
	w := wide(sleepers)
	for rev := int64(11); rev < 100; rev++ {
		fx := w.Step(time.Time{}, Came{watch.Response{ID: 500, Revision: rev, Events: []*watch.Event{watch.Received(rev, 0, nil, false)}}})
		if fx.Ask == nil || len(fx.Barrier) > 0 || len(fx.Send) > 0 {
			t.Fatalf("an event waits: %v", fx)
		}
		fx = w.Step(time.Time{}, Told{Seq: fx.Ask.Seq, Revision: rev, Since: fx.Ask.Since, Ranges: []anchormesh.KeyRange{keyRange("00498-00499")}})
		if len(fx.Barrier) != 1 || len(fx.Barrier[0].Threads) != 1 || len(fx.Send) != 1 || fx.Send[0].Revision != rev {
			t.Fatalf("the home told: %v", fx)
		}
		w.Step(time.Time{}, Came{watch.Response{ID: 500, Revision: rev, Mark: true}})
	}
}

// BenchmarkWide is an event of one segment among ten thousand, and the home's word.
func BenchmarkWide(b *testing.B) {
	w := wide(sleepers)
	rev := int64(10)
	ranges := []anchormesh.KeyRange{keyRange("00498-00499")}
	for b.Loop() {
		rev++
		fx := w.Step(time.Time{}, Came{watch.Response{ID: 500, Revision: rev, Events: []*watch.Event{watch.Received(rev, 0, nil, false)}}})
		w.Step(time.Time{}, Told{Seq: fx.Ask.Seq, Revision: rev, Since: fx.Ask.Since, Ranges: ranges})
	}
}

// BenchmarkNarrow is an event of a watch of one segment.
func BenchmarkNarrow(b *testing.B) {
	w := wide(1)
	rev := int64(10)
	for b.Loop() {
		rev++
		w.Step(time.Time{}, Came{watch.Response{ID: 2, Revision: rev, Events: []*watch.Event{watch.Received(rev, 0, nil, false)}}})
	}
}

// TestLimits: what makes no sense is refused.
func TestLimits(t *testing.T) {
	for i, change := range []func(*Limits){
		func(l *Limits) { l.HeldBytes = 0 }, func(l *Limits) { l.ResponseBytes = 0 },
		func(l *Limits) { l.Asks = 0 }, func(l *Limits) { l.Direct = -1 }, func(l *Limits) { l.ProgressInterval = 0 },
	} {
		l := DefaultLimits()
		if change(&l); l.Validate() == nil {
			t.Errorf("limits %d were taken: %+v", i, l)
		}
		if _, err := New(l); err == nil {
			t.Errorf("New took limits %d", i)
		}
	}
}

// TestPick gives IDs as etcd does.
func TestPick(t *testing.T) {
	w, _ := New(DefaultLimits())
	create := func(want int64) {
		t.Helper()
		id, err := w.Pick(0)
		if err != nil || id != want {
			t.Fatalf("picked %d, %v, want %d", id, err, want)
		}
		w.Step(time.Time{}, Create{Request: watch.Request{ID: id, Range: keyRange("a")}})
	}
	create(0)
	if id, err := w.Pick(1); id != 1 || err != nil {
		t.Fatal(id, err)
	}
	w.Step(time.Time{}, Create{Request: watch.Request{ID: 1, Range: keyRange("a")}})
	if _, err := w.Pick(1); err != watch.ErrDuplicateID {
		t.Fatal(err)
	}
	create(2)
}

// What two segments bring of one revision comes out in the order of the writes, as it
// does from history once the two are one.
func TestOrderInsideARevision(t *testing.T) {
	w := wide(2)
	brought := func(thread int64, subs ...int64) Came {
		r := watch.Response{ID: thread, Revision: 20}
		for _, sub := range subs {
			r.Events = append(r.Events, watch.Received(20, sub, nil, false))
		}
		return Came{r}
	}
	fx := w.Step(time.Time{}, brought(2, 1, 4))
	if fx.Ask != nil {
		w.Step(time.Time{}, Told{Seq: fx.Ask.Seq, Revision: 20, Since: fx.Ask.Since, Ranges: []anchormesh.KeyRange{{}}})
	}
	fx = w.Step(time.Time{}, brought(3, 0, 2, 3))
	for thread := int64(2); thread <= 3 && len(fx.Send) == 0; thread++ {
		fx = w.Step(time.Time{}, Came{watch.Response{ID: thread, Revision: 20, Mark: true}})
	}
	if len(fx.Send) != 1 || len(fx.Send[0].Events) != 5 {
		t.Fatalf("sent %v", fx)
	}
	for i, e := range fx.Send[0].Events {
		if e.Sub() != int64(i) {
			t.Errorf("place %d shows write %d", i, e.Sub())
		}
	}
}
