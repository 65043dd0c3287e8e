package leases

import (
	"maps"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/txns"
)

const leaseTick = 500 * time.Millisecond

// Lessor drives the lease cores of the segments led here, as package node/leases
// does: everything goes through one queue, a moment later.
type Lessor struct {
	node.Quiet
	p     *node.Process
	queue []func()
	due   bool
	cores map[anchormesh.SegmentID]*lease.Core
	waits map[uint64]func(lease.Answer)
	token uint64
}

func NewLessor(p *node.Process) node.Shell {
	l := &Lessor{p: p}
	l.cores, l.waits = make(map[anchormesh.SegmentID]*lease.Core), make(map[uint64]func(lease.Answer))
	return l
}

func (l *Lessor) Booted() { l.p.Every(leaseTick, l.tick) }

func (l *Lessor) Opened(segment anchormesh.SegmentID, space *keyspace.Space) {
	space.OnLeases(l.follow(segment))
}

func (l *Lessor) do(f func()) {
	l.queue = append(l.queue, f)
	if l.due {
		return
	}
	l.due = true
	l.p.After(l.p.Moment(), func() {
		l.due = false
		queue := l.queue
		l.queue = nil
		for _, f := range queue {
			f()
		}
	})
}

// follow is told of applied lease commands.
func (l *Lessor) follow(segment anchormesh.SegmentID) func([]lease.Event) {
	return func(events []lease.Event) {
		l.p.Mesh.LeaseEvents(l.p.Mesh.LineOf(segment), events, func() int64 { return l.p.Mesh.NewestOf(segment) })
		g := l.p.Groups[segment]
		if g == nil || !g.Leads() {
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

func (l *Lessor) Follows(g *node.Group) {
	segment, term := g.Segment, g.Status.Term
	if !g.Leads() {
		l.do(func() {
			if l.cores[segment] != nil {
				l.step(segment, lease.Demote{})
				delete(l.cores, segment)
			}
		})
		return
	}
	l.p.ReadIndex(segment, func(_ uint64, err error) {
		if err == nil {
			l.do(func() { l.lead(segment, term) })
		}
	})
}

func (l *Lessor) lead(segment anchormesh.SegmentID, term uint64) {
	g := l.p.Groups[segment]
	if g == nil || !g.Leads() || g.Status.Term != term {
		return
	}
	if l.cores[segment] == nil {
		l.cores[segment] = lease.New(l.p.Mesh.Cfg.Mesh.Lease)
	}
	l.step(segment, lease.Lead{Term: term, Leases: g.Machine.Space().Leases()})
}

func (l *Lessor) tick() {
	for _, segment := range slices.Sorted(maps.Keys(l.cores)) {
		l.step(segment, lease.Tick{})
	}
}

func (l *Lessor) step(segment anchormesh.SegmentID, ev lease.Event) {
	core := l.cores[segment]
	if core == nil {
		return
	}
	fx := core.Step(l.p.Now(), ev)
	for _, a := range fx.Answers {
		if f := l.waits[a.Token]; f != nil {
			delete(l.waits, a.Token)
			f(a)
		}
	}
	for _, e := range fx.Expire {
		l.p.Mesh.Expiring(e.ID)
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

func (l *Lessor) propose(segment anchormesh.SegmentID, op keyspace.Op, body []byte) {
	r := l.p.Host.Held[segment]
	if r == nil {
		return
	}
	d, command := r.Machine.Descriptor(), keyspace.AppendCommand(nil, op, body)
	if op == keyspace.OpLeaseExpire && r.Machine.State().Line != 0 && l.p.Mesh.Cfg.Plant != plan.PlantDenseExpiry {
		txns.At(l.p).Propose(d, command, func(consensus.Result) {})
		return
	}
	l.p.Propose(segment, d.Generation, command, func(consensus.Result) {})
}

// Renew hands a keep-alive to the core of a segment that this node was just proved
// to lead; done gets the TTL, zero for a lease that is not there.
func (l *Lessor) Renew(segment anchormesh.SegmentID, id int64, done func(ttl int64, err error)) {
	l.do(func() {
		if l.cores[segment] == nil {
			done(0, node.ErrRetry)
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
				done(0, node.ErrRetry)
			}
		}
		l.step(segment, lease.Renew{Renewals: []lease.Renewal{{ID: id, Token: l.token}}})
	})
}
