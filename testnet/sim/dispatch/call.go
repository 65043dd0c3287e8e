package dispatch

import (
	"errors"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/rules"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/txns"
	"github.com/anchormesh/anchormesh/testnet/sim/wire"
)

// Call is a client's request on its way.
type Call struct {
	M    *node.Mesh
	Op   *check.Request
	Line string
	Ttl  int64
	request
	keys anchormesh.KeyRange
	Done func(res *check.Result, unknown bool) // neither: it certainly had no effect

	try  int
	out  bool // in a log's or another node's hands: the outcome is unknown
	over bool
	// giveUp ends an attempt at a transaction over several segments; nil: there is none.
	giveUp func()
}

func (c *Call) write() bool { return c.request.op != 0 }

// Begin sends the call through a node. Whatever happens, it ends at its deadline.
func (c *Call) Begin(via *node.Process) {
	c.request = request{op: wire.Ops[c.Op.Kind], raw: wire.Tagged(c.M.Tag(), wire.Marshal(wire.Encode(c.Op, c.Ttl))), serializable: c.Op.Serializable}
	c.keys = wire.KeysOf(c.Op)
	c.M.K.After(c.M.Timeout(), func() {
		if c.giveUp != nil {
			via.Do(c.giveUp)
		}
		c.end(nil, c.out || via.Proc != via || via.Paused)
	})
	c.M.K.After(c.M.Net.Latency(), func() {
		via.Do(func() { DispatcherAt(via).attempt(c) })
	})
}

func (c *Call) end(res *check.Result, unknown bool) {
	if c.over {
		return
	}
	if running := c.M.Running(); unknown && c.write() && c.M.Cfg.Plant == plan.PlantRetryUnknown && len(running) > 0 {
		c.try++
		c.M.K.After(time.Millisecond, func() { p := plan.Pick(c.M.Rng, running...); p.Do(func() { DispatcherAt(p).attempt(c) }) })
		return
	}
	c.over = true
	c.Done(res, unknown)
}

// answered ends the call with what was heard, or tries again.
func (c *Call) answered(p *dispatcher, resp []byte, err error) {
	var refusal *rules.Refusal
	var refused *machine.RefusedError
	switch {
	case c.over:
	case err == nil:
		res, err := wire.Decode(c.Op.Kind, resp)
		c.M.Fail(err)
		c.end(res, false)
	case errors.Is(err, node.ErrRetry):
		c.out = false
		p.again(c)
	case errors.Is(err, keyspace.ErrLeaseNotFound):
		c.end(&check.Result{NoLease: true}, false)
	case errors.Is(err, consensus.ErrUnknown) && !c.write():
		p.again(c)
	case errors.Is(err, consensus.ErrUnknown):
		c.end(nil, true)
	case errors.Is(err, keyspace.ErrCompacted), errors.Is(err, keyspace.ErrFutureRev), errors.Is(err, consensus.ErrOverloaded),
		errors.Is(err, txns.ErrGivenUp), errors.Is(err, txns.ErrLight), errors.As(err, &refusal), errors.As(err, &refused), errors.Is(err, approval.ErrOverloaded):
		c.end(nil, false)
	default:
		c.M.Fail(err)
	}
}
