package line

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/anchormesh/anchormesh"
)

// TestScripts runs the scripts in testdata. Each has one Home, for segment 1 of
// line 1, and one Collector with Holders for segments 1 to 3.
//
//	config [window=] [spots=] [ranges=] [requests=] [count=] [writes=] [barriers=] [asks=]
//	lead term= [gen=1] [window=] [last=] [range=(a,m)]       the home
//	deposed | structure term= gen= window= [range=] | windowed term= window= | window-failed
//	request token= [line=1] [seg=1] [gen=1] [raise=] [claim=] input: "ask seg gen term seq count range" or "since number" a line
//	own [gen=1] term= count=
//	done round= term= | failed round=
//
//	holder-lead seg= term= [gen=1] [held=(1,2)]
//	holder-deposed seg= | holder-structure seg= term= gen= [held=]
//	write seg= ids=(a,b) | ended seg= stamps=(1,2) | hold seg= stamp= | release seg= stamp=
//	barrier seg= token= t= [gen=1] [line=1] | holder-done seg= round= term= | holder-failed seg= round=
//	at <ms>                                                  moves the clock and ticks all holders
//	collect | granted seq=                                   input: "seg gen term seq first count" a line
//	lost seq= | home seg= | own-ask | own-grant first= | own-refused
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		s := &script{cfg: DefaultConfig()}
		s.reset()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			s.t, s.d = t, d
			s.out.Reset()
			s.run()
			s.effects()
			if s.out.Len() == 0 {
				return "ok\n"
			}
			return s.out.String()
		})
	})
}

type script struct {
	t    *testing.T
	d    *datadriven.TestData
	out  strings.Builder
	cfg  Config
	ms   int
	home *Home
	coll *Collector[string]
	own  Ask
}

func (s *script) reset() {
	s.home, s.coll = NewHome(s.cfg), NewCollector[string](s.cfg)
	for seg := range anchormesh.SegmentID(3) {
		s.coll.Add(seg+1, NewHolder[string](s.cfg))
	}
}

// arg returns a number, or what it is when the script does not say.
func arg[T ~int | ~int64 | ~uint64](s *script, key string, otherwise T) T {
	v := int64(otherwise)
	if s.d.HasArg(key) {
		s.d.ScanArgs(s.t, key, &v)
	}
	return T(v)
}

func (s *script) list(key string) []string {
	for _, a := range s.d.CmdArgs {
		if a.Key == key {
			return a.Vals
		}
	}
	return nil
}

func (s *script) numbers(key string) (out []anchormesh.Revision) {
	for _, v := range s.list(key) {
		var n anchormesh.Revision
		fmt.Sscan(v, &n)
		out = append(out, n)
	}
	return out
}

func (s *script) keys() (k anchormesh.KeyRange) {
	if v := s.list("range"); len(v) == 2 {
		k.Start, k.End = []byte(v[0]), []byte(v[1])
	}
	return k
}

func (s *script) time() time.Time { return time.UnixMilli(int64(s.ms)) }

func (s *script) run() {
	term, gen := arg[uint64](s, "term", 0), arg[anchormesh.Generation](s, "gen", 1)
	line, token := arg[ID](s, "line", 1), arg[uint64](s, "token", 0)
	window := arg[anchormesh.Revision](s, "window", 0)
	switch s.d.Cmd {
	case "config":
		s.config()
	case "lead":
		s.home.Lead(Lead{Seat{line, 1, gen, term}, s.keys(), window, arg[anchormesh.Revision](s, "last", 0)})
	case "deposed":
		s.home.Deposed()
	case "structure":
		s.home.Structure(term, gen, s.keys(), window)
	case "windowed":
		s.home.Windowed(term, window)
	case "window-failed":
		s.home.WindowFailed()
	case "request":
		req := Request{Line: line, Segment: arg[anchormesh.SegmentID](s, "seg", 1), Generation: gen}
		req.Raise, req.Claim = arg[anchormesh.Revision](s, "raise", 0), arg[anchormesh.Revision](s, "claim", 0)
		s.parse(&req)
		s.home.Request(token, req)
	case "own":
		g, err := s.home.Own(Ask{Segment: arg[anchormesh.SegmentID](s, "seg", 1), Generation: gen, Term: term, Count: arg(s, "count", 1)})
		s.printf("%s err=%v\n", showGrant(g), err)
	case "done":
		s.home.RoundDone(arg[uint64](s, "round", 0), term)
	case "failed":
		s.home.RoundFailed(arg[uint64](s, "round", 0))
	default:
		s.runHolder(Seat{line, arg[anchormesh.SegmentID](s, "seg", 0), gen, term}, token)
	}
}

func (s *script) runHolder(seat Seat, token uint64) {
	h := s.coll.Holder(seat.Segment)
	round, stamp := arg[uint64](s, "round", 0), arg[anchormesh.Revision](s, "stamp", 0)
	switch s.d.Cmd {
	case "holder-lead":
		h.Lead(seat, s.keys(), s.numbers("held"))
	case "holder-deposed":
		h.Deposed()
	case "holder-structure":
		h.Structure(seat.Term, seat.Generation, s.keys(), s.numbers("held"))
	case "write":
		for _, id := range s.list("ids") {
			if err := s.coll.Write(seat.Segment, id); err != nil {
				s.printf("%s: %v\n", id, err)
			}
		}
	case "ended":
		for _, n := range s.numbers("stamps") {
			h.Ended(n)
		}
	case "hold":
		h.Hold(stamp)
	case "release":
		h.Release(stamp)
	case "barrier":
		h.Barrier(s.time(), Barrier{token, seat.Line, seat.Segment, seat.Generation, arg[anchormesh.Revision](s, "t", 0)})
	case "holder-done":
		h.RoundDone(round, seat.Term)
	case "holder-failed":
		h.RoundFailed(round)
	case "at":
		fmt.Sscan(s.d.CmdArgs[0].Key, &s.ms)
		for seg := range anchormesh.SegmentID(3) {
			s.coll.Holder(seg + 1).Tick(s.time())
		}
	default:
		s.runCollector(seat.Segment)
	}
}

func (s *script) runCollector(segment anchormesh.SegmentID) {
	seq := arg[uint64](s, "seq", 0)
	switch s.d.Cmd {
	case "collect":
		seq, asks, ok := s.coll.Collect(s.time())
		if !ok {
			s.printf("nothing to ask\n")
		}
		for _, a := range asks {
			s.printf("request %d: %s\n", seq, showAsk(a))
		}
	case "granted":
		var grants []Grant
		for _, l := range strings.Split(s.d.Input, "\n") {
			var g Grant
			fmt.Sscan(l, (*uint64)(&g.Segment), (*uint64)(&g.Generation), &g.Term, &g.Seq, &g.First, &g.Count)
			grants = append(grants, g)
		}
		s.coll.Granted(seq, grants)
	case "lost":
		s.coll.Failed(seq)
	case "home":
		s.coll.SetHome(segment)
	case "own-ask":
		a, ok := s.coll.OwnAsk()
		s.own = a
		s.printf("own %v: %s\n", ok, showAsk(a))
	case "own-grant":
		g := Grant{s.own.Segment, s.own.Generation, s.own.Term, s.own.Seq, arg[anchormesh.Revision](s, "first", 0), s.own.Count}
		s.coll.OwnGrant(s.own, g, nil)
	case "own-refused":
		s.coll.OwnGrant(s.own, Grant{}, ErrWindow)
	default:
		s.t.Fatalf("no command %q", s.d.Cmd)
	}
}

func (s *script) config() {
	s.cfg.Window = arg(s, "window", s.cfg.Window)
	s.cfg.SpotsMax = arg(s, "spots", s.cfg.SpotsMax)
	s.cfg.RangesMax = arg(s, "ranges", s.cfg.RangesMax)
	s.cfg.RequestsMax = arg(s, "requests", s.cfg.RequestsMax)
	s.cfg.CountMax = arg(s, "count", s.cfg.CountMax)
	s.cfg.WritesMax = arg(s, "writes", s.cfg.WritesMax)
	s.cfg.BarriersMax = arg(s, "barriers", s.cfg.BarriersMax)
	s.cfg.AsksMax = arg(s, "asks", s.cfg.AsksMax)
	s.reset()
}

func (s *script) parse(req *Request) {
	for _, l := range strings.Split(s.d.Input, "\n") {
		var kind, keys string
		var a Ask
		var n anchormesh.Revision
		fmt.Sscan(l, &kind)
		switch kind {
		case "ask":
			fmt.Sscan(l, &kind, (*uint64)(&a.Segment), (*uint64)(&a.Generation), &a.Term, &a.Seq, &a.Count, &keys)
			if lo, hi, ok := strings.Cut(keys, "-"); ok {
				a.Range = anchormesh.KeyRange{Start: []byte(lo), End: []byte(hi)}
			}
			req.Asks = append(req.Asks, a)
		case "since":
			fmt.Sscan(l, &kind, &n)
			req.Since = append(req.Since, n)
		}
	}
}

func showAsk(a Ask) string {
	return fmt.Sprintf("segment %d gen %d term %d seq %d: %d writes", a.Segment, a.Generation, a.Term, a.Seq, a.Count)
}

func showGrant(g Grant) string {
	if g.Count == 0 {
		return "nothing"
	}
	return fmt.Sprintf("segment %d gen %d term %d seq %d gets %d-%d", g.Segment, g.Generation, g.Term, g.Seq, g.First, g.First+anchormesh.Revision(g.Count)-1)
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format, args...) }

// effects prints what everybody wants.
func (s *script) effects() {
	fx := s.home.Take()
	for _, a := range fx.Answers {
		s.printf("answer %d: ", a.Token)
		if a.Err != nil {
			s.printf("%v\n", a.Err)
			continue
		}
		s.printf("T=%d\n", a.T)
		if a.Claimed {
			s.printf("  claimed\n")
		}
		for _, g := range a.Grants {
			s.printf("  %s\n", showGrant(g))
		}
		for i, p := range a.Spreads {
			s.printf("  asker %d: all=%v %v\n", i, p.All, p.Ranges)
		}
	}
	if fx.Round != 0 {
		s.printf("start round %d\n", fx.Round)
	}
	if fx.Window != 0 {
		s.printf("propose window %d\n", fx.Window)
	}
	if fx.Own {
		s.printf("own numbers are free\n")
	}
	for seg := range anchormesh.SegmentID(3) {
		s.holderEffects(seg+1, s.coll.Holder(seg+1).Take())
	}
}

func (s *script) holderEffects(seg anchormesh.SegmentID, fx HolderEffects[string]) {
	for _, w := range fx.Stamped {
		s.printf("segment %d: propose %s at %d in gen %d term %d\n", seg, w.Write, w.Stamp, fx.Seat.Generation, fx.Seat.Term)
	}
	for _, w := range fx.Back {
		s.printf("segment %d: %s back, %v\n", seg, w, fx.BackErr)
	}
	for _, p := range fx.Passed {
		s.printf("segment %d: barrier %d passed err=%v\n", seg, p.Token, p.Err)
	}
	if fx.Round != 0 {
		s.printf("segment %d: start round %d\n", seg, fx.Round)
	}
	if !fx.Next.IsZero() {
		s.printf("segment %d: next tick at %d\n", seg, fx.Next.UnixMilli())
	}
}
