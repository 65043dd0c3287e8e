package sim

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/machine"
)

// This file and scope.go are package node/stamps with its waits turned into events.
// The cores are the real ones; requests between nodes travel as values.

var (
	errNoHome   = errors.New("sim: the home of the scope's revisions does not answer")
	errNoAnswer = errors.New("sim: a call ended without an answer")
)

const (
	callTimeout = 2 * time.Second
	linePause   = 20 * time.Millisecond
)

// lines runs the lines of all scopes on a node.
type lines struct {
	p       *process
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
}

// standing is what a replica on this node has applied.
type standing struct {
	d             *anchormesh.Descriptor
	line          line.ID
	window, last  anchormesh.Revision
	applied, term uint64
}

func (l *lines) init(p *process) {
	l.turn = make(map[anchormesh.SegmentID]int)
	l.p, l.flights = p, make(map[barrierKey]*barrierFlight)
	l.scopes, l.led = make(map[string]*scope), make(map[anchormesh.SegmentID]*scope)
}

func (p *process) standing(id anchormesh.SegmentID) (standing, bool) {
	r := p.host.held[id]
	if r == nil {
		return standing{}, false
	}
	applied, term := r.machine.Segment().Applied()
	return r.standing(r.machine.State(), applied, term), true
}

func (r *replicaHere) standing(s *machine.State, applied, term uint64) standing {
	last, _ := r.machine.Segment().Revision()
	return standing{d: s.Descriptor, line: line.ID(s.Line), window: s.Window, last: last, applied: applied, term: term}
}

// propose puts a command into the log of a segment of a scope that was split.
func (l *lines) propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	l.in.writes = append(l.in.writes, incoming{d.Segment, d.Generation, &stampedWrite{command, done}})
	l.nudge()
}

// statusChanged follows the leaders of this node's segments.
func (l *lines) statusChanged(segment anchormesh.SegmentID, leads bool, term uint64) {
	if !leads {
		l.do(func() { l.depose(segment) })
		return
	}
	l.seek(segment, term)
}

// changed tells that a replica here has applied a change of structure or of its
// window.
func (l *lines) changed(segment anchormesh.SegmentID, now standing) {
	l.do(func() {
		if s := l.led[segment]; s != nil {
			s.changed(segment, now)
			return
		}
		l.again(segment)
	})
}

// seek leads the segment's cores once an entry of the term is applied here.
func (l *lines) seek(segment anchormesh.SegmentID, term uint64) {
	if at, ok := l.p.standing(segment); !ok || at.line == 0 {
		return
	}
	l.p.readIndex(segment, func(_ uint64, err error) {
		if err == nil {
			l.do(func() { l.lead(segment, term) })
		}
	})
}

// do runs f in the next step.
func (l *lines) do(f func()) {
	l.in.calls = append(l.in.calls, f)
	l.nudge()
}

func (l *lines) nudge() {
	if !l.due {
		l.due = true
		l.p.after(l.p.moment(), func() {
			l.due = false
			l.step()
		})
	}
}

// step empties the inbox and carries out what follows.
func (l *lines) step() {
	in := l.in
	l.in = linesInbox{}
	l.now = time.Unix(0, 0).Add(l.p.mesh.k.Now()) // monotonic: clocks that are set do not show
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
func (l *lines) wakeAt(next time.Time) {
	if next.IsZero() {
		return
	}
	at := max(next.Sub(time.Unix(0, 0)), l.p.mesh.k.Now()+time.Microsecond)
	if l.timer != 0 && l.timer <= at {
		return
	}
	l.timer = at
	l.p.after(at-l.p.mesh.k.Now(), func() {
		if l.timer == at {
			l.timer = 0
			l.nudge()
		}
	})
}

func (l *lines) takeWrite(w incoming) {
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
func (l *lines) again(segment anchormesh.SegmentID) {
	if s := l.led[segment]; s != nil && s.collector.Holder(segment).Seat().Term != 0 {
		return
	}
	if g := l.p.groups[segment]; g != nil && g.leads() {
		l.seek(segment, g.status.Term)
	}
}

// lead starts a term of a segment here.
func (l *lines) lead(segment anchormesh.SegmentID, term uint64) {
	g := l.p.groups[segment]
	at, here := l.p.standing(segment)
	if g == nil || !here || !g.leads() || g.status.Term != term || at.line == 0 {
		return
	}
	s := l.scope(at.d.Line)
	l.led[segment] = s
	s.lead(segment, term, at)
}

func (l *lines) depose(segment anchormesh.SegmentID) {
	if s := l.led[segment]; s != nil {
		delete(l.led, segment)
		s.depose(segment)
	}
}

// scope returns the cores of a scope.
func (l *lines) scope(prefix []byte) *scope {
	s := l.scopes[string(prefix)]
	if s == nil {
		s = newScope(l, prefix)
		l.scopes[string(prefix)] = s
	}
	return s
}

func (l *lines) token() uint64 {
	l.tokens++
	return l.tokens
}

// ask asks for the line's largest number.
func (l *lines) ask(scope []byte, done func(anchormesh.Revision, error)) {
	l.do(func() {
		s := l.scope(scope)
		if len(s.asking) >= l.p.mesh.line().RequestsMax {
			done(0, line.ErrOverloaded)
			return
		}
		s.asking = append(s.asking, done)
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

// barrier calls done when nothing at or below t can appear in the segment any more.
func (l *lines) barrier(d *anchormesh.Descriptor, t anchormesh.Revision, done func(index uint64, err error)) {
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
	l.p.after(callTimeout, func() { end(0, errNoAnswer) })
	l.p.after(l.p.moment(), func() {
		l.fly(line.Barrier{Segment: key.segment, Generation: key.generation, T: t}, end)
	})
}

// fly carries one barrier to the segment's leader.
func (l *lines) fly(b line.Barrier, end func(uint64, error)) {
	p := l.p
	if g := p.groups[b.Segment]; g != nil && g.leads() {
		l.barHere(b, end)
		return
	}
	d, ok := p.table.Segment(b.Segment)
	if !ok {
		end(0, line.ErrNotLeader)
		return
	}
	to := l.whom(d)
	heard := func(index uint64, err error) {
		l.heard(b.Segment, to, err)
		end(index, err)
	}
	p.call(to, func(q *process, reply func(func())) {
		q.lines.barHere(b, func(index uint64, err error) { reply(func() { heard(index, err) }) })
	}, func() { heard(0, errNoAnswer) })
}

// whom is who leads a segment elsewhere: the leader if it is known, best to a replica
// here, else its voters in turn.
func (l *lines) whom(d *anchormesh.Descriptor) anchormesh.NodeID {
	if g := l.p.groups[d.Segment]; g != nil && g.status.Leader != "" && l.p.mesh.cfg.Plant != PlantLeadersOnly {
		return g.status.Leader
	}
	if leader, ok := l.p.table.Leader(d.Segment); ok && leader != l.p.id {
		return leader
	}
	voters := d.Voters()
	if l.p.mesh.cfg.Plant == PlantLeadersOnly || len(voters) == 0 {
		return ""
	}
	l.turn[d.Segment]++
	return voters[l.turn[d.Segment]%len(voters)].Node
}

// heard remembers who led, or that this one did not.
func (l *lines) heard(segment anchormesh.SegmentID, from anchormesh.NodeID, err error) {
	known, ok := l.p.table.Leader(segment)
	switch here := l.p.groups[segment] != nil; {
	case here: // the replica knows better
	case err == nil:
		l.p.table.SetLeader(segment, from)
	case ok && known == from:
		l.p.table.SetLeader(segment, "")
	}
}

// barHere takes a barrier to the holder on this node.
func (l *lines) barHere(b line.Barrier, done func(uint64, error)) {
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
			at, ok := l.p.standing(b.Segment)
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
func (l *lines) serve(req line.Request, done func(line.Answer)) {
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

// call is a mesh call: ask runs on the other node and may reply once; failed says
// that the node cannot be reached, or did not answer in time.
func (p *process) call(to anchormesh.NodeID, ask func(q *process, reply func(func())), failed func()) {
	n := p.mesh.find(to)
	if n == nil || n.proc == nil || !p.mesh.net.Open(p.idx, n.idx) {
		p.after(p.moment(), failed)
		return
	}
	over := false
	once := func(f func()) {
		if !over {
			over = true
			f()
		}
	}
	p.after(callTimeout, func() { once(failed) })
	p.mesh.net.Stream(p.idx, n.idx, func() {
		q := n.proc
		if q == nil {
			return
		}
		q.do(func() {
			ask(q, func(f func()) {
				p.mesh.net.Stream(n.idx, p.idx, func() { p.do(func() { once(f) }) })
			})
		})
	})
}

// submit puts a proposal into a segment's log.
func (p *process) submit(segment anchormesh.SegmentID, proposal replica.Proposal) {
	w := p.worker(segment)
	w.inbox.Proposals = append(w.inbox.Proposals, shard.Proposal{Segment: segment, Proposal: proposal})
	w.kick()
}

// stamp returns a command with its revision in front.
func stamp(rev anchormesh.Revision, command []byte) []byte {
	return append(keyspace.AppendStamp(make([]byte, 0, keyspace.StampBytes+len(command)), rev), command...)
}
