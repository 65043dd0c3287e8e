package stamps

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// This file and scope.go are package node/stamps with its waits turned into events.
// The cores are the real ones; requests between nodes travel as values.

var (
	errNoHome = errors.New("sim: the home of the scope's revisions does not answer")
)

const (
	linePause = 20 * time.Millisecond
)

// Lines runs the lines of all scopes on a node.
type Lines struct {
	node.Quiet
	p       *node.Process
	in      linesInbox
	due     bool
	timer   time.Duration // of the event that will look again; 0: none
	flights map[barrierKey]*barrierFlight
	scopes  map[string]*scope
	led     map[anchormesh.SegmentID]*scope
	tokens  uint64
	turn    map[anchormesh.SegmentID]int // of the voter to be asked next, where no leader is known
	now     time.Time
}

// linesInbox is what gathered for the next step.
type linesInbox struct {
	writes []incoming
	ended  []ended
	calls  []func()
}

type incoming struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	write      *stampedWrite
}

type ended struct {
	segment anchormesh.SegmentID
	term    uint64
	stamp   anchormesh.Revision
}

// stampedWrite is a write on its way to its stamp.
type stampedWrite struct {
	command []byte
	done    func(consensus.Result)
	batch   *batch // nil: an entry of its own
}

// standing is what a replica on this node has applied.
type standing struct {
	d             *anchormesh.Descriptor
	line          line.ID
	window, last  anchormesh.Revision
	applied, term uint64
	frozen        bool
	held          []anchormesh.Revision // stamps of prepared transactions
	heldAt        uint64                // as of the entry at this index
}

func NewLines(p *node.Process) node.Shell {
	l := &Lines{}
	l.turn = make(map[anchormesh.SegmentID]int)
	l.p, l.flights = p, make(map[barrierKey]*barrierFlight)
	l.scopes, l.led = make(map[string]*scope), make(map[anchormesh.SegmentID]*scope)
	return l
}

func (l *Lines) standing(id anchormesh.SegmentID) (standing, bool) {
	r := l.p.Host.Held[id]
	if r == nil {
		return standing{}, false
	}
	applied, term := r.Machine.Segment().Applied()
	return standingOf(r, r.Machine.State(), applied, term), true
}

func standingOf(r *node.ReplicaHere, s *machine.State, applied, term uint64) standing {
	last, _ := r.Machine.Segment().Revision()
	held, at := r.Machine.Space().Held()
	return standing{d: s.Descriptor, line: line.ID(s.Line), window: s.Window, last: last, applied: applied, term: term, frozen: s.Frozen(),
		held: held, heldAt: at}
}

// Propose puts a command into the log of a segment of a scope that was split.
func (l *Lines) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	l.in.writes = append(l.in.writes, incoming{d.Segment, d.Generation, &stampedWrite{command: command, done: done}})
	l.nudge()
}

// statusChanged follows the leaders of this node's segments.
func (l *Lines) Follows(g *node.Group) {
	segment, term := g.Segment, g.Status.Term
	if !g.Leads() {
		l.do(func() { l.depose(segment) })
		return
	}
	l.seek(segment, term)
}

// Changed tells that a replica here has applied a change of structure or of its
// window.
func (l *Lines) Changed(r *node.ReplicaHere, c machine.Change) {
	if c.State.Line == 0 {
		return
	}
	segment, now := c.State.Descriptor.Segment, standingOf(r, c.State, c.Place.Index, c.Place.Term)
	l.do(func() {
		if c.State.Frozen() { // what waits is given back, and finds the segment that comes of it
			l.depose(segment)
			return
		}
		if s := l.led[segment]; s != nil {
			s.Changed(segment, now)
			return
		}
		l.again(segment)
	})
}

// Held tells of a transaction that a replica here has prepared, or decided.
func (l *Lines) Held(segment anchormesh.SegmentID, h keyspace.Hold) {
	if h.Stamp == 0 {
		return
	}
	l.do(func() {
		if s := l.led[segment]; s != nil {
			s.heldBy(segment, h)
		}
	})
}

// seek leads the segment's cores once an entry of the term is applied here.
func (l *Lines) seek(segment anchormesh.SegmentID, term uint64) {
	if at, ok := l.standing(segment); !ok || at.line == 0 {
		return
	}
	l.p.ReadIndex(segment, func(_ uint64, err error) {
		if err == nil {
			l.do(func() { l.lead(segment, term) })
		}
	})
}

// do runs f in the next step.
func (l *Lines) do(f func()) {
	l.in.calls = append(l.in.calls, f)
	l.nudge()
}

func (l *Lines) nudge() {
	if !l.due {
		l.due = true
		l.p.After(l.p.Moment(), func() {
			l.due = false
			l.step()
		})
	}
}

// step empties the inbox and carries out what follows.
func (l *Lines) step() {
	in := l.in
	l.in = linesInbox{}
	l.now = time.Unix(0, 0).Add(l.p.Mesh.K.Now()) // monotonic: clocks that are set do not show
	for _, f := range in.calls {
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
	var next time.Time
	for _, prefix := range slices.Sorted(maps.Keys(l.scopes)) {
		next = sooner(next, l.scopes[prefix].settle())
	}
	l.wakeAt(next)
}

// wakeAt steps again then, if nothing else does before.
func (l *Lines) wakeAt(next time.Time) {
	if next.IsZero() {
		return
	}
	at := max(next.Sub(time.Unix(0, 0)), l.p.Mesh.K.Now()+time.Microsecond)
	if l.timer != 0 && l.timer <= at {
		return
	}
	l.timer = at
	l.p.After(at-l.p.Mesh.K.Now(), func() {
		if l.timer == at {
			l.timer = 0
			l.nudge()
		}
	})
}

func (l *Lines) takeWrite(w incoming) {
	s := l.led[w.segment]
	if s == nil {
		w.write.done(consensus.Result{Err: consensus.ErrNotLeader})
		l.again(w.segment)
		return
	}
	s.take(w)
}

// again leads a segment whose cores do not lead although its replica does: perhaps
// the round behind the last change of leaders failed.
func (l *Lines) again(segment anchormesh.SegmentID) {
	if s := l.led[segment]; s != nil && s.collector.Holder(segment).Seat().Term != 0 {
		return
	}
	if g := l.p.Groups[segment]; g != nil && g.Leads() {
		l.seek(segment, g.Status.Term)
	}
}

// lead starts a term of a segment here.
func (l *Lines) lead(segment anchormesh.SegmentID, term uint64) {
	g := l.p.Groups[segment]
	at, here := l.standing(segment)
	if g == nil || !here || !g.Leads() || g.Status.Term != term || at.line == 0 || at.frozen {
		return
	}
	s := l.scope(at.d.Line)
	l.led[segment] = s
	s.lead(segment, term, at)
}

func (l *Lines) depose(segment anchormesh.SegmentID) {
	if s := l.led[segment]; s != nil {
		delete(l.led, segment)
		s.depose(segment)
	}
}

// scope returns the cores of a scope.
func (l *Lines) scope(prefix []byte) *scope {
	s := l.scopes[string(prefix)]
	if s == nil {
		s = newScope(l, prefix)
		l.scopes[string(prefix)] = s
	}
	return s
}

func (l *Lines) token() uint64 {
	l.tokens++
	return l.tokens
}

// Ask asks for the line's largest number.
func (l *Lines) Ask(scope []byte, done func(anchormesh.Revision, error)) {
	l.do(func() {
		s := l.scope(scope)
		if len(s.asking) >= lineConfig(l.p.Mesh).RequestsMax {
			done(0, line.ErrOverloaded)
			return
		}
		s.asking = append(s.asking, done)
	})
}

// Number asks for a number that nobody else gets, above all that were given out.
func (l *Lines) Number(scope []byte, done func(anchormesh.Revision, error)) {
	l.do(func() {
		s := l.scope(scope)
		if len(s.numbering) >= lineConfig(l.p.Mesh).RequestsMax {
			done(0, line.ErrOverloaded)
			return
		}
		s.numbering = append(s.numbering, done)
	})
}

// barrierKey names what equal barriers have in common.
type barrierKey struct {
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	t          anchormesh.Revision
}

// barrierFlight is a barrier under way.
type barrierFlight struct {
	waiting []func(uint64, error)
	over    bool
}

// Barrier calls done when nothing at or below t can appear in the segment any more.
func (l *Lines) Barrier(d *anchormesh.Descriptor, t anchormesh.Revision, done func(index uint64, err error)) {
	key := barrierKey{d.Segment, d.Generation, t}
	f := l.flights[key]
	if f != nil {
		f.waiting = append(f.waiting, done)
		return
	}
	f = &barrierFlight{waiting: []func(uint64, error){done}}
	l.flights[key] = f
	end := func(index uint64, err error) {
		if f.over {
			return
		}
		f.over = true
		delete(l.flights, key)
		for _, done := range f.waiting {
			done(index, err)
		}
	}
	l.p.After(node.CallTimeout, func() { end(0, node.ErrNoAnswer) })
	l.p.After(l.p.Moment(), func() {
		l.fly(line.Barrier{Segment: key.segment, Generation: key.generation, T: t}, end)
	})
}

// fly carries one barrier to the segment's leader.
func (l *Lines) fly(b line.Barrier, end func(uint64, error)) {
	p := l.p
	if g := p.Groups[b.Segment]; g != nil && g.Leads() {
		l.barHere(b, end)
		return
	}
	d, ok := p.Table.Segment(b.Segment)
	if !ok {
		end(0, line.ErrNotLeader)
		return
	}
	to := l.whom(d)
	heard := func(index uint64, err error) {
		l.heard(b.Segment, to, err)
		end(index, err)
	}
	p.Call(to, func(q *node.Process, reply func(func())) {
		LinesAt(q).barHere(b, func(index uint64, err error) { reply(func() { heard(index, err) }) })
	}, func() { heard(0, node.ErrNoAnswer) })
}

// whom is who leads a segment elsewhere: the leader if it is known, best to a replica
// here, else its voters in turn.
func (l *Lines) whom(d *anchormesh.Descriptor) anchormesh.NodeID {
	if g := l.p.Groups[d.Segment]; g != nil && g.Status.Leader != "" && l.p.Mesh.Cfg.Plant != plan.PlantLeadersOnly {
		return g.Status.Leader
	}
	if leader, ok := l.p.Table.Leader(d.Segment); ok && leader != l.p.ID {
		return leader
	}
	voters := d.Voters()
	if l.p.Mesh.Cfg.Plant == plan.PlantLeadersOnly || len(voters) == 0 {
		return ""
	}
	l.turn[d.Segment]++
	return voters[l.turn[d.Segment]%len(voters)].Node
}

// heard remembers who led, or that this one did not.
func (l *Lines) heard(segment anchormesh.SegmentID, from anchormesh.NodeID, err error) {
	known, ok := l.p.Table.Leader(segment)
	switch here := l.p.Groups[segment] != nil; {
	case here: // the replica knows better
	case err == nil:
		l.p.Table.Guess(segment, from)
	case ok && known == from:
		l.p.Table.Guess(segment, "")
	}
}

// barHere takes a barrier to the holder on this node.
func (l *Lines) barHere(b line.Barrier, done func(uint64, error)) {
	l.do(func() {
		s := l.led[b.Segment]
		if s == nil {
			l.again(b.Segment)
			done(0, line.ErrNotLeader)
			return
		}
		h := s.collector.Holder(b.Segment)
		b.Token, b.Line = l.token(), h.Seat().Line
		s.passed[b.Token] = func(err error) {
			at, ok := l.standing(b.Segment)
			if err == nil && !ok {
				err = line.ErrNotLeader
			}
			done(at.applied, err)
		}
		h.Barrier(l.now, b)
		s.stir(h)
	})
}

// serve answers another node's request for numbers.
func (l *Lines) serve(req line.Request, done func(line.Answer)) {
	l.do(func() {
		s := l.led[req.Segment]
		if s == nil || s.homeAt != req.Segment {
			l.again(req.Segment)
			done(line.Answer{Err: line.ErrNotLeader})
			return
		}
		token := l.token()
		s.answers[token] = done
		s.home.Request(token, req)
	})
}

// Stamp returns a command with its revision in front.
func Stamp(rev anchormesh.Revision, command []byte) []byte {
	return append(keyspace.AppendStamp(make([]byte, 0, keyspace.StampBytes+len(command)), rev), command...)
}

func LinesAt(p *node.Process) *Lines { return node.Part[*Lines](p) }
