package dispatch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/approvals"
	"github.com/anchormesh/anchormesh/testnet/sim/leases"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/stamps"
	"github.com/anchormesh/anchormesh/testnet/sim/txns"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// This package is node/dispatch with its waits turned into
// events: where a request goes, and above all what may be tried again.

const retryWait = 20 * time.Millisecond

// request is what goes to a segment: a client's, or a part of it.
type request struct {
	op           keyspace.Op // of a write; 0: a range
	raw          []byte
	serializable bool
	at           anchormesh.Revision // to read at, or to compact behind; 0: not known yet
}

// Command is what the request puts into the log.
func (r *request) Command() []byte {
	command := keyspace.AppendCommand(nil, r.op, r.raw)
	if r.op == keyspace.OpCompact && r.at != 0 {
		return stamps.Stamp(r.at, command)
	}
	return command
}

// stamped reports whether the request's command takes a revision.
func (r *request) stamped() bool {
	switch r.op {
	case keyspace.OpPut, keyspace.OpDeleteRange, keyspace.OpTxn, keyspace.OpLeaseRevoke:
		return true
	}
	return false
}

// answer is a request's end. index is that of its entry, 0 of reads.
type answer func(index uint64, resp []byte, err error)

func (p *dispatcher) again(c *Call) {
	c.try++
	p.After(retryWait, func() { p.attempt(c) })
}

// notApplied are what a proposal comes to that took effect nowhere: the engine refused it,
// or its place, or the votes on it.
var notApplied = []error{consensus.ErrNotLeader, consensus.ErrDropped, consensus.ErrNoGroup, machine.ErrGeneration, keyspace.ErrOvertaken,
	approval.ErrStale, approval.ErrNotLeader, approval.ErrUnanswered, approval.ErrForged}

// translate sorts the engine's and the machine's errors as package dispatch does.
func translate(err error) error {
	for _, nowhere := range slices.Concat(notApplied, witness.Nowhere) {
		if errors.Is(err, nowhere) {
			return node.ErrRetry
		}
	}
	return err
}

// lineFailed sorts the errors of a question about revisions: all of them say that
// nothing took effect.
func lineFailed(err error) error {
	if err == nil || errors.Is(err, line.ErrOverloaded) {
		return err
	}
	return node.ErrRetry
}

// attempt is one try of a call, on the node that the client spoke to.
func (p *dispatcher) attempt(c *Call) {
	if c.over {
		return
	}
	desc, ok := p.Table.Lookup(c.keys.Start)
	if !ok {
		p.again(c)
		return
	}
	try := c.try
	mine := func(resp []byte, err error) { // an answer to a try that was given up is nobody's
		if c.try == try {
			c.answered(p, resp, err)
		}
	}
	ofLeases := c.Op.Kind == check.Grant || c.Op.Kind == check.Revoke
	if !ofLeases && !desc.Range.Covers(c.keys) {
		p.several(c, mine)
		return
	}
	p.toSegment(desc, &c.request, c.try, &c.out, func(_ uint64, resp []byte, err error) { mine(resp, err) })
}

// toSegment takes a request to a segment, here or elsewhere. out is set once a write's
// outcome may be unknown.
func (p *dispatcher) toSegment(desc *anchormesh.Descriptor, req *request, try int, out *bool, done answer) {
	r, g := p.Host.Held[desc.Segment], p.Groups[desc.Segment]
	switch {
	case r == nil:
		p.forward(desc, req, p.anchor(desc, try), out, done)
	case r.Machine.Descriptor().Generation != desc.Generation:
		done(0, nil, node.ErrRetry)
	case req.op == 0:
		p.readHere(r, desc, req, done)
	case g == nil:
		done(0, nil, node.ErrRetry)
	case g.Leads():
		*out = true
		p.writeHere(r, desc, req, done)
	case g.Status.Leader == "":
		done(0, nil, node.ErrRetry)
	default:
		p.forward(desc, req, g.Status.Leader, out, done)
	}
}

func (p *dispatcher) anchor(d *anchormesh.Descriptor, try int) anchormesh.NodeID {
	if leader, ok := p.Table.Leader(d.Segment); ok && try%2 == 0 {
		return leader
	}
	voters := d.Voters()
	if len(voters) == 0 {
		return ""
	}
	return voters[try%len(voters)].Node
}

// writeHere proposes a request's command, with a stamp if the scope was split.
func (p *dispatcher) writeHere(r *node.ReplicaHere, d *anchormesh.Descriptor, req *request, done answer) {
	end := func(res consensus.Result) {
		if res.Err == nil {
			p.Mesh.Acknowledged(d.Segment, res.Index)
		}
		done(res.Index, res.Response, translate(res.Err))
	}
	switch command := req.Command(); {
	case r.Machine.State().Line != 0 && req.stamped() && p.Mesh.Cfg.Plant != plan.PlantDense:
		txns.At(p.Process).Propose(d, command, end)
	case approvals.Wants(r.Machine, command):
		approvals.At(p.Process).Submit(d.Segment, d.Generation, command, end)
	default:
		p.Propose(d.Segment, d.Generation, command, end)
	}
}

// readHere reads from the replica here.
func (p *dispatcher) readHere(r *node.ReplicaHere, d *anchormesh.Descriptor, req *request, done answer) {
	if r.Machine.State().Silent() != nil {
		done(0, nil, node.ErrRetry)
		return
	}
	read := func(at anchormesh.Revision, err error) {
		g := p.Groups[d.Segment]
		if err != nil || g == nil || p.Host.Held[d.Segment] != r || r.Machine.Descriptor().Generation != d.Generation {
			done(0, nil, node.ErrRetry)
			return
		}
		p.Mesh.Stats.Reads++
		resp, err := readAt(r, req, at, g.Status.Term)
		done(0, resp, translate(err))
	}
	switch {
	case req.serializable:
		p.waitFloor(r, d.Segment, func() { read(0, nil) })
	case p.Mesh.Cfg.Plant == plan.PlantStaleRead:
		p.After(0, func() { read(0, nil) })
	case r.Machine.State().Line == 0 && (req.at == 0 || p.Mesh.Cfg.Plant == plan.PlantPartOfNow):
		p.ReadIndex(d.Segment, func(_ uint64, err error) { read(0, err) })
	case req.at != 0:
		p.barrier(d, req.at, func(err error) { read(req.at, err) })
	default:
		p.lines.Ask(d.Line, func(at anchormesh.Revision, err error) {
			if err != nil {
				done(0, nil, lineFailed(err))
				return
			}
			p.barrier(d, at, func(err error) { read(at, err) })
		})
	}
}

// barrier waits until the replica here has everything of the segment up to at, and
// nothing at or below it can come any more.
func (p *dispatcher) barrier(d *anchormesh.Descriptor, at anchormesh.Revision, done func(error)) {
	if p.Mesh.Cfg.Plant == plan.PlantNoBarrier {
		p.ReadIndex(d.Segment, func(_ uint64, err error) { done(err) })
		return
	}
	p.Mesh.Stats.Barriers++
	p.lines.Barrier(d, at, func(index uint64, err error) {
		g := p.Groups[d.Segment]
		switch {
		case err != nil:
			done(lineFailed(err))
		case g == nil:
			done(node.ErrRetry)
		default:
			g.WhenApplied(index, done)
		}
	})
}

// read answers a range at a revision of the scope's line, or (0) at the newest one
// here.
func readAt(r *node.ReplicaHere, req *request, at anchormesh.Revision, term uint64) (resp []byte, err error) {
	var q codec.RangeRequest
	if err := codec.ParseRange(req.raw, &q); err != nil {
		return nil, err
	}
	var chunks codec.Chunks
	if at == 0 {
		chunks, err = r.Machine.Space().Range(background, &q, term)
	} else {
		chunks, err = r.Machine.Space().RangeAt(background, &q, term, at)
	}
	return chunks.Bytes(), err
}

// waitFloor waits until the newest write answered through this node is applied here.
func (p *dispatcher) waitFloor(r *node.ReplicaHere, segment anchormesh.SegmentID, done func()) {
	g := p.Groups[segment]
	if g == nil || g.Applied >= r.Floor {
		p.After(0, done)
		return
	}
	over := false
	once := func() {
		if !over {
			over = true
			done()
		}
	}
	g.WhenApplied(r.Floor, func(error) { once() })
	p.After(250*time.Millisecond, once)
}

// forward sends a request to another node.
func (p *dispatcher) forward(d *anchormesh.Descriptor, req *request, to anchormesh.NodeID, out *bool, done answer) {
	n := p.Mesh.Find(to)
	if n == nil || n.Index == p.Index || n.Proc == nil || !p.Mesh.Net.Open(p.Index, n.Index) { // cannot be reached: not sent
		if leader, ok := p.Table.Leader(d.Segment); ok && leader == to {
			p.Table.Guess(d.Segment, "")
		}
		done(0, nil, node.ErrRetry)
		return
	}
	*out = true
	over := false
	once := func(index uint64, resp []byte, err error) {
		if !over {
			over = true
			done(index, resp, err)
		}
	}
	if req.op == 0 {
		p.After(time.Second, func() { once(0, nil, node.ErrRetry) })
	}
	segment, generation := d.Segment, d.Generation
	p.Mesh.Net.Stream(p.Index, n.Index, func() {
		q := n.Proc
		if q == nil {
			return
		}
		q.Do(func() {
			DispatcherAt(q).serve(segment, generation, req, func(index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID) {
				p.Mesh.Net.Stream(n.Index, p.Index, func() {
					p.Do(func() {
						p.forwarded(segment, n.ID, index, err, fresh, leader)
						once(index, resp, err)
					})
				})
			})
		})
	})
}

// forwarded learns from another node's answer.
func (p *dispatcher) forwarded(segment anchormesh.SegmentID, from anchormesh.NodeID, index uint64, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID) {
	switch {
	case fresh != nil:
		p.Table.Learn(fresh.Clone())
		if known, ok := p.Table.Leader(segment); ok && known == from { // it may know no more than this node
			p.Table.Guess(segment, "")
		}
	case errors.Is(err, node.ErrRetry):
		p.Table.Guess(segment, leader)
	}
	if r := p.Host.Held[segment]; r != nil && err == nil {
		r.Floor = max(r.Floor, index)
	}
}

type reply func(index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID)

// serve answers a forwarded request.
func (p *dispatcher) serve(segment anchormesh.SegmentID, generation anchormesh.Generation, req *request, to reply) {
	r := p.Host.Held[segment]
	if r == nil || r.Machine.Descriptor().Generation != generation {
		fresh, _ := p.Table.Segment(segment)
		to(0, nil, node.ErrRetry, fresh, "")
		return
	}
	leader := func() anchormesh.NodeID {
		if g := p.Groups[segment]; g != nil {
			return g.Status.Leader
		}
		return ""
	}
	end := func(index uint64, resp []byte, err error) { to(index, resp, err, nil, leader()) }
	if req.op != 0 {
		p.writeHere(r, r.Machine.Descriptor(), req, end)
		return
	}
	p.readHere(r, r.Machine.Descriptor(), req, end)
}

// KeepAlive renews a lease at the leader, which proves that it leads first.
func (p *dispatcher) KeepAlive(segment anchormesh.SegmentID, id int64, done func(ttl int64, err error)) {
	leader, ok := p.Table.Leader(segment)
	if !ok {
		p.After(retryWait, func() { done(0, node.ErrRetry) })
		return
	}
	n := p.Mesh.Find(leader)
	p.Mesh.Net.Stream(p.Index, n.Index, func() {
		q := n.Proc
		if q == nil {
			return
		}
		q.Do(func() {
			DispatcherAt(q).renewHere(segment, id, func(ttl int64, err error) {
				p.Mesh.Net.Stream(n.Index, p.Index, func() { p.Do(func() { done(ttl, err) }) })
			})
		})
	})
}

func (p *dispatcher) renewHere(segment anchormesh.SegmentID, id int64, done func(ttl int64, err error)) {
	p.ReadIndex(segment, func(_ uint64, err error) {
		g := p.Groups[segment]
		if err != nil || g == nil || !g.Leads() {
			done(0, node.ErrRetry)
			return
		}
		p.lessor.Renew(segment, id, done)
	})
}

var background = context.Background()

// dispatcher takes requests to where they belong.
type dispatcher struct {
	node.Quiet
	*node.Process
	lines  *stamps.Lines
	lessor *leases.Lessor
}

func NewDispatcher(p *node.Process) node.Shell {
	return &dispatcher{Process: p, lines: stamps.LinesAt(p), lessor: node.Part[*leases.Lessor](p)}
}

func DispatcherAt(p *node.Process) *dispatcher { return node.Part[*dispatcher](p) }
