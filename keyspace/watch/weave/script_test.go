package weave

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// script drives one weave by hand.
type script struct {
	weave *Weave
	now   time.Time
	owed  []Barrier // that were asked for and not marked by "marks"
}

// TestScripts runs testdata/*. A range is from-to, one key alone, or "-" for all.
//
//	weave [held=N] [response=N] [asks=N] [direct=N]
//	create RANGE [id=] [start=] [progress] [leader] [resumed] | cancel ID | progress
//	located THREAD SEGMENT:RANGE ...
//	ev THREAD R[*N] ...           events, N of one revision, in one response
//	mark THREAD R | end THREAD R | compacted THREAD R | broke THREAD
//	marks                         all marks that were asked for
//	told SEQ T since=R [RANGE ...]
//	leaderless RANGE | tick D
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var sc *script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			for line := range strings.Lines(strings.TrimSpace(d.Input)) {
				f := strings.Fields(line)
				if f[0] == "weave" {
					sc = newScript(t, f[1:])
					continue
				}
				fmt.Fprintf(&out, "%s\n", strings.TrimSpace(line))
				if f[0] == "marks" {
					out.WriteString(sc.marks())
					continue
				}
				out.WriteString(sc.step(sc.event(t, f)))
			}
			return out.String()
		})
	})
}

func (sc *script) step(ev Event) string {
	fx := sc.weave.Step(sc.now, ev)
	sc.owed = append(sc.owed, fx.Barrier...)
	return show(fx)
}

func (sc *script) marks() (out string) {
	owed := sc.owed
	sc.owed = nil
	for _, b := range owed {
		for _, id := range b.Threads {
			out += sc.step(Came{watch.Response{ID: id, Revision: b.Revision, Mark: true}})
		}
	}
	return out
}

func newScript(t *testing.T, args []string) *script {
	l := DefaultLimits()
	l.Direct, l.ProgressInterval = 0, 10*time.Second
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		fields := map[string]*int{"held": &l.HeldBytes, "response": &l.ResponseBytes, "asks": &l.Asks, "direct": &l.Direct}
		if _, err := fmt.Sscanf(a, name+"=%d", fields[name]); err != nil {
			t.Fatalf("%s: %v", a, err)
		}
	}
	w, err := New(l)
	if err != nil {
		t.Fatal(err)
	}
	return &script{weave: w, now: time.Unix(1000, 0)}
}

func (sc *script) event(t *testing.T, f []string) Event {
	switch f[0] {
	case "create":
		return sc.create(f[1:])
	case "cancel":
		return Cancel{ID: number(f[1])}
	case "progress":
		return Progress{}
	case "located":
		ev := Located{Thread: number(f[1])}
		for _, a := range f[2:] {
			id, keys, _ := strings.Cut(a, ":")
			ev.Parts = append(ev.Parts, Part{anchormesh.SegmentID(number(id)), keyRange(keys)})
		}
		return ev
	case "ev":
		r := watch.Response{ID: number(f[1])}
		for _, a := range f[2:] {
			var n int64 = 1
			rev, times, many := strings.Cut(a, "*")
			if many {
				n = number(times)
			}
			for range n {
				r.Events = append(r.Events, watch.Received(number(rev), 0, make([]byte, 36), false))
				r.Bytes += 36
			}
			r.Revision = number(rev)
		}
		return Came{r}
	case "mark":
		return Came{watch.Response{ID: number(f[1]), Revision: number(f[2]), Mark: true}}
	case "end":
		return Came{watch.Response{ID: number(f[1]), Revision: number(f[2]), Canceled: true, Reason: errMoved}}
	case "compacted":
		return Came{watch.Response{ID: number(f[1]), CompactRevision: number(f[2]), Canceled: true}}
	case "broke":
		return Broke{Thread: number(f[1])}
	case "told":
		ev := Told{Seq: uint64(number(f[1])), Revision: number(f[2])}
		fmt.Sscanf(f[3], "since=%d", &ev.Since)
		for _, a := range f[4:] {
			ev.Ranges = append(ev.Ranges, keyRange(a))
		}
		return ev
	case "leaderless":
		return Leaderless{keyRange(f[1])}
	case "tick":
		d, _ := time.ParseDuration(f[1])
		sc.now = sc.now.Add(d)
		return Tick{}
	}
	t.Fatalf("unknown line %q", f)
	return nil
}

func (sc *script) create(f []string) Create {
	ev := Create{Request: watch.Request{Range: keyRange(f[0])}}
	for _, a := range f[1:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "start":
			ev.StartRevision = number(value)
		case "progress":
			ev.ProgressNotify = true
		case "leader":
			ev.RequireLeader = true
		case "resumed":
			ev.Resumed = true
		}
	}
	ev.ID, _ = sc.weave.Pick(0)
	return ev
}

func keyRange(s string) anchormesh.KeyRange {
	from, to, ok := strings.Cut(s, "-")
	if !ok {
		return anchormesh.RequestRange([]byte(s), nil)
	}
	return anchormesh.KeyRange{Start: []byte(from), End: []byte(to)}
}

func number(s string) (n int64) {
	if _, err := fmt.Sscan(s, &n); err != nil {
		panic(s)
	}
	return n
}

// show prints effects, indented.
func show(fx Effects) string {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, "    "+format+"\n", args...) }
	for _, r := range fx.Send {
		s := fmt.Sprintf("send watch %d rev %d", r.ID, r.Revision)
		for _, f := range []struct {
			on   bool
			word string
		}{{r.Created, " created"}, {r.Canceled, " canceled"}, {r.Progress, " progress"}} {
			if f.on {
				s += f.word
			}
		}
		if r.CompactRevision != 0 {
			s += fmt.Sprint(" compacted ", r.CompactRevision)
		}
		if r.Reason != nil {
			s += fmt.Sprint(": ", r.Reason)
		}
		for _, ev := range r.Events {
			s += fmt.Sprint(" @", ev.Revision())
		}
		line("%s", s)
	}
	for _, id := range fx.Close {
		line("close %d", id)
	}
	for _, l := range fx.Locate {
		line("locate %d %v", l.Thread, l.Range)
	}
	for _, o := range fx.Open {
		line("open %d at segment %d %v from %d", o.Request.ID, o.Segment, o.Request.Range, o.Request.StartRevision)
	}
	for _, b := range fx.Barrier {
		line("barrier %d at segment %d for %v", b.Revision, b.Segment, b.Threads)
	}
	if fx.Ask != nil {
		since := fmt.Sprint(fx.Ask.Since)
		if fx.Ask.Since == math.MaxInt64 {
			since = "never"
		}
		line("ask %d since %s", fx.Ask.Seq, since)
	}
	return out.String()
}
