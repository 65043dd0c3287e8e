package govern

import (
	"bytes"
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
)

const (
	interval    = 200 * time.Millisecond
	affirmAfter = 4 * time.Second
	stepTimeout = 5 * time.Second
	expiry      = 10 * time.Minute
)

// errNotYet says that a step has to wait; it is tried again.
var errNotYet = errors.New("sim: not yet")

// Governor governs the scopes whose homes are on a node, and votes for it.
type Governor struct {
	node.Quiet
	p        *node.Process
	busy     map[task]time.Duration             // until when it is not begun again
	seen     map[task]time.Duration             // when this node, leading a home, saw a proposal first
	unproven map[unproven]time.Duration         // since when
	applied  map[anchormesh.Hash]bool           // entries of lineages that this process applied
	proofs   map[anchormesh.Hash]*lineage.Proof // as far as they are gathered
}

// unproven is a decision of a home whose proof is waited for.
type unproven struct {
	home  anchormesh.SegmentID
	entry anchormesh.Hash
}

// task is something done for a home: for one of its proposals, or (0) for the scope.
type task struct {
	home anchormesh.SegmentID
	term uint64 // 0: a vote
	id   uint64
}

// NewGovernor returns a process's governor.
func NewGovernor(p *node.Process) node.Shell {
	return &Governor{p: p, busy: make(map[task]time.Duration), seen: make(map[task]time.Duration),
		unproven: make(map[unproven]time.Duration), applied: make(map[anchormesh.Hash]bool),
		proofs: make(map[anchormesh.Hash]*lineage.Proof)}
}

// At returns a process's governor.
func At(p *node.Process) *Governor { return node.Part[*Governor](p) }

// Booted begins to look after the homes here.
func (g *Governor) Booted() {
	if g.p.Mesh.Cfg.Governance.Every > 0 {
		g.p.Every(interval, g.look)
	}
}

// Changed notes which decisions this process can sign.
func (g *Governor) Changed(_ *node.ReplicaHere, c machine.Change) {
	if e := c.State.Chain.Last(); e.Index == c.Place.Index {
		g.applied[e.Hash()] = true
	}
}

// home is a home here, at one moment.
type home struct {
	*machine.State
	segment anchormesh.SegmentID
	term    uint64
	leads   bool
}

func (g *Governor) homeOf(id anchormesh.SegmentID) (home, bool) {
	r, group := g.p.Host.Held[id], g.p.Groups[id]
	if r == nil || group == nil || !r.Machine.State().Home() {
		return home{}, false
	}
	return home{r.Machine.State(), id, group.Status.Term, group.Leads()}, true
}

// look starts what the homes here need.
func (g *Governor) look() {
	for _, r := range g.p.Host.Sorted() {
		h, ok := g.homeOf(r.Machine.Descriptor().Segment)
		if !ok {
			continue
		}
		g.voteFor(h)
		if !h.leads || h.Merging() {
			continue
		}
		g.expire(h)
		record := h.Scope
		if record.Doing != nil {
			g.run(task{h.segment, h.term, record.Doing.ID}, func(end func()) { g.carryOut(h, func(error) { end() }) })
		}
		if (Behind(record) || g.stray(h)) && (record.Doing == nil || record.Doing.Kind != scope.Delete) {
			g.run(task{h.segment, h.term, 0}, func(end func()) { g.spread(h, func(error) { end() }) })
		}
	}
}

// Behind reports whether the newest version is not in force everywhere.
func Behind(r *scope.Record) bool { return r.InForce < r.Newest().Number }

// run starts f unless it is under way.
func (g *Governor) run(t task, f func(end func())) {
	now := g.p.Mesh.K.Now()
	if now < g.busy[t] {
		return
	}
	g.busy[t] = now + stepTimeout
	f(func() { g.busy[t] = g.p.Mesh.K.Now() + interval })
}

// stray reports whether the routes show a segment that lags behind the scope's policy.
func (g *Governor) stray(h home) bool {
	newest := h.Scope.Newest().Number
	if newest == 0 {
		return false
	}
	own := h.Descriptor.Scope
	found, _ := g.p.Table.Covering(anchormesh.PrefixRange(own))
	return slices.ContainsFunc(found, func(o *anchormesh.Descriptor) bool {
		return len(o.Scope) < len(own) && len(o.Range.Start) >= len(own) || bytes.Equal(o.Scope, own) && o.Policy < newest
	})
}

// expire ends proposals that were open for too long while this node led.
func (g *Governor) expire(h home) {
	limit := expiry
	if h.Policy != nil {
		limit = h.Policy.AmendExpiry()
	}
	for t := range g.seen {
		if _, open := h.Scope.Proposal(t.id); t.home == h.segment && (t.term != h.term || !open) {
			delete(g.seen, t)
		}
	}
	now := g.p.Mesh.K.Now()
	for _, p := range h.Scope.Open {
		t := task{h.segment, h.term, p.ID}
		if first, ok := g.seen[t]; !ok {
			g.seen[t] = now
		} else if now-first >= limit {
			g.seen[t] = now
			g.propose(h, machine.Close(p.ID, scope.Expired, "not decided in time"), func(error) {})
		}
	}
}

// propose puts an entry into the log of a segment led here.
func (g *Governor) propose(h home, command []byte, done func(error)) {
	g.p.Submit(h.segment, replica.Proposal{
		Generation: h.Descriptor.Generation, Term: h.term, Alone: true, Payload: command,
		Done: func(r replica.Result) { done(r.Err) },
	})
}

// voteFor votes on what is open at a home, where anchors vote by themselves.
func (g *Governor) voteFor(h home) {
	a, ok := h.Descriptor.AnchorOn(g.p.ID)
	if !ok || a.Role != anchormesh.Voter {
		return
	}
	if h.Policy != nil && h.Policy.Amend.Manual && g.p.Rng.IntN(50) > 0 { // an operator comes by
		return
	}
	for _, p := range h.Scope.Open {
		if slices.ContainsFunc(p.Votes, func(v scope.Vote) bool { return v.Node == g.p.ID }) {
			continue
		}
		g.run(task{home: h.segment, id: p.ID}, func(end func()) {
			g.cast(h, p, g.p.Rng.Float64() >= g.p.Mesh.Cfg.Governance.Refuse, end)
		})
	}
}

// cast signs a vote and has it counted.
func (g *Governor) cast(h home, p *scope.Proposal, approve bool, end func()) {
	d := h.Descriptor
	v := &scope.Vote{Node: g.p.ID, Approve: approve, Signature: g.p.Sign(p.Statement(d.Mesh, d.Segment, approve))}
	if !approve {
		v.Why = "chance"
	}
	command := machine.CastVote(p.ID, v)
	g.askLeader(d, func(q *Governor, done reply) {
		now, ok := q.homeOf(d.Segment)
		if !ok || !now.leads {
			done(nil, errElsewhere)
			return
		}
		q.propose(now, command, func(err error) { done(now.Descriptor, err) })
	}, func(*anchormesh.Descriptor, error) { end() })
}
