package clients

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/dispatch"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/witness"
)

// Client does one operation after the other, each through a node of its choice.
type Client struct {
	m      *node.Mesh
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

func NewClient(m *node.Mesh, idx int) *Client {
	return &Client{m: m, idx: idx, rng: m.K.Stream(fmt.Sprintf("client %d", idx)), rev: make(map[string]int64)}
}

func (c *Client) Begin() { c.m.K.After(c.m.Cfg.Load.Start, c.start) }

func (c *Client) start() { c.m.K.After(c.pause(), c.act) }

func (c *Client) pause() time.Duration {
	return time.Duration(c.rng.ExpFloat64() * float64(c.m.Cfg.Load.Think))
}

// act does one operation, and the next when it is over.
func (c *Client) act() {
	if c.m.Healed {
		return
	}
	running := c.m.Running()
	if len(running) == 0 {
		c.start()
		return
	}
	via := plan.Pick(c.rng, running...)
	if len(c.leases) > 0 && c.rng.IntN(3) == 0 {
		c.keepAlive(via)
		return
	}
	c.Send(via, c.draw(), func(bool) { c.start() })
}

// draw picks what to do.
func (c *Client) draw() check.Op {
	s := plan.Pick(c.rng, c.m.Segments...)
	letter := s.Letter()
	key := func() string { return fmt.Sprintf("%s/%02d", letter, c.rng.IntN(c.m.Cfg.Load.Keys)) }
	op := check.Op{Client: c.idx, Line: node.LineOf(s.ID)}
	l := c.m.Cfg.Load
	n := c.rng.IntN(l.Put + l.Delete + l.Get + l.Scan + l.Txn + l.Grant)
	under := func(weight int) bool {
		n -= weight
		return n < 0
	}
	switch {
	case under(l.Put):
		op.Request = c.Put(key(), op.Line)
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
		op.Line = node.LineOf(c.m.Segments[0].ID)
		op.Request = check.Request{Kind: check.Grant, Lease: id}
		if c.rng.IntN(4) == 0 {
			op.Lease++ // to be revoked
		}
	}
	return op
}

// leasedKey lies below every boundary: keys with leases stay where the leases are.
const leasedKey = "a/!"

func (c *Client) Put(key, line string) check.Request {
	c.seq++
	r := check.Request{Kind: check.Put, Key: key, Value: fmt.Sprintf("%d.%d", c.idx, c.seq), Prev: c.rng.IntN(4) == 0}
	if len(c.leases) > 0 && line == node.LineOf(c.m.Segments[0].ID) && c.rng.IntN(2) == 0 {
		r.Lease = plan.Pick(c.rng, c.leases...).id
		if c.m.Splits() {
			r.Key = leasedKey
		}
	}
	return r
}

// txn is a compare-and-swap, or several writes and a read at once.
func (c *Client) txn(key func() string, line string) check.Request {
	if c.m.Splits() && c.rng.IntN(3) > 0 {
		return c.spanning(key, line)
	}
	k := key()
	if c.rng.IntN(2) == 0 {
		return check.Request{Kind: check.Txn,
			If:   []check.Compare{{Key: k, Target: plan.Pick(c.rng, "mod", "version", "create"), Result: plan.Pick(c.rng, "=", "!=", "<", ">"), Int: c.rng.Int64N(3)}},
			Then: []check.Request{c.Put(k, line)},
			Else: []check.Request{{Kind: check.Range, Key: k}},
		}
	}
	other := key()
	out := check.Request{Kind: check.Txn, Then: []check.Request{c.Put(k, line)}}
	if !c.m.Splits() || c.rng.IntN(4) == 0 { // all keys of the scope are often in several segments
		out.Then = append(out.Then, check.Request{Kind: check.Range, Key: k[:1], End: k[:1] + "0"})
	}
	if other != k {
		out.Then = append(out.Then, check.Request{Kind: check.Delete, Key: other})
	}
	return out
}

// spanning is a transaction over keys that are often in several segments: under compares
// it writes some of them and reads or deletes another.
func (c *Client) spanning(key func() string, line string) check.Request {
	var keys []string
	for range 2 + c.rng.IntN(2) {
		if k := key(); !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	out := check.Request{Kind: check.Txn}
	if k := keys[0]; c.rng.IntN(2) == 0 {
		out.If = []check.Compare{{Key: k, Target: plan.Pick(c.rng, "mod", "version", "create"), Result: plan.Pick(c.rng, "=", "!=", "<", ">"), Int: c.rng.Int64N(3)}}
	}
	for i, k := range keys {
		switch {
		case i == 0 || c.rng.IntN(3) > 0:
			put := c.Put(k, line)
			put.Key, put.Lease = k, 0
			out.Then = append(out.Then, put)
		case c.rng.IntN(2) == 0:
			out.Then = append(out.Then, check.Request{Kind: check.Delete, Key: k})
		default:
			out.Then = append(out.Then, check.Request{Kind: check.Range, Key: k})
		}
		out.Else = append(out.Else, check.Request{Kind: check.Range, Key: k})
	}
	return out
}

// Send runs an operation and records it.
func (c *Client) Send(via *node.Process, op check.Op, done func(ok bool)) {
	op.Call = int64(c.m.K.Now())
	call := &dispatch.Call{M: c.m, Op: &op.Request, Line: op.Line, Ttl: 1 + c.rng.Int64N(int64(c.m.Cfg.Load.TTLMax))}
	if op.Kind == check.Grant && witness.Eternal(op.Lease) {
		call.Ttl = witness.EternalTTL
	}
	call.Done = func(res *check.Result, unknown bool) {
		op.Return = int64(c.m.K.Now())
		c.m.K.Note("answer", via.Index, uint64(c.idx), uint64(c.m.Stats.Acked), hashOf(res), 0)
		switch {
		case res != nil:
			op.Result = res
			c.rev[op.Line] = max(c.rev[op.Line], res.Rev)
			c.granted(&op, call.Ttl)
		case unknown && op.Kind != check.Range:
			c.m.Stats.Unknown++
			op.Return = 0
		default:
			c.m.Stats.Dropped++
			done(false)
			return
		}
		if op.Kind != check.Range {
			c.m.Commands[len(c.m.History.Ops)] = string(call.Command())
		}
		c.m.History.Ops = append(c.m.History.Ops, op)
		done(res != nil)
	}
	call.Begin(via)
}

func hashOf(res *check.Result) uint64 {
	if res == nil {
		return 0
	}
	return uint64(res.Rev)<<8 | uint64(res.Count)
}

// granted remembers a lease, or revokes it at once if it was made for that.
func (c *Client) granted(op *check.Op, ttl int64) {
	if op.Kind != check.Grant {
		return
	}
	c.m.History.Leases = append(c.m.History.Leases, check.Lease{What: check.Grant, ID: op.Lease, TTL: ttl, Sent: op.Call, At: op.Return})
	if witness.Eternal(op.Lease) {
		revoke := check.Op{Client: c.idx, Line: op.Line, Request: check.Request{Kind: check.Revoke, Lease: op.Lease}}
		key := check.Op{Client: c.idx, Line: op.Line, Request: c.Put(leasedKey, "")}
		key.Request.Lease = op.Lease
		c.m.K.After(c.pause(), func() {
			if running := c.m.Running(); len(running) > 0 && !c.m.Healed {
				c.Send(plan.Pick(c.rng, running...), key, func(bool) {})
				c.Send(plan.Pick(c.rng, running...), revoke, func(bool) {})
			}
		})
		return
	}
	keep := time.Duration(c.rng.Int64N(4*ttl*int64(time.Second) + 1))
	c.leases = append(c.leases, held{op.Lease, ttl, c.m.K.Now() + keep})
}

// keepAlive renews a lease, or forgets it.
func (c *Client) keepAlive(via *node.Process) {
	i := c.rng.IntN(len(c.leases))
	l := c.leases[i]
	if c.m.K.Now() > l.until {
		c.leases = append(c.leases[:i], c.leases[i+1:]...)
		c.start()
		return
	}
	sent := int64(c.m.K.Now())
	over := false
	c.m.K.After(c.m.Cfg.Load.Timeout, func() {
		if !over {
			over = true
			c.start()
		}
	})
	dispatch.DispatcherAt(via).KeepAlive(c.m.Segments[0].ID, l.id, func(ttl int64, err error) {
		if over {
			return
		}
		over = true
		if err == nil && ttl > 0 {
			c.m.Stats.Renewed++
			c.m.History.Leases = append(c.m.History.Leases, check.Lease{What: check.Renew, ID: l.id, TTL: ttl, Sent: sent, At: int64(c.m.K.Now())})
		}
		c.start()
	})
}
