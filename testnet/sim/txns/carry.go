package txns

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

type kind uint8

// What a request asks for.
const (
	askLocks kind = iota + 1
	askRelease
	askPrepare
	askCommit
	askAbort
	askDecide
	askForget
)

// request is a question to the leader of the segment that holds a key.
type request struct {
	kind    kind
	txn     commit.TxnID
	wanted  *wanted
	prepare *commit.Prepare
	command []byte
}

// wanted is a request for locks, got its answer.
type wanted struct {
	txn   commit.TxnID
	locks []commit.Lock
	reads []commit.Read
}

type got struct {
	grant  commit.Grant
	values []commit.Got
}

// answer ends a request: a *got, the bytes of a commit.Reply, or an error that is marked.
type answer func(result any, err error)

// command sends a request that becomes a command of the log.
func (r *run) command(key []byte, q *request, done func(*commit.Reply, error)) {
	r.send(key, q, func(result any, err error) {
		if err != nil {
			done(nil, err)
			return
		}
		reply, err := commit.DecodeReply(result.([]byte))
		r.Mesh.Fail(err)
		done(reply, err)
	})
}

// send is Txns.send as long as the run goes on; locks and prepares have no purpose any
// more when the client was told.
func (r *run) send(key []byte, q *request, done answer) {
	r.Txns.send(key, q, func() bool { return r.over || r.answer == nil && (q.kind == askLocks || q.kind == askPrepare) }, done)
}

// release is not waited for: a lock that is not released ends by itself.
func (x *Txns) release(fx commit.ReleaseAt) {
	until := x.now() + commit.LockMax
	x.send(fx.Key, &request{kind: askRelease, txn: fx.Txn}, func() bool { return x.now() > until }, func(any, error) {})
}

// send takes a request to the leader of the segment that holds a key, until it took
// effect, may have taken effect, or is to be given up.
func (x *Txns) send(key []byte, q *request, stop func() bool, done answer) {
	x.once(key, q, func(result any, err error) {
		if nowhere(err) && !stop() {
			x.After(retryWait, func() { x.send(key, q, stop, done) })
			return
		}
		x.After(x.Moment(), func() { done(result, err) })
	})
}

func (x *Txns) once(key []byte, q *request, done answer) {
	d, ok := x.Table.Lookup(key)
	if !ok {
		done(nil, errNowhere)
		return
	}
	g := x.Groups[d.Segment]
	if g != nil && g.Leads() {
		x.serve(d.Segment, d.Generation, q, func(result any, err error, _ *anchormesh.Descriptor, _ anchormesh.NodeID) { done(result, err) })
		return
	}
	leader := anchormesh.NodeID("")
	if g != nil {
		leader = g.Status.Leader
	}
	if leader == "" {
		leader, _ = x.Table.Leader(d.Segment)
	}
	if voters := d.Voters(); (leader == "" || leader == x.ID) && len(voters) > 0 {
		leader = plan.Pick(x.Rng, voters...).Node
	}
	n := x.Mesh.Find(leader)
	if n == nil || n.Index == x.Index || n.Proc == nil || !x.Mesh.Net.Open(x.Index, n.Index) {
		if known, ok := x.Table.Leader(d.Segment); ok && known == leader {
			x.Table.Guess(d.Segment, "")
		}
		done(nil, errNowhere)
		return
	}
	segment, generation := d.Segment, d.Generation
	x.Call(leader, func(p *node.Process, reply func(func())) {
		At(p).serve(segment, generation, q, func(result any, err error, fresh *anchormesh.Descriptor, leads anchormesh.NodeID) {
			reply(func() {
				if fresh != nil {
					x.Table.Learn(fresh.Clone())
				} else if nowhere(err) {
					x.Table.Guess(segment, leads)
				}
				done(result, err)
			})
		})
	}, func() { done(nil, fmt.Errorf("%w: no answer", errLost)) })
}
