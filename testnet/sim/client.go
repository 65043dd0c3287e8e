package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/anchormesh/anchormesh/testnet/check"
)

// client does one operation after the other, each through a node of its choice.
type client struct {
	m      *mesh
	idx    int
	rng    *rand.Rand
	seq    int
	rev    map[string]int64 // newest revision seen, by line
	leases []held           // granted to this client
	busy   bool
}

// held is a lease that a client keeps.
type held struct {
	id, ttl int64
	until   time.Duration // when the client stops renewing it
}

// eternalTTL is the TTL of leases that are ended by a revoke only.
const eternalTTL = 1 << 30

// eternal reports whether a lease was granted to be revoked: its ID is odd.
func eternal(id int64) bool { return id%2 == 1 }

func newClient(m *mesh, idx int) *client {
	return &client{m: m, idx: idx, rng: m.k.Stream(fmt.Sprintf("client %d", idx)), rev: make(map[string]int64)}
}

func (c *client) begin() { c.m.k.After(c.m.cfg.Load.Start, c.start) }

func (c *client) start() { c.m.k.After(c.pause(), c.act) }

func (c *client) pause() time.Duration {
	return time.Duration(c.rng.ExpFloat64() * float64(c.m.cfg.Load.Think))
}

// act does one operation, and the next when it is over.
func (c *client) act() {
	if c.m.healed {
		return
	}
	running := c.m.running()
	if len(running) == 0 {
		c.start()
		return
	}
	via := pick(c.rng, running...)
	if len(c.leases) > 0 && c.rng.IntN(3) == 0 {
		c.keepAlive(via)
		return
	}
	c.send(via, c.draw(), func(bool) { c.start() })
}

// draw picks what to do.
func (c *client) draw() check.Op {
	s := pick(c.rng, c.m.segments...)
	letter := s.letter()
	key := func() string { return fmt.Sprintf("%s/%02d", letter, c.rng.IntN(c.m.cfg.Load.Keys)) }
	op := check.Op{Client: c.idx, Line: lineOf(s.id)}
	l := c.m.cfg.Load
	n := c.rng.IntN(l.Put + l.Delete + l.Get + l.Scan + l.Txn + l.Grant)
	under := func(weight int) bool {
		n -= weight
		return n < 0
	}
	switch {
	case under(l.Put):
		op.Request = c.put(key(), op.Line)
	case under(l.Delete):
		op.Request = check.Request{Kind: check.Delete, Key: key(), Prev: c.rng.IntN(2) == 0}
		if c.rng.IntN(8) == 0 {
			op.End = letter + "0"
		}
	case under(l.Get):
		op.Request = check.Request{Kind: check.Range, Key: key(), Serializable: c.rng.IntN(4) == 0}
	case under(l.Scan):
		op.Request = check.Request{Kind: check.Range, Key: letter, End: letter + "0", Limit: int64(c.rng.IntN(3)), Serializable: c.rng.IntN(4) == 0}
		if rev := c.rev[op.Line]; rev > 10 && c.rng.IntN(3) == 0 {
			op.Rev = rev - c.rng.Int64N(10)
		}
	case under(l.Txn):
		op.Request = c.txn(key, op.Line)
	default:
		c.seq++
		id := int64(c.idx+1)<<32 | int64(2*c.seq)
		op.Line = lineOf(c.m.segments[0].id)
		op.Request = check.Request{Kind: check.Grant, Lease: id}
		if c.rng.IntN(4) == 0 {
			op.Lease++ // to be revoked
		}
	}
	return op
}

// leasedKey lies below every boundary: keys with leases stay where the leases are.
const leasedKey = "a/!"

// splits reports whether segments are split in this run.
func (m *mesh) splits() bool { return m.cfg.Mesh.SplitsMax > 0 }

func (c *client) put(key, line string) check.Request {
	c.seq++
	r := check.Request{Kind: check.Put, Key: key, Value: fmt.Sprintf("%d.%d", c.idx, c.seq), Prev: c.rng.IntN(4) == 0}
	if len(c.leases) > 0 && line == lineOf(c.m.segments[0].id) && c.rng.IntN(2) == 0 {
		r.Lease = pick(c.rng, c.leases...).id
		if c.m.splits() {
			r.Key = leasedKey
		}
	}
	return r
}

// txn is a compare-and-swap, or several writes and a read at once.
func (c *client) txn(key func() string, line string) check.Request {
	k := key()
	if c.rng.IntN(2) == 0 {
		return check.Request{Kind: check.Txn,
			If:   []check.Compare{{Key: k, Target: pick(c.rng, "mod", "version", "create"), Result: pick(c.rng, "=", "!=", "<", ">"), Int: c.rng.Int64N(3)}},
			Then: []check.Request{c.put(k, line)},
			Else: []check.Request{{Kind: check.Range, Key: k}},
		}
	}
	other := key()
	out := check.Request{Kind: check.Txn, Then: []check.Request{c.put(k, line)}}
	if !c.m.splits() || c.rng.IntN(4) == 0 { // all keys of the scope are often in several segments
		out.Then = append(out.Then, check.Request{Kind: check.Range, Key: k[:1], End: k[:1] + "0"})
	}
	if other != k {
		out.Then = append(out.Then, check.Request{Kind: check.Delete, Key: other})
	}
	return out
}

// send runs an operation and records it.
func (c *client) send(via *process, op check.Op, done func(ok bool)) {
	op.Call = int64(c.m.k.Now())
	call := &call{m: c.m, op: &op.Request, line: op.Line, ttl: 1 + c.rng.Int64N(int64(c.m.cfg.Load.TTLMax))}
	if op.Kind == check.Grant && eternal(op.Lease) {
		call.ttl = eternalTTL
	}
	call.done = func(res *check.Result, unknown bool) {
		op.Return = int64(c.m.k.Now())
		c.m.k.Note("answer", via.idx, uint64(c.idx), uint64(c.m.stats.Acked), hashOf(res), 0)
		switch {
		case res != nil:
			op.Result = res
			c.rev[op.Line] = max(c.rev[op.Line], res.Rev)
			c.granted(&op, call.ttl)
		case unknown && op.Kind != check.Range:
			c.m.stats.Unknown++
			op.Return = 0
			c.m.unknown[len(c.m.history.Ops)] = string(call.command())
		default:
			c.m.stats.Dropped++
			done(false)
			return
		}
		c.m.history.Ops = append(c.m.history.Ops, op)
		done(res != nil)
	}
	call.begin(via)
}

func hashOf(res *check.Result) uint64 {
	if res == nil {
		return 0
	}
	return uint64(res.Rev)<<8 | uint64(res.Count)
}

// granted remembers a lease, or revokes it at once if it was made for that.
func (c *client) granted(op *check.Op, ttl int64) {
	if op.Kind != check.Grant {
		return
	}
	c.m.history.Leases = append(c.m.history.Leases, check.Lease{What: check.Grant, ID: op.Lease, TTL: ttl, Sent: op.Call, At: op.Return})
	if eternal(op.Lease) {
		revoke := check.Op{Client: c.idx, Line: op.Line, Request: check.Request{Kind: check.Revoke, Lease: op.Lease}}
		key := check.Op{Client: c.idx, Line: op.Line, Request: c.put(leasedKey, "")}
		key.Request.Lease = op.Lease
		c.m.k.After(c.pause(), func() {
			if running := c.m.running(); len(running) > 0 && !c.m.healed {
				c.send(pick(c.rng, running...), key, func(bool) {})
				c.send(pick(c.rng, running...), revoke, func(bool) {})
			}
		})
		return
	}
	keep := time.Duration(c.rng.Int64N(4*ttl*int64(time.Second) + 1))
	c.leases = append(c.leases, held{op.Lease, ttl, c.m.k.Now() + keep})
}

// keepAlive renews a lease, or forgets it.
func (c *client) keepAlive(via *process) {
	i := c.rng.IntN(len(c.leases))
	l := c.leases[i]
	if c.m.k.Now() > l.until {
		c.leases = append(c.leases[:i], c.leases[i+1:]...)
		c.start()
		return
	}
	sent := int64(c.m.k.Now())
	over := false
	c.m.k.After(c.m.cfg.Load.Timeout, func() {
		if !over {
			over = true
			c.start()
		}
	})
	via.keepAlive(c.m.segments[0].id, l.id, func(ttl int64, err error) {
		if over {
			return
		}
		over = true
		if err == nil && ttl > 0 {
			c.m.stats.Renewed++
			c.m.history.Leases = append(c.m.history.Leases, check.Lease{What: check.Renew, ID: l.id, TTL: ttl, Sent: sent, At: int64(c.m.k.Now())})
		}
		c.start()
	})
}

// encode turns a request into etcd's.
func encode(r *check.Request, ttl int64) protoMessage {
	switch r.Kind {
	case check.Put:
		return &pb.PutRequest{Key: []byte(r.Key), Value: []byte(r.Value), Lease: r.Lease, PrevKv: r.Prev}
	case check.Delete:
		return &pb.DeleteRangeRequest{Key: []byte(r.Key), RangeEnd: []byte(r.End), PrevKv: r.Prev}
	case check.Range:
		return &pb.RangeRequest{Key: []byte(r.Key), RangeEnd: []byte(r.End), Limit: r.Limit, Revision: r.Rev, Serializable: r.Serializable}
	case check.Grant:
		return &pb.LeaseGrantRequest{ID: r.Lease, TTL: ttl}
	case check.Revoke:
		return &pb.LeaseRevokeRequest{ID: r.Lease}
	}
	out := &pb.TxnRequest{}
	for i := range r.If {
		out.Compare = append(out.Compare, encodeCompare(&r.If[i]))
	}
	for i := range r.Then {
		out.Success = append(out.Success, encodeOp(&r.Then[i]))
	}
	for i := range r.Else {
		out.Failure = append(out.Failure, encodeOp(&r.Else[i]))
	}
	return out
}
