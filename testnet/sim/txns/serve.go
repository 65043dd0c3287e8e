package txns

import (
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/approvals"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
)

var (
	// errNowhere marks what certainly took effect nowhere and may be sent again.
	errNowhere = errors.New("sim: took effect nowhere, to be sent again")
	// errLost marks what may have taken effect.
	errLost = errors.New("sim: the outcome is unknown")
)

func nowhere(err error) bool { return errors.Is(err, errNowhere) }

// serve answers a request on a segment's leader.
func (x *Txns) serve(segment anchormesh.SegmentID, generation anchormesh.Generation, q *request, to func(any, error, *anchormesh.Descriptor, anchormesh.NodeID)) {
	r := x.Host.Held[segment]
	if r == nil || r.Machine.Descriptor().Generation != generation {
		fresh, _ := x.Table.Segment(segment)
		to(nil, errNowhere, fresh, "")
		return
	}
	x.act(r, r.Machine.Descriptor(), q, func(result any, err error) {
		leader := anchormesh.NodeID("")
		if g := x.Groups[segment]; g != nil {
			leader = g.Status.Leader
		}
		to(result, err, nil, leader)
	})
}

func (x *Txns) act(r *node.ReplicaHere, d *anchormesh.Descriptor, q *request, done answer) {
	g := x.gate(d.Segment)
	switch q.kind {
	case askLocks:
		x.acquire(r, d, q.wanted, done)
	case askRelease:
		g.release(x.now(), q.txn, func() {})
		done(nil, nil)
	case askPrepare:
		x.prepare(d, q.prepare, done)
	case askAbort, askCommit: // so that no prepare comes behind that
		g.release(x.now(), q.txn, func() { x.propose(d, q.command, done) })
	default:
		x.propose(d, q.command, done)
	}
}

// acquire locks and reads at the leader. Whether it still leads does not matter: a
// prepare whose locks were granted in another term is refused.
func (x *Txns) acquire(r *node.ReplicaHere, d *anchormesh.Descriptor, w *wanted, done answer) {
	for _, l := range w.locks {
		if !d.Range.Covers(l.Range) {
			done(nil, fmt.Errorf("%w: %w", commit.ErrLockLost, keyspace.ErrWrongSegment)) // cut or merged since it was divided
			return
		}
	}
	g := x.gate(d.Segment)
	x.lead(g, r, d, func(err error) {
		if err != nil {
			done(nil, err)
			return
		}
		var grant commit.Grant
		locked, at := false, false
		read := func() {
			if at = true; !locked {
				return
			}
			values, err := r.Machine.Space().ReadLocked(w.reads, 0)
			if err != nil {
				g.release(x.now(), w.txn, func() {})
			}
			done(&got{grant, values}, sorted(err))
		}
		if grant, err = g.acquire(x.now(), w, r.Machine.Space(), read); err != nil {
			done(nil, err)
			return
		}
		if locked = true; at {
			read()
		}
	})
}

// lead makes the gate's locks those of this leader's term, once: it has applied an entry
// of it, and so all that was prepared before.
func (x *Txns) lead(g *gate, r *node.ReplicaHere, d *anchormesh.Descriptor, done func(error)) {
	group := x.Groups[d.Segment]
	if group == nil || !group.Leads() {
		done(errNowhere)
		return
	}
	place := commit.Place{Term: group.Status.Term, Generation: d.Generation, Scope: string(d.Line)}
	if g.place == place {
		done(nil)
		return
	}
	x.ReadIndex(d.Segment, func(_ uint64, err error) {
		now := x.Groups[d.Segment]
		if err != nil || now == nil || !now.Leads() || now.Status.Term != place.Term || x.Host.Held[d.Segment] != r ||
			r.Machine.Descriptor().Generation != d.Generation || !g.move(place) {
			done(errNowhere)
			return
		}
		done(nil)
	})
}

// prepare puts a prepare into the log, stamped. A stamp that another has overtaken is
// replaced: the locks hold.
func (x *Txns) prepare(d *anchormesh.Descriptor, c *commit.Prepare, done answer) {
	g := x.gate(d.Segment)
	if err := g.propose(c); err != nil {
		done(nil, err)
		return
	}
	cmd, tries := command(keyspace.OpPrepare, c.Encode()), 0
	lines := approvals.At(x.Process)
	var ended func(consensus.Result)
	ended = func(res consensus.Result) {
		tries++
		if (errors.Is(res.Err, keyspace.ErrStampOrder) || errors.Is(res.Err, commit.ErrStampOrder)) && tries < restampMax {
			lines.Propose(d, cmd, ended)
			return
		}
		g.prepared(c)
		done(res.Response, sorted(res.Err))
	}
	lines.Propose(d, cmd, ended)
}

// propose puts a command into the log.
func (x *Txns) propose(d *anchormesh.Descriptor, cmd []byte, done answer) {
	x.Process.Propose(d.Segment, d.Generation, cmd, func(res consensus.Result) { done(res.Response, sorted(res.Err)) })
}

// again are the ends of a proposal that took effect nowhere.
var again = []error{
	consensus.ErrNotLeader, consensus.ErrDropped, consensus.ErrNoGroup, consensus.ErrOverloaded, machine.ErrGeneration, machine.ErrFrozen,
	keyspace.ErrWrongSegment, keyspace.ErrStampOrder, keyspace.ErrLocked, mvcc.ErrGone,
	machine.ErrUnapproved, approval.ErrStale, approval.ErrNotLeader, approval.ErrUnanswered, approval.ErrForged,
}

// sorted marks the errors of a proposal.
func sorted(err error) error {
	if errors.Is(err, consensus.ErrUnknown) {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	for _, is := range again {
		if errors.Is(err, is) {
			return fmt.Errorf("%w: %w", errNowhere, err)
		}
	}
	return err
}

// refusal reports whether an error is one after which another attempt may succeed.
func refusal(err error) bool {
	for _, is := range []error{commit.ErrConflict, commit.ErrLockLost, commit.ErrStampOrder, commit.ErrDecided, commit.ErrNotPrepared, commit.ErrTooMany} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}
