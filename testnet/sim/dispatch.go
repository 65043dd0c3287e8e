package sim

import (
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// This file is package node/dispatch with its waits turned into events: where a
// request goes, and above all what may be tried again.

// errRetry marks what took effect nowhere.
var errRetry = errors.New("sim: took effect nowhere")

const retryWait = 20 * time.Millisecond

// call is a client's request on its way.
type call struct {
	m    *mesh
	op   *check.Request
	line string
	ttl  int64
	raw  []byte
	key  []byte
	done func(res *check.Result, unknown bool) // neither: it certainly had no effect

	via      *process
	deadline time.Duration
	try      int
	out      bool // in a log's or another node's hands: the outcome is unknown
	over     bool
}

func (c *call) write() bool { return c.op.Kind != check.Range }

// command is what the call puts into the log.
func (c *call) command() []byte { return keyspace.AppendCommand(nil, ops[c.op.Kind], c.raw) }

// begin sends the call through a node. Whatever happens, it ends at its deadline.
func (c *call) begin(via *process) {
	c.raw = c.m.tagged(marshal(encode(c.op, c.ttl)))
	c.key = []byte(c.op.Key)
	switch c.op.Kind {
	case check.Txn:
		c.key = []byte(c.op.Then[0].Key)
	case check.Grant, check.Revoke:
		c.key = nil
	}
	c.via, c.deadline = via, c.m.k.Now()+c.m.cfg.Load.Timeout
	c.m.k.After(c.m.cfg.Load.Timeout, func() {
		c.end(nil, c.out || via.proc != via || via.paused)
	})
	c.m.k.After(c.m.net.Latency(), func() {
		via.do(func() { via.attempt(c) })
	})
}

func (c *call) end(res *check.Result, unknown bool) {
	if c.over {
		return
	}
	if running := c.m.running(); unknown && c.write() && c.m.cfg.Plant == PlantRetryUnknown && len(running) > 0 {
		c.m.k.After(time.Millisecond, func() { p := pick(c.m.rng, running...); p.do(func() { p.attempt(c) }) })
		return
	}
	c.over = true
	c.done(res, unknown)
}

// answered ends the call with what was heard, or tries again.
func (c *call) answered(p *process, resp []byte, err error) {
	switch {
	case c.over:
	case err == nil:
		res, err := decode(c.op.Kind, resp)
		c.m.fail(err)
		c.end(res, false)
	case errors.Is(err, errRetry):
		c.out = false
		p.again(c)
	case errors.Is(err, keyspace.ErrLeaseNotFound):
		c.end(&check.Result{NoLease: true}, false)
	case errors.Is(err, consensus.ErrUnknown) && !c.write():
		p.again(c)
	case errors.Is(err, consensus.ErrUnknown):
		c.end(nil, true)
	case errors.Is(err, keyspace.ErrCompacted), errors.Is(err, keyspace.ErrFutureRev), errors.Is(err, consensus.ErrOverloaded):
		c.end(nil, false)
	default:
		c.m.fail(err)
	}
}

func (p *process) again(c *call) {
	c.try++
	p.after(retryWait, func() { p.attempt(c) })
}

// translate sorts the engine's errors as package dispatch does.
func translate(err error) error {
	for _, nowhere := range []error{consensus.ErrNotLeader, consensus.ErrDropped, consensus.ErrNoGroup, machine.ErrGeneration} {
		if errors.Is(err, nowhere) {
			return errRetry
		}
	}
	return err
}

// attempt is one try of a call, on the node that the client spoke to.
func (p *process) attempt(c *call) {
	if c.over {
		return
	}
	desc, ok := p.table.Lookup(c.key)
	if !ok {
		p.again(c)
		return
	}
	r := p.host.held[desc.Segment]
	if r == nil {
		p.forward(c, desc, p.anchor(desc, c.try))
		return
	}
	g := p.groups[desc.Segment]
	switch {
	case !c.write():
		p.readHere(c, r, func(resp []byte, err error) { c.answered(p, resp, err) })
	case g == nil:
		p.again(c)
	case g.leads():
		c.out = true
		p.writeHere(c, r, func(_ uint64, resp []byte, err error) { c.answered(p, resp, err) })
	case g.status.Leader == "":
		p.again(c)
	default:
		p.forward(c, desc, g.status.Leader)
	}
}

func (p *process) anchor(d *anchormesh.Descriptor, try int) anchormesh.NodeID {
	if leader, ok := p.table.Leader(d.Segment); ok && try%2 == 0 {
		return leader
	}
	voters := d.Voters()
	if len(voters) == 0 {
		return ""
	}
	return voters[try%len(voters)].Node
}

// writeHere proposes the call's command.
func (p *process) writeHere(c *call, r *replicaHere, done func(index uint64, resp []byte, err error)) {
	d := r.machine.Descriptor()
	p.propose(d.Segment, d.Generation, c.command(), func(res consensus.Result) {
		if res.Err == nil {
			p.mesh.acknowledged(d.Segment, res.Index)
		}
		done(res.Index, res.Response, translate(res.Err))
	})
}

// readHere reads from the replica here.
func (p *process) readHere(c *call, r *replicaHere, done func([]byte, error)) {
	d := r.machine.Descriptor()
	read := func(err error) {
		g := p.groups[d.Segment]
		if err != nil || g == nil || p.host.held[d.Segment] != r || r.machine.Descriptor().Generation != d.Generation {
			done(nil, errRetry)
			return
		}
		p.mesh.stats.Reads++
		var q codec.RangeRequest
		if err := codec.ParseRange(c.raw, &q); err != nil {
			done(nil, err)
			return
		}
		chunks, err := r.machine.Space().Range(background, &q, g.status.Term)
		var resp []byte
		for _, part := range chunks {
			resp = append(resp, part...)
		}
		done(resp, err)
	}
	switch {
	case c.op.Serializable:
		p.waitFloor(r, d.Segment, func() { read(nil) })
	case p.mesh.cfg.Plant == PlantStaleRead:
		p.after(0, func() { read(nil) })
	default:
		p.readIndex(d.Segment, read)
	}
}

// waitFloor waits until the newest write answered through this node is applied here.
func (p *process) waitFloor(r *replicaHere, segment anchormesh.SegmentID, done func()) {
	g := p.groups[segment]
	if g == nil || g.applied >= r.floor {
		p.after(0, done)
		return
	}
	over := false
	once := func() {
		if !over {
			over = true
			done()
		}
	}
	g.whenApplied(r.floor, func(error) { once() })
	p.after(250*time.Millisecond, once)
}

// forward sends the call to another node.
func (p *process) forward(c *call, d *anchormesh.Descriptor, to anchormesh.NodeID) {
	n := p.mesh.find(to)
	if n == nil || n.idx == p.idx || n.proc == nil || !p.mesh.net.Open(p.idx, n.idx) { // cannot be reached: not sent
		if leader, ok := p.table.Leader(d.Segment); ok && leader == to {
			p.table.SetLeader(d.Segment, "")
		}
		p.again(c)
		return
	}
	c.out = true
	try := c.try
	mine := func(f func()) { // an answer to a try that was given up is nobody's
		p.do(func() {
			if c.try == try && !c.over {
				f()
			}
		})
	}
	if !c.write() {
		p.after(time.Second, func() { mine(func() { c.answered(p, nil, errRetry) }) })
	}
	segment, generation := d.Segment, d.Generation
	p.mesh.net.Stream(p.idx, n.idx, func() {
		q := n.proc
		if q == nil {
			return
		}
		q.do(func() {
			q.serve(c, segment, generation, func(index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID) {
				p.mesh.net.Stream(n.idx, p.idx, func() {
					mine(func() { p.forwarded(c, segment, index, resp, err, fresh, leader) })
				})
			})
		})
	})
}

func (p *process) forwarded(c *call, segment anchormesh.SegmentID, index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID) {
	if fresh != nil {
		p.table.Learn(fresh.Clone())
	}
	if errors.Is(err, errRetry) {
		p.table.SetLeader(segment, leader)
	}
	if r := p.host.held[segment]; r != nil && err == nil {
		r.floor = max(r.floor, index)
	}
	c.answered(p, resp, err)
}

type reply func(index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID)

// serve answers a forwarded call.
func (p *process) serve(c *call, segment anchormesh.SegmentID, generation anchormesh.Generation, to reply) {
	r := p.host.held[segment]
	if r == nil || r.machine.Descriptor().Generation != generation {
		fresh, _ := p.table.Segment(segment)
		to(0, nil, errRetry, fresh, "")
		return
	}
	leader := func() anchormesh.NodeID {
		if g := p.groups[segment]; g != nil {
			return g.status.Leader
		}
		return ""
	}
	if c.write() {
		p.writeHere(c, r, func(index uint64, resp []byte, err error) { to(index, resp, err, nil, leader()) })
		return
	}
	p.readHere(c, r, func(resp []byte, err error) { to(0, resp, err, nil, leader()) })
}

// keepAlive renews a lease at the leader, which proves that it leads first.
func (p *process) keepAlive(segment anchormesh.SegmentID, id int64, done func(ttl int64, err error)) {
	leader, ok := p.table.Leader(segment)
	if !ok {
		p.after(retryWait, func() { done(0, errRetry) })
		return
	}
	n := p.mesh.find(leader)
	p.mesh.net.Stream(p.idx, n.idx, func() {
		q := n.proc
		if q == nil {
			return
		}
		q.do(func() {
			q.renewHere(segment, id, func(ttl int64, err error) {
				p.mesh.net.Stream(n.idx, p.idx, func() { p.do(func() { done(ttl, err) }) })
			})
		})
	})
}

func (p *process) renewHere(segment anchormesh.SegmentID, id int64, done func(ttl int64, err error)) {
	p.readIndex(segment, func(err error) {
		g := p.groups[segment]
		if err != nil || g == nil || !g.leads() {
			done(0, errRetry)
			return
		}
		p.lessor.renew(segment, id, done)
	})
}
