package consensus

import (
	"sync/atomic"
	"time"
)

// syncs is a bundle for the syncer: appends that are written and must be on disk before
// anything is said of them, or come behind such.
type syncs struct {
	appends []going
	lights  []*light // of each append; nil: not light
	done    []func()
	needed  bool // something here needs the disk
	groups  int  // appends that do
	taken   int  // bundles in this one
}

func (s *syncs) add(a going, l *light) {
	s.appends, s.lights = append(s.appends, a), append(s.lights, l)
	if a.Sync {
		s.needed = true
		s.groups++
	}
}

// reset empties the bundle and keeps its memory.
func (s *syncs) reset() {
	clear(s.appends)
	clear(s.lights)
	clear(s.done)
	*s = syncs{appends: s.appends[:0], lights: s.lights[:0], done: s.done[:0]}
}

// syncer makes durable what the writer has written: one fsync for all that gathered.
// It runs beside the writer, so that a light group never waits for the disk.
type syncer struct {
	engine *Engine
	inbox  *mailbox[syncs]
	frames outgoing
	behind atomic.Int64 // bundles handed over and not carried out
}

func newSyncer(e *Engine) *syncer { return &syncer{engine: e, inbox: newMailbox[syncs]()} }

// idle reports whether everything handed over is carried out.
func (s *syncer) idle() bool { return s.behind.Load() == 0 }

// take hands a bundle over, if there is anything in it.
func (s *syncer) take(from *syncs) {
	if len(from.appends)+len(from.done) == 0 && !from.needed {
		return
	}
	s.behind.Add(1)
	s.inbox.put(func(in *syncs) {
		in.appends, in.lights = append(in.appends, from.appends...), append(in.lights, from.lights...)
		in.done = append(in.done, from.done...)
		in.needed, in.groups, in.taken = in.needed || from.needed, in.groups+from.groups, in.taken+1
	})
}

func (s *syncer) run() {
	spare := new(syncs)
	for {
		in := s.inbox.take(spare)
		if in == nil {
			return
		}
		s.carryOut(in)
		in.reset()
		spare = in
	}
}

func (s *syncer) carryOut(in *syncs) {
	if in.needed {
		begin := time.Now()
		if err := s.engine.log.Sync(); err != nil {
			s.engine.failed(err)
		}
		if f := s.engine.cfg.Listener.Synced; f != nil && in.groups > 0 {
			f(in.groups, time.Since(begin))
		}
	}
	s.engine.writer.synced(in.appends)
	tell(s.engine, &s.frames, in.appends)
	for _, l := range in.lights {
		if l != nil {
			l.open.Store(true)
			l.waiting.Add(-1)
		}
	}
	for _, f := range in.done {
		f()
	}
	s.behind.Add(-int64(in.taken))
}
