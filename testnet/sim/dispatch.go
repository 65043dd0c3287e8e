package sim

import (
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// This file and several.go are package node/dispatch with its waits turned into
// events: where a request goes, and above all what may be tried again.

var (
	// errRetry marks what took effect nowhere.
	errRetry = errors.New("sim: took effect nowhere")
	// errSpans refuses writes to keys that no single segment holds.
	errSpans = errors.New("sim: the request names keys of several segments")
)

const retryWait = 20 * time.Millisecond

// request is what goes to a segment: a client's, or a part of it.
type request struct {
	op           keyspace.Op // of a write; 0: a range
	raw          []byte
	serializable bool
	at           anchormesh.Revision // to read at, or to compact behind; 0: not known yet
}

// command is what the request puts into the log.
func (r *request) command() []byte {
	command := keyspace.AppendCommand(nil, r.op, r.raw)
	if r.op == keyspace.OpCompact && r.at != 0 {
		return stamp(r.at, command)
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

// call is a client's request on its way.
type call struct {
	m    *mesh
	op   *check.Request
	line string
	ttl  int64
	request
	keys anchormesh.KeyRange
	done func(res *check.Result, unknown bool) // neither: it certainly had no effect

	try  int
	out  bool // in a log's or another node's hands: the outcome is unknown
	over bool
}

func (c *call) write() bool { return c.request.op != 0 }

// begin sends the call through a node. Whatever happens, it ends at its deadline.
func (c *call) begin(via *process) {
	c.request = request{op: ops[c.op.Kind], raw: c.m.tagged(marshal(encode(c.op, c.ttl))), serializable: c.op.Serializable}
	c.keys = keysOf(c.op)
	c.m.k.After(c.m.timeout(), func() {
		c.end(nil, c.out || via.proc != via || via.paused)
	})
	c.m.k.After(c.m.net.Latency(), func() {
		via.do(func() { via.attempt(c) })
	})
}

// keysOf is the range of keys that a request names; of leases it is none.
func keysOf(r *check.Request) anchormesh.KeyRange {
	switch r.Kind {
	case check.Grant, check.Revoke:
		return anchormesh.KeyRange{}
	case check.Txn:
		var all []string
		for _, c := range r.If {
			all = append(all, c.Key, c.Key+"\x00")
		}
		for _, list := range [][]check.Request{r.Then, r.Else} {
			for i := range list {
				k := keysOf(&list[i])
				all = append(all, string(k.Start), string(k.End))
			}
		}
		low, high := all[0], all[0]
		for _, k := range all {
			low, high = min(low, k), max(high, k)
		}
		return anchormesh.KeyRange{Start: []byte(low), End: []byte(high)}
	}
	return anchormesh.RequestRange([]byte(r.Key), []byte(r.End))
}

func (c *call) end(res *check.Result, unknown bool) {
	if c.over {
		return
	}
	if running := c.m.running(); unknown && c.write() && c.m.cfg.Plant == PlantRetryUnknown && len(running) > 0 {
		c.try++
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
	case errors.Is(err, keyspace.ErrCompacted), errors.Is(err, keyspace.ErrFutureRev), errors.Is(err, consensus.ErrOverloaded),
		errors.Is(err, errSpans):
		c.end(nil, false)
	default:
		c.m.fail(err)
	}
}

func (p *process) again(c *call) {
	c.try++
	p.after(retryWait, func() { p.attempt(c) })
}

// translate sorts the engine's and the machine's errors as package dispatch does.
func translate(err error) error {
	for _, nowhere := range []error{consensus.ErrNotLeader, consensus.ErrDropped, consensus.ErrNoGroup, machine.ErrGeneration,
		keyspace.ErrWrongSegment, keyspace.ErrStampOrder, keyspace.ErrOvertaken} {
		if errors.Is(err, nowhere) {
			return errRetry
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
	return errRetry
}

// attempt is one try of a call, on the node that the client spoke to.
func (p *process) attempt(c *call) {
	if c.over {
		return
	}
	desc, ok := p.table.Lookup(c.keys.Start)
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
	ofLeases := c.op.Kind == check.Grant || c.op.Kind == check.Revoke
	if !ofLeases && !desc.Range.Covers(c.keys) {
		p.several(c, mine)
		return
	}
	p.toSegment(desc, &c.request, c.try, &c.out, func(_ uint64, resp []byte, err error) { mine(resp, err) })
}

// toSegment takes a request to a segment, here or elsewhere. out is set once a write's
// outcome may be unknown.
func (p *process) toSegment(desc *anchormesh.Descriptor, req *request, try int, out *bool, done answer) {
	r, g := p.host.held[desc.Segment], p.groups[desc.Segment]
	switch {
	case r == nil:
		p.forward(desc, req, p.anchor(desc, try), out, done)
	case r.machine.Descriptor().Generation != desc.Generation:
		done(0, nil, errRetry)
	case req.op == 0:
		p.readHere(r, desc, req, done)
	case g == nil:
		done(0, nil, errRetry)
	case g.leads():
		*out = true
		p.writeHere(r, desc, req, done)
	case g.status.Leader == "":
		done(0, nil, errRetry)
	default:
		p.forward(desc, req, g.status.Leader, out, done)
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

// writeHere proposes a request's command, with a stamp if the scope was split.
func (p *process) writeHere(r *replicaHere, d *anchormesh.Descriptor, req *request, done answer) {
	end := func(res consensus.Result) {
		if res.Err == nil {
			p.mesh.acknowledged(d.Segment, res.Index)
		}
		done(res.Index, res.Response, translate(res.Err))
	}
	if r.machine.State().Line != 0 && req.stamped() && p.mesh.cfg.Plant != PlantDense {
		p.lines.propose(d, req.command(), end)
		return
	}
	p.propose(d.Segment, d.Generation, req.command(), end)
}

// readHere reads from the replica here.
func (p *process) readHere(r *replicaHere, d *anchormesh.Descriptor, req *request, done answer) {
	read := func(at anchormesh.Revision, err error) {
		g := p.groups[d.Segment]
		if err != nil || g == nil || p.host.held[d.Segment] != r || r.machine.Descriptor().Generation != d.Generation {
			done(0, nil, errRetry)
			return
		}
		p.mesh.stats.Reads++
		resp, err := r.read(req, at, g.status.Term)
		done(0, resp, translate(err))
	}
	switch {
	case req.serializable:
		p.waitFloor(r, d.Segment, func() { read(0, nil) })
	case p.mesh.cfg.Plant == PlantStaleRead:
		p.after(0, func() { read(0, nil) })
	case r.machine.State().Line == 0 && (req.at == 0 || p.mesh.cfg.Plant == PlantPartOfNow):
		p.readIndex(d.Segment, func(_ uint64, err error) { read(0, err) })
	case req.at != 0:
		p.barrier(d, req.at, func(err error) { read(req.at, err) })
	default:
		p.lines.ask(d.Line, func(at anchormesh.Revision, err error) {
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
func (p *process) barrier(d *anchormesh.Descriptor, at anchormesh.Revision, done func(error)) {
	if p.mesh.cfg.Plant == PlantNoBarrier {
		p.readIndex(d.Segment, func(_ uint64, err error) { done(err) })
		return
	}
	p.mesh.stats.Barriers++
	p.lines.barrier(d, at, func(index uint64, err error) {
		g := p.groups[d.Segment]
		switch {
		case err != nil:
			done(lineFailed(err))
		case g == nil:
			done(errRetry)
		default:
			g.whenApplied(index, done)
		}
	})
}

// read answers a range at a revision of the scope's line, or (0) at the newest one
// here.
func (r *replicaHere) read(req *request, at anchormesh.Revision, term uint64) (resp []byte, err error) {
	var q codec.RangeRequest
	if err := codec.ParseRange(req.raw, &q); err != nil {
		return nil, err
	}
	var chunks codec.Chunks
	if at == 0 {
		chunks, err = r.machine.Space().Range(background, &q, term)
	} else {
		chunks, err = r.machine.Space().RangeAt(background, &q, term, at)
	}
	return chunks.Bytes(), err
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

// forward sends a request to another node.
func (p *process) forward(d *anchormesh.Descriptor, req *request, to anchormesh.NodeID, out *bool, done answer) {
	n := p.mesh.find(to)
	if n == nil || n.idx == p.idx || n.proc == nil || !p.mesh.net.Open(p.idx, n.idx) { // cannot be reached: not sent
		if leader, ok := p.table.Leader(d.Segment); ok && leader == to {
			p.table.SetLeader(d.Segment, "")
		}
		done(0, nil, errRetry)
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
		p.after(time.Second, func() { once(0, nil, errRetry) })
	}
	segment, generation := d.Segment, d.Generation
	p.mesh.net.Stream(p.idx, n.idx, func() {
		q := n.proc
		if q == nil {
			return
		}
		q.do(func() {
			q.serve(segment, generation, req, func(index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID) {
				p.mesh.net.Stream(n.idx, p.idx, func() {
					p.do(func() {
						p.forwarded(segment, index, err, fresh, leader)
						once(index, resp, err)
					})
				})
			})
		})
	})
}

// forwarded learns from another node's answer.
func (p *process) forwarded(segment anchormesh.SegmentID, index uint64, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID) {
	switch {
	case fresh != nil:
		p.table.Learn(fresh.Clone())
	case errors.Is(err, errRetry):
		p.table.SetLeader(segment, leader)
	}
	if r := p.host.held[segment]; r != nil && err == nil {
		r.floor = max(r.floor, index)
	}
}

type reply func(index uint64, resp []byte, err error, fresh *anchormesh.Descriptor, leader anchormesh.NodeID)

// serve answers a forwarded request.
func (p *process) serve(segment anchormesh.SegmentID, generation anchormesh.Generation, req *request, to reply) {
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
	end := func(index uint64, resp []byte, err error) { to(index, resp, err, nil, leader()) }
	if req.op != 0 {
		p.writeHere(r, r.machine.Descriptor(), req, end)
		return
	}
	p.readHere(r, r.machine.Descriptor(), req, end)
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
	p.readIndex(segment, func(_ uint64, err error) {
		g := p.groups[segment]
		if err != nil || g == nil || !g.leads() {
			done(0, errRetry)
			return
		}
		p.lessor.renew(segment, id, done)
	})
}
