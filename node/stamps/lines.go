package stamps

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call of this package.
const Method = 5

var (
	// ErrNoHome says that the scope's home gave no answer: no leader is known, it
	// cannot be reached, or it led no more. Nothing took effect.
	ErrNoHome = errors.New("the home of the scope's revisions does not answer")
	// ErrStopped says that the node stops. Nothing took effect.
	ErrStopped = errors.New("the node gives out no more revisions: it stops")
)

// Engine is what the lines need of consensus.Engine.
type Engine interface {
	Submit(segment anchormesh.SegmentID, p consensus.Proposal)
	ReadIndex(segment anchormesh.SegmentID, done func(index uint64, err error))
	Status(segment anchormesh.SegmentID) (consensus.Status, bool)
	Seek(segment anchormesh.SegmentID)
}

// Standing is what a replica on this node has applied.
type Standing struct {
	Descriptor *anchormesh.Descriptor
	Line       line.ID               // 0: it counts as it applies, see Counts
	Window     anchormesh.Revision   // the home's W
	Last       anchormesh.Revision   // the newest revision
	Frozen     bool                  // it serves nothing, and is given no stamps
	Held       []anchormesh.Revision // stamps of prepared transactions
	HeldAt     uint64                // as of the entry at this index: see Lines.Held
	Applied    uint64                // index of the last applied entry
	Term       uint64                // its term
}

// Segments tells where the replicas of this node stand.
type Segments interface {
	Standing(segment anchormesh.SegmentID) (Standing, bool)
	// Counts reports whether a replica here counts on a line of its own (Standing.Counts).
	Counts(segment anchormesh.SegmentID) bool
}

// Caller sends requests to other nodes; mesh.Mesh is one.
type Caller interface {
	Connected(to anchormesh.NodeID) bool
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
}

// Commands encodes what goes into the segments' logs.
type Commands struct {
	// Stamp returns the command with its revision.
	Stamp func(rev anchormesh.Revision, command []byte) []byte
	// Window returns the command that moves the home's W.
	Window func(w anchormesh.Revision) []byte
	// Lift returns the command that makes a segment that counts go on above rev; if
	// fresh, it is refused where rev was counted to already.
	Lift func(rev anchormesh.Revision, fresh bool) []byte
}

// Config of Lines.
type Config struct {
	Self        anchormesh.NodeID
	Line        line.Config
	CallTimeout time.Duration // of a request to another node
	Pause       time.Duration // after a home that did not answer
	Commands    Commands
	Logger      *slog.Logger
}

// Lines runs the lines of all scopes on this node.
type Lines struct {
	cfg      Config
	engine   Engine
	segments Segments
	table    *route.Table
	caller   Caller
	turn     atomic.Uint64 // of voters that are asked
	adopt    Adopter

	mu      sync.Mutex
	in      inbox
	stopped bool
	flights map[barrierKey]*barrierFlight
	wake    chan struct{}

	// Owned by Run.
	scopes map[string]*scope
	led    map[anchormesh.SegmentID]*scope
	sought map[anchormesh.SegmentID]*search
	tokens uint64
	now    time.Time
}

// inbox is what gathered for Run.
type inbox struct {
	writes []incoming
	ended  []ended
	calls  []func()
}

type incoming struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	write      *write
}

type ended struct {
	segment anchormesh.SegmentID
	term    uint64
	stamp   anchormesh.Revision
}

// write is a write on its way to its stamp.
type write struct {
	command []byte
	done    func(consensus.Result)
	batch   *batch // it shares an entry; nil: it does not
}

// New returns lines that Run starts.
func New(cfg Config, e Engine, s Segments, t *route.Table, c Caller) *Lines {
	return &Lines{
		cfg: cfg, engine: e, segments: s, table: t, caller: c,
		flights: make(map[barrierKey]*barrierFlight), wake: make(chan struct{}, 1),
		scopes: make(map[string]*scope), led: make(map[anchormesh.SegmentID]*scope),
		sought: make(map[anchormesh.SegmentID]*search),
	}
}

// Adopter carries out another node's wish that a segment which is led here adopts
// another line. It is called from any goroutine, must not block, and answers once.
type Adopter func(segment anchormesh.SegmentID, generation anchormesh.Generation, adoption []byte, done func([]byte, error))

// OnAdopt sets who carries out wishes of other nodes, before Run.
func (l *Lines) OnAdopt(f Adopter) { l.adopt = f }

// Propose puts a command into the log of a segment that this node leads, with a
// stamp; without where the segment counts. done is called once, from any goroutine, and must not block. The command
// is kept until then.
func (l *Lines) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	if l.segments.Counts(d.Segment) {
		l.engine.Submit(d.Segment, consensus.Proposal{Generation: d.Generation, Payload: command, Done: done})
		return
	}
	l.mu.Lock()
	switch {
	case l.stopped:
		l.mu.Unlock()
		done(consensus.Result{Err: consensus.ErrStopped})
		return
	case len(l.in.writes) >= l.cfg.Line.WritesMax:
		l.mu.Unlock()
		done(consensus.Result{Err: consensus.ErrOverloaded})
		return
	}
	l.in.writes = append(l.in.writes, incoming{d.Segment, d.Generation, &write{command: command, done: done}})
	l.mu.Unlock()
	l.nudge()
}

// StatusChanged follows the leaders of this node's segments.
func (l *Lines) StatusChanged(segment anchormesh.SegmentID, s consensus.Status) {
	if !s.Leads() {
		l.do(func() { l.depose(segment) })
		return
	}
	l.do(func() { l.seek(segment, s.Term) })
}

// Changed tells that a replica here has applied a change of structure or of its
// window. It is called in the order of the segment's log.
func (l *Lines) Changed(segment anchormesh.SegmentID, now Standing) {
	l.do(func() { l.changed(segment, now) })
}

// Held tells that a replica here has applied the prepare of a transaction at stamp, or
// (released) its decision. It is called in the order of the segment's log, with the
// entry's index, before the prepare's proposer hears of it.
func (l *Lines) Held(segment anchormesh.SegmentID, index uint64, stamp anchormesh.Revision, released bool) {
	l.do(func() {
		if s := l.led[segment]; s != nil {
			s.heldBy(segment, index, stamp, released)
		}
	})
}

// do runs f on the goroutine of Run, or reports that it runs no more.
func (l *Lines) do(f func()) bool {
	l.mu.Lock()
	stopped := l.stopped
	if !stopped {
		l.in.calls = append(l.in.calls, f)
	}
	l.mu.Unlock()
	if !stopped {
		l.nudge()
	}
	return !stopped
}

func (l *Lines) nudge() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run serves until ctx ends. What waits then ends without effect.
func (l *Lines) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			l.stop()
			return nil
		case <-l.wake:
		case <-timer.C:
		}
		if next := l.step(time.Now()); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// step empties the mailbox and carries out what follows. It returns when the next
// step is due without a wake-up; zero is never.
func (l *Lines) step(now time.Time) (next time.Time) {
	l.mu.Lock()
	in := l.in
	l.in = inbox{}
	l.mu.Unlock()
	l.now = now
	for _, f := range in.calls { // first: what holds barriers comes before what lets them pass
		f()
	}
	for _, e := range in.ended {
		if s := l.led[e.segment]; s != nil {
			s.ended(e)
		}
	}
	for _, w := range in.writes {
		l.takeWrite(w)
	}
	for _, s := range l.scopes {
		if at := s.settle(); !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}

func (l *Lines) takeWrite(w incoming) {
	l.when(w.segment, func() {
		if s := l.led[w.segment]; s != nil {
			s.take(w)
			return
		}
		w.write.done(consensus.Result{Err: consensus.ErrNotLeader})
	})
}

// lead starts a term of a segment here.
func (l *Lines) lead(segment anchormesh.SegmentID, term uint64) {
	st, ok := l.engine.Status(segment)
	at, here := l.segments.Standing(segment)
	if !ok || !here || !st.Leads() || st.Term != term || at.away() {
		return
	}
	prefix := string(at.Descriptor.Line)
	s := l.scopes[prefix]
	if s == nil {
		s = newScope(l, at.Descriptor.Line)
		l.scopes[prefix] = s
	}
	l.led[segment] = s
	s.lead(segment, term, at)
}

func (l *Lines) depose(segment anchormesh.SegmentID) {
	defer l.giveUp(segment)
	if s := l.led[segment]; s != nil {
		delete(l.led, segment)
		s.depose(segment)
	}
}

func (l *Lines) changed(segment anchormesh.SegmentID, now Standing) {
	if now.Frozen { // what waits is given back, and finds the segment that comes of it
		l.depose(segment)
		return
	}
	s := l.led[segment]
	if s != nil && s.left(segment, now) { // its numbers come from another line
		l.depose(segment)
		s = nil
	}
	if s != nil {
		s.changed(segment, now)
		return
	}
	l.again(segment)
}

// scope returns the cores of a scope, for questions to its home.
func (l *Lines) scope(prefix []byte) *scope {
	s := l.scopes[string(prefix)]
	if s == nil {
		s = newScope(l, prefix)
		l.scopes[string(prefix)] = s
	}
	return s
}

func (l *Lines) stop() {
	l.mu.Lock()
	l.stopped = true
	in := l.in
	l.in = inbox{}
	l.mu.Unlock()
	for _, w := range in.writes {
		w.write.done(consensus.Result{Err: consensus.ErrStopped})
	}
	for _, s := range l.scopes {
		s.stop()
	}
	for segment := range l.sought {
		l.giveUp(segment)
	}
	for _, f := range in.calls {
		f() // each ends who waits for it: nothing leads any more
	}
	for _, s := range l.scopes {
		s.stop()
	}
}

func (l *Lines) token() uint64 {
	l.tokens++
	return l.tokens
}
