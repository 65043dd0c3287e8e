package watch

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/cockroachdb/datadriven"
)

// script drives one hub step by step: no goroutine, no clock.
type script struct {
	seg     *segment
	hub     *Hub
	streams map[string]*Stream
	now     time.Time
}

// TestScripts runs testdata/*.
//
//	hub [queue=N] [step=N] [stream=N] [response=N] [scan=N]
//	put k=v ... | del k ...       one transaction, published
//	hidden put k=v ...            applied, not published; "publish" does that
//	compact R
//	watch s key|from-to [id=] [start=] [prev] [progress] [fragment] [noput] [nodelete]
//	cancel s id | close s | ask s | restored | stop reason
//	mark s R id...                asks for marks at revision R
//	hold R                        nothing from R on is handed out; 0: nothing is held
//	late R put k=v ...            the outcome of a transaction at R, published
//	bound from-to                 the segment holds these keys from now on
//	step [n]                      steps until nothing is left to do, or n of them
//	tick D                        time passes
//	read s [n]                    reads everything queued, or n responses
//	stats
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var sc *script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			if d.Cmd != "run" {
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				if strings.HasPrefix(line, "hub") {
					sc = newScript(t, strings.Fields(line)[1:])
					continue
				}
				out.WriteString(sc.do(t, strings.Fields(line)))
			}
			return out.String()
		})
	})
}

func newScript(t *testing.T, args []string) *script {
	l := DefaultLimits()
	l.ProgressInterval = 10 * time.Second
	for _, a := range args {
		name, _, _ := strings.Cut(a, "=")
		fields := map[string]*int{"queue": &l.QueueBytes, "step": &l.StepBytes, "stream": &l.StreamBytes,
			"response": &l.ResponseBytes, "scan": &l.ScanWatches}
		fmt.Sscanf(a, name+"=%d", fields[name])
	}
	seg := newSegment()
	hub, err := NewHub(seg, l)
	if err != nil {
		t.Fatal(err)
	}
	return &script{seg: seg, hub: hub, streams: map[string]*Stream{}, now: time.Unix(1000, 0)}
}

func (sc *script) do(t *testing.T, f []string) string {
	switch f[0] {
	case "put", "del":
		p := sc.seg.write(ops(f)...)
		sc.hub.Publish(p.events, p.rev)
	case "hidden":
		sc.seg.hidden = append(sc.seg.hidden, sc.seg.write(ops(f[1:])...))
	case "publish":
		for _, p := range sc.seg.hidden {
			sc.hub.Publish(p.events, p.rev)
		}
		sc.seg.hidden = nil
	case "compact":
		sc.seg.compact(number(f[1]))
	case "watch":
		id, rev, err := sc.stream(f[1]).Create(t.Context(), request(f[2:]))
		if err != nil {
			return fmt.Sprintf("error: %v\n", err)
		}
		return fmt.Sprintf("watch %d at %d\n", id, rev)
	case "cancel":
		return fmt.Sprintf("%v\n", sc.stream(f[1]).Cancel(number(f[2])))
	case "close":
		sc.stream(f[1]).Close()
	case "ask":
		sc.stream(f[1]).RequestProgress()
	case "mark":
		ids := make([]int64, len(f)-3)
		for i := range ids {
			ids[i] = number(f[3+i])
		}
		sc.stream(f[1]).Mark(number(f[2]), ids...)
	case "hold":
		sc.hub.Hold(number(f[1]))
	case "late":
		p := sc.seg.writeAt(number(f[1]), ops(f[2:])...)
		sc.hub.Publish(p.events, p.rev)
	case "bound":
		keys := request([]string{f[1]}).Range
		sc.hub.Bound(keys, errors.New("moved"))
		sc.seg.cut(keys)
	case "restored":
		sc.hub.Restored()
	case "stop":
		sc.hub.finish(errors.New(f[1]))
	case "tick":
		d, _ := time.ParseDuration(f[1])
		sc.now = sc.now.Add(d)
	case "step":
		return sc.step(t, f[1:])
	case "read":
		return sc.read(t, f[1:])
	case "watching":
		return fmt.Sprintf("%d\n", sc.hub.Watching(request([]string{f[1]}).Range))
	case "stats":
		s := sc.hub.Stats()
		return fmt.Sprintf("watches %d streams %d lagging %d cursor %d drops %d scans %d\n",
			s.Watches, s.Streams, s.Lagging, s.Cursor, s.QueueDrops, sc.seg.scans)
	default:
		t.Fatalf("unknown line %q", f)
	}
	return ""
}

func (sc *script) stream(name string) *Stream {
	if sc.streams[name] == nil {
		sc.streams[name] = sc.hub.NewStream()
	}
	return sc.streams[name]
}

func (sc *script) step(t *testing.T, args []string) string {
	most := int64(1000)
	if len(args) > 0 {
		most = number(args[0])
	}
	for range most {
		more, err := sc.hub.step(sc.now)
		if err != nil {
			return fmt.Sprintf("error: %v\n", err)
		}
		if !more {
			return ""
		}
	}
	if len(args) == 0 {
		t.Fatal("the hub never comes to rest")
	}
	return "more\n"
}

func (sc *script) read(t *testing.T, args []string) string {
	var out strings.Builder
	most := int64(1000)
	if len(args) > 1 {
		most = number(args[1])
	}
	s := sc.stream(args[0])
	for range most {
		r, err, ok := tryNext(s)
		if err != nil {
			fmt.Fprintf(&out, "error: %v\n", err)
		}
		if !ok {
			break
		}
		fmt.Fprintf(&out, "%s: %s\n", args[0], show(t, r))
	}
	return out.String()
}

// tryNext is Next without waiting.
func tryNext(s *Stream) (Response, error, bool) {
	s.mu.Lock()
	waiting := s.box.head < len(s.box.entries)
	over := s.overLocked()
	s.mu.Unlock()
	if !waiting {
		return Response{}, over, false
	}
	r, err := s.Next(nil)
	return r, err, err == nil
}

func ops(f []string) (out []op) {
	for _, a := range f[1:] {
		k, v, _ := strings.Cut(a, "=")
		if f[0] == "del" {
			v = "-"
		}
		out = append(out, op{k, v})
	}
	return out
}

func request(f []string) Request {
	r := Request{Range: anchormesh.RequestRange([]byte(f[0]), nil)}
	if from, to, ok := strings.Cut(f[0], "-"); ok {
		r.Range = anchormesh.KeyRange{Start: []byte(from), End: []byte(to)}
	}
	for _, a := range f[1:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "id":
			r.ID = number(value)
		case "start":
			r.StartRevision = number(value)
		}
	}
	r.PrevKV, r.ProgressNotify = slices.Contains(f, "prev"), slices.Contains(f, "progress")
	r.Fragment, r.NoPut, r.NoDelete = slices.Contains(f, "fragment"), slices.Contains(f, "noput"), slices.Contains(f, "nodelete")
	return r
}

func number(s string) (n int64) {
	if _, err := fmt.Sscan(s, &n); err != nil {
		panic(s)
	}
	return n
}
