package sim

import (
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
)

const leaseTick = 500 * time.Millisecond

// lessor drives the lease cores of the segments led here, as package node/leases
// does: everything goes through one queue, a moment later.
type lessor struct {
	p     *process
	queue []func()
	due   bool
	cores map[anchormesh.SegmentID]*lease.Core
	waits map[uint64]func(lease.Answer)
	token uint64
}

func (l *lessor) init(p *process) {
	l.p, l.cores, l.waits = p, make(map[anchormesh.SegmentID]*lease.Core), make(map[uint64]func(lease.Answer))
}

func (l *lessor) do(f func()) {
	l.queue = append(l.queue, f)
	if l.due {
		return
	}
	l.due = true
	l.p.after(l.p.moment(), func() {
		l.due = false
		queue := l.queue
		l.queue = nil
		for _, f := range queue {
			f()
		}
	})
}

// follow is told of applied lease commands.
func (l *lessor) follow(segment anchormesh.SegmentID) func([]lease.Event) {
	return func(events []lease.Event) {
		l.p.mesh.leaseEvents(segment, events)
		g := l.p.groups[segment]
		if g == nil || !g.leads() {
			return
		}
		kept := slices.Clone(events)
		l.do(func() {
			for _, ev := range kept {
				l.step(segment, ev)
			}
		})
	}
}

func (l *lessor) statusChanged(g *group) {
	segment, term := g.segment, g.status.Term
	if !g.leads() {
		l.do(func() {
			if l.cores[segment] != nil {
				l.step(segment, lease.Demote{})
				delete(l.cores, segment)
			}
		})
		return
	}
	l.p.readIndex(segment, func(_ uint64, err error) {
		if err == nil {
			l.do(func() { l.lead(segment, term) })
		}
	})
}

func (l *lessor) lead(segment anchormesh.SegmentID, term uint64) {
	g := l.p.groups[segment]
	if g == nil || !g.leads() || g.status.Term != term {
		return
	}
	if l.cores[segment] == nil {
		l.cores[segment] = lease.New(l.p.mesh.cfg.Mesh.Lease)
	}
	l.step(segment, lease.Lead{Term: term, Leases: g.machine.Space().Leases()})
}

func (l *lessor) tick() {
	for _, segment := range slices.Sorted(maps.Keys(l.cores)) {
		l.step(segment, lease.Tick{})
	}
}

func (l *lessor) step(segment anchormesh.SegmentID, ev lease.Event) {
	core := l.cores[segment]
	if core == nil {
		return
	}
	fx := core.Step(l.p.now(), ev)
	for _, a := range fx.Answers {
		if f := l.waits[a.Token]; f != nil {
			delete(l.waits, a.Token)
			f(a)
		}
	}
	for _, e := range fx.Expire {
		l.p.mesh.expiring(e.ID)
		l.propose(segment, keyspace.OpLeaseExpire, codec.AppendLeaseExpiry(nil, e))
	}
	for _, list := range [][]codec.LeaseCheckpoint{fx.Clear, fx.Checkpoint} {
		var body []byte
		for _, c := range list {
			body = codec.AppendLeaseCheckpoint(body, c)
		}
		if len(list) > 0 {
			l.propose(segment, keyspace.OpLeaseCheckpoint, body)
		}
	}
}

func (l *lessor) propose(segment anchormesh.SegmentID, op keyspace.Op, body []byte) {
	r := l.p.host.held[segment]
	if r == nil {
		return
	}
	d, command := r.machine.Descriptor(), keyspace.AppendCommand(nil, op, body)
	if op == keyspace.OpLeaseExpire && r.machine.State().Line != 0 && l.p.mesh.cfg.Plant != PlantDenseExpiry {
		l.p.lines.propose(d, command, func(consensus.Result) {})
		return
	}
	l.p.propose(segment, d.Generation, command, func(consensus.Result) {})
}

// renew hands a keep-alive to the core of a segment that this node was just proved
// to lead; done gets the TTL, zero for a lease that is not there.
func (l *lessor) renew(segment anchormesh.SegmentID, id int64, done func(ttl int64, err error)) {
	l.do(func() {
		if l.cores[segment] == nil {
			done(0, errRetry)
			return
		}
		l.token++
		l.waits[l.token] = func(a lease.Answer) {
			switch a.Verdict {
			case lease.Renewed:
				done(a.TTL, nil)
			case lease.NotFound:
				done(0, nil)
			default:
				done(0, errRetry)
			}
		}
		l.step(segment, lease.Renew{Renewals: []lease.Renewal{{ID: id, Token: l.token}}})
	})
}

// propose sends a request into a segment's log.
func (p *process) propose(segment anchormesh.SegmentID, gen anchormesh.Generation, payload []byte, done func(consensus.Result)) {
	p.submit(segment, replica.Proposal{Generation: gen, Payload: payload, Done: done})
}

// readIndex calls done when a read of the applied state here is linearizable.
func (p *process) readIndex(segment anchormesh.SegmentID, done func(index uint64, err error)) {
	w := p.worker(segment)
	w.inbox.Reads = append(w.inbox.Reads, shard.Read{Segment: segment, Done: done})
	w.kick()
}
