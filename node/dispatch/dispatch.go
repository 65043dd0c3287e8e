package dispatch

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/stamps"
)

// retryWait is the pause before another try when no change of the routes wakes
// the request first.
const retryWait = 20 * time.Millisecond

var (
	// errAnswerTooLarge is an answer that does not fit into a call.
	errAnswerTooLarge = errors.New("the answer is too large for a call")
)

// errRetry marks errors of a try that took effect nowhere.
var errRetry = errors.New("took effect nowhere, to be tried again")

// Caller sends requests to other nodes; mesh.Mesh is one.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	// Connected reports whether a connection to the node is open now.
	Connected(node anchormesh.NodeID) bool
	// Connect waits for one until ctx ends.
	Connect(ctx context.Context, node anchormesh.NodeID) error
}

// Local runs leases' reads, which need the leader's clock.
type Local interface {
	// LeaseRead answers LeaseTimeToLive and LeaseLeases on the leader.
	LeaseRead(ctx context.Context, r *host.Replica, term uint64, method etcdapi.Method, raw []byte) ([]byte, error)
	// EndLease ends a lease whose keys may lie in several segments, on the leader of
	// the leases' home.
	EndLease(ctx context.Context, r *host.Replica, id int64) error
	// OpenLease makes a segment take puts that name a lease.
	OpenLease(ctx context.Context, id int64, in anchormesh.KeyRange) error
}

// Dispatcher implements etcdapi.Requests.
type Dispatcher struct {
	self   anchormesh.NodeID
	host   *host.Host
	engine *consensus.Engine
	table  *route.Table
	caller Caller
	leases Local
	peers  Peers
	lines  *stamps.Lines
	txns   Transactions
	writes Writes
	shown  shown
}

// Writes put what clients write, and what takes no stamp, into the log of a segment that
// is led here: behind the approvals that the scope wants. approvals.Approvals is one.
type Writes interface {
	Propose(segment anchormesh.SegmentID, gen anchormesh.Generation, command []byte, done func(consensus.Result))
}

// Transactions are those that touch several segments; txns.Txns is one.
type Transactions interface {
	// Propose puts a write that takes a stamp into the log of a segment that is led here,
	// unless a transaction holds its keys: keyspace.ErrLocked.
	Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result))
	// Do answers a Txn or a DeleteRange whose keys lie in several segments.
	Do(ctx context.Context, call *etcdapi.Call) (codec.Chunks, error)
}

// Peers gives gRPC connections to other nodes, for answers too large for a call.
type Peers interface {
	Conn(node anchormesh.NodeID) (grpc.ClientConnInterface, error)
}

// New returns a dispatcher for the node self.
func New(self anchormesh.NodeID, h *host.Host, e *consensus.Engine, t *route.Table, c Caller, l Local, p Peers, lines *stamps.Lines, x Transactions, w Writes) *Dispatcher {
	return &Dispatcher{self: self, host: h, engine: e, table: t, caller: c, leases: l, peers: p, lines: lines, txns: x, writes: w}
}

// Do implements etcdapi.Requests.
func (d *Dispatcher) Do(ctx context.Context, call *etcdapi.Call) (codec.Chunks, error) {
	answer, err := d.repeat(ctx, call)
	for range openTries {
		if !isLeaseNotFound(err) || !d.openLeases(ctx, call) {
			break
		}
		answer, err = d.repeat(ctx, call)
	}
	if errors.Is(err, machine.ErrFrozen) || errors.Is(err, machine.ErrGeneration) {
		err = etcdapi.ErrTimeout // a change of structure is nothing that a client has to know of
	}
	return answer, err
}

// repeat tries a call until it took effect, or certainly cannot.
func (d *Dispatcher) repeat(ctx context.Context, call *etcdapi.Call) (codec.Chunks, error) {
	answer, err := d.try(ctx, call, 0)
	for try := 1; errors.Is(err, errRetry); try++ {
		changed := d.table.Changed() // before the try, so that no change is missed
		if answer, err = d.try(ctx, call, try); !errors.Is(err, errRetry) {
			break
		}
		timer := time.NewTimer(retryWait)
		select {
		case <-changed:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, gaveUp(ctx, err)
		}
		timer.Stop()
	}
	return answer, err
}

// gaveUp words the end of a request that never took effect: a client that went
// away gets its own error, one that waited in vain learns why.
func gaveUp(ctx context.Context, last error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	switch {
	case errors.Is(last, etcdapi.ErrNoLeader):
		return etcdapi.ErrTimeoutLeaderFail
	case errors.Is(last, approval.ErrUnanswered):
		return status.Error(codes.Unavailable, "etcdserver: "+approval.ErrUnanswered.Error())
	}
	return etcdapi.ErrTimeout
}

func (d *Dispatcher) try(ctx context.Context, call *etcdapi.Call, try int) (codec.Chunks, error) {
	desc, ok := d.table.Lookup(call.Keys.Start)
	if !ok {
		return nil, retry(etcdapi.ErrNoLeader)
	}
	// Leases are kept with the lowest key.
	stampedCompact := call.Method == etcdapi.MethodCompact && desc.Stamped
	if !ofLeases(call.Method) && !desc.Range.Covers(call.Keys) || stampedCompact {
		answer, err := d.several(ctx, call)
		if err == nil {
			d.shown.note(desc.Line, answer)
		}
		return answer, err
	}
	if call.Serializable && desc.Stamped && call.At == 0 {
		behind := *call
		behind.At = d.shown.of(desc.Line)
		call = &behind
	}
	answer, err := d.run(ctx, desc, call, try)
	if err == nil && desc.Stamped {
		d.shown.note(desc.Line, answer)
	}
	return answer, err
}

// run runs a call of one segment.
func (d *Dispatcher) run(ctx context.Context, desc *anchormesh.Descriptor, call *etcdapi.Call, try int) (codec.Chunks, error) {
	r, here := d.host.Get(desc.Segment)
	if !here {
		return d.forward(ctx, desc, call, d.anchor(ctx, desc, try))
	}
	if now := r.Machine.Descriptor(); now.Generation != desc.Generation {
		return nil, d.elsewhere(ctx, desc, now, call.Keys.Start, try)
	}
	if !call.Write && !leaderOnly(call.Method) && !d.leadersRead(r, desc, call) {
		return d.readLocal(ctx, r, desc, call)
	}
	status, ok := d.engine.Status(desc.Segment)
	switch {
	case !ok:
		return nil, retry(consensus.ErrNoGroup)
	case status.Leads():
		return d.runLocal(ctx, r, desc, status.Term, call)
	case status.Leader == "":
		d.engine.Seek(desc.Segment)
		return nil, retry(etcdapi.ErrNoLeader)
	}
	return d.forward(ctx, desc, call, status.Leader)
}

// leaderOnly reports whether a read needs the leader's memory.
func leaderOnly(m etcdapi.Method) bool {
	return m == etcdapi.MethodLeaseTimeToLive || m == etcdapi.MethodLeaseLeases
}

// ofLeases reports whether a method's Keys do not say where it goes.
func ofLeases(m etcdapi.Method) bool {
	switch m {
	case etcdapi.MethodLeaseGrant, etcdapi.MethodLeaseRevoke, etcdapi.MethodLeaseTimeToLive, etcdapi.MethodLeaseLeases:
		return true
	}
	return false
}

// dialWait bounds the wait for a connection to a leader that was only heard of;
// it may be gone, and the others may know of a newer one.
const dialWait = 500 * time.Millisecond

// anchor picks who to ask when the segment is not here: the leader if it is known
// and can be reached, else every voter in turn. A leader that did not help is
// forgotten by then.
func (d *Dispatcher) anchor(ctx context.Context, desc *anchormesh.Descriptor, try int) anchormesh.NodeID {
	if leader, ok := d.table.Leader(desc.Segment); ok {
		if d.reach(ctx, leader) {
			return leader
		}
		d.forgetLeader(desc.Segment, leader)
	}
	nodes := route.Askable(desc, d.caller.Connected)
	if len(nodes) == 0 {
		return ""
	}
	return nodes[try%len(nodes)]
}

func (d *Dispatcher) reach(ctx context.Context, node anchormesh.NodeID) bool {
	if d.caller.Connected(node) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, dialWait)
	defer cancel()
	return d.caller.Connect(ctx, node) == nil
}

// retry marks an error of a try that took effect nowhere.
func retry(err error) error { return errors.Join(errRetry, err) }

// translate sorts the engine's and machine's errors: what took effect nowhere
// is to be tried again.
func translate(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrDropped), errors.Is(err, consensus.ErrNoGroup),
		errors.Is(err, machine.ErrGeneration), errors.Is(err, keyspace.ErrWrongSegment),
		errors.Is(err, keyspace.ErrStampOrder), errors.Is(err, keyspace.ErrOvertaken), errors.Is(err, keyspace.ErrLocked),
		errors.Is(err, machine.ErrFrozen), errors.Is(err, machine.ErrBetween), errors.Is(err, mvcc.ErrGone),
		errors.Is(err, machine.ErrUnapproved), errors.Is(err, approval.ErrStale), errors.Is(err, approval.ErrUnanswered):
		return retry(err)
	case errors.Is(err, consensus.ErrTooFewAnchors): // at once: it says how to go on, and may last
		return status.Error(codes.Unavailable, "etcdserver: "+consensus.ErrTooFewAnchors.Error())
	case errors.Is(err, consensus.ErrOverloaded):
		return etcdapi.ErrTooManyRequests
	case errors.Is(err, consensus.ErrUnknown):
		return etcdapi.ErrTimeoutLeaderFail
	case errors.Is(err, consensus.ErrStopped):
		return etcdapi.ErrStopped
	}
	return err
}

var _ Caller = (*mesh.Mesh)(nil)
