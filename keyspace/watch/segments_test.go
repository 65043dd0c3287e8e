package watch

import (
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

// TestSplitUnderARead cuts the segment while the hub reads its history, the live
// cursor's or a lagging watch's. What is read then lacks the right half, so a watch
// over both must end where it stood; the one that stays misses nothing.
func TestSplitUnderARead(t *testing.T) {
	for name, queue := range map[string]int{"live": 1, "lagging": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			seg := newSegment()
			l := DefaultLimits()
			l.QueueBytes = queue
			hub, err := NewHub(seg, l)
			if err != nil {
				t.Fatal(err)
			}
			s := hub.NewStream()
			both := Request{Range: anchormesh.KeyRange{Start: []byte("a"), End: []byte("z")}}
			left := Request{Range: anchormesh.KeyRange{Start: []byte("a"), End: []byte("k")}}
			if name == "lagging" {
				both.StartRevision, left.StartRevision = 2, 2
			}
			write := func() {
				p := seg.write(op{"a", "1"}, op{"m", "1"})
				hub.Publish(p.events, p.rev)
			}
			if name == "lagging" {
				write()
			}
			mustCreate(t, s, both)
			mustCreate(t, s, left)
			if name == "live" {
				write()
			}
			moved := errors.New("moved")
			seg.reading = func() {
				hub.Bound(left.Range, moved)
				seg.cut(left.Range)
			}
			drain(t, hub)
			if seg.reading != nil {
				t.Fatal("history was not read")
			}
			mustNext(t, s)
			mustNext(t, s)
			if r := mustNext(t, s); r.ID != 0 || !r.Canceled || r.Revision != 1 || !errors.Is(r.Reason, moved) {
				t.Fatal(show(t, r))
			}
			if r := mustNext(t, s); r.ID != 1 || len(r.Events) != 1 || r.Revision != 2 {
				t.Fatal(show(t, r))
			}
		})
	}
}

// epoch is a time.
var epoch = time.Unix(1000, 0)

func drain(t *testing.T, hub *Hub) {
	t.Helper()
	for range 1000 {
		more, err := hub.step(epoch)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			return
		}
	}
	t.Fatal("the hub never comes to rest")
}

// TestStepEnds: a driver of Step hears of the end as Run's caller does.
func TestStepEnds(t *testing.T) {
	hub, err := NewHub(newSegment(), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	s := hub.NewStream()
	mustCreate(t, s, Request{Range: key("a"), ProgressNotify: true})
	next, over, err := hub.Step(epoch)
	if want := epoch.Add(DefaultLimits().ProgressInterval); !next.Equal(want) || over || err != nil {
		t.Fatalf("next turn at %v, want %v; %v %v", next, want, over, err)
	}
	hub.Stop(nil)
	if _, over, err := hub.Step(epoch); !over || err != nil {
		t.Fatalf("after Stop: %v %v", over, err)
	}
	seg := newSegment()
	seg.write(op{"a", "1"})
	hub, _ = NewHub(broken{seg}, DefaultLimits())
	mustCreate(t, hub.NewStream(), Request{Range: key("a"), StartRevision: 1})
	if _, over, err := hub.Step(epoch); !over || !errors.Is(err, errDisk) {
		t.Fatalf("with a broken history: %v %v", over, err)
	}
}

// TestReceived: an event that came from another node's hub is the same event.
func TestReceived(t *testing.T) {
	seg := newSegment()
	hub, _ := NewHub(seg, DefaultLimits())
	s := hub.NewStream()
	mustCreate(t, s, Request{Range: key("a"), PrevKV: true})
	for _, v := range []string{"1", "2"} {
		p := seg.write(op{"a", v})
		hub.Publish(p.events, p.rev)
	}
	drain(t, hub)
	mustNext(t, s)
	r := mustNext(t, s)
	want := show(t, r)
	for i, ev := range r.Events {
		r.Events[i] = Received(ev.Revision(), ev.Sub(), ev.Field(true), true)
	}
	if got := show(t, r); got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
}
