package txns

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

var (
	// errNowhere marks what certainly took effect nowhere and may be sent again.
	errNowhere = errors.New("took effect nowhere, to be tried again")
	// errLost marks what may have taken effect.
	errLost = errors.New("the outcome is unknown")
)

// Codes of failed answers. Above codeStatus, the rest is a gRPC code and the text is
// the client's.
const (
	codeNowhere = 1 // send again; the text may be a node ID: the leader
	codeStale   = 2 // the same; the text may be a fresher descriptor
	codeRefused = 3 // took effect nowhere; another attempt may succeed
	codeLost    = 4
	codeStatus  = 100
)

// act carries out a request on the leader. Errors are marked with errNowhere or
// errLost, are refusals of package commit, or the client's.
func (x *Txns) act(ctx context.Context, r *host.Replica, d *anchormesh.Descriptor, q request) ([]byte, error) {
	switch q.kind {
	case askLocks:
		w, err := decodeWanted(q.body)
		if err != nil {
			return nil, err
		}
		return x.acquire(ctx, r, d, w)
	case askRelease:
		if len(q.body) != len(commit.TxnID{}) {
			return nil, errMalformed
		}
		x.gate(d.Segment).release(x.now(), commit.TxnID(q.body))
		return nil, nil
	case askPrepare:
		return x.prepare(ctx, r, d, q.body)
	case askAbort, askCommit:
		if err := x.settle(ctx, d, q.body); err != nil {
			return nil, err
		}
	}
	return x.propose(ctx, d, command(q.kind, q.body))
}

// acquire locks and reads at the leader. Whether it still leads does not matter: a
// prepare whose locks were granted in another term is refused.
func (x *Txns) acquire(ctx context.Context, r *host.Replica, d *anchormesh.Descriptor, w *wanted) ([]byte, error) {
	for _, l := range w.locks {
		if !d.Range.Covers(l.Range) {
			return nil, fmt.Errorf("%w: %w", commit.ErrLockLost, keyspace.ErrWrongSegment) // cut or merged since it was divided
		}
	}
	if r.Pace.PerSecond() > 0 && !r.Pace.Take(time.Now()) {
		return nil, etcdapi.ErrTooManyRequests
	}
	g := x.gate(d.Segment)
	if err := x.lead(ctx, g, r, d); err != nil {
		return nil, err
	}
	now, err := x.past(ctx, d, w.reads)
	if err != nil {
		return nil, err
	}
	space := r.Machine.Space()
	grant, applied, err := g.acquire(x.now(), w, space)
	if err != nil {
		return nil, err
	}
	if applied != nil {
		select {
		case <-applied:
		case <-ctx.Done():
			g.release(x.now(), w.txn)
			return nil, fmt.Errorf("%w: %w", errNowhere, ctx.Err())
		}
	}
	values, err := space.ReadLocked(w.reads, now)
	if err != nil {
		g.release(x.now(), w.txn)
		if errors.Is(err, keyspace.ErrWrongSegment) {
			return nil, sorted(err)
		}
		return nil, etcdapi.ErrTooLarge
	}
	return (&got{grant, values}).encode(), nil
}

// lead makes the gate's locks those of this leader's term, once: it has applied an
// entry of it, and so all that was prepared before.
func (x *Txns) lead(ctx context.Context, g *gate, r *host.Replica, d *anchormesh.Descriptor) error {
	st, ok := x.engine.Status(d.Segment)
	if !ok || !st.Leads() {
		return fmt.Errorf("%w: %w", errNowhere, consensus.ErrNotLeader)
	}
	place := commit.Place{Term: st.Term, Generation: d.Generation, Scope: string(d.Line)}
	if g.at(place) {
		return nil
	}
	if err := x.round(ctx, d.Segment); err != nil {
		return err
	}
	again, ok := x.engine.Status(d.Segment)
	if !ok || !again.Leads() || again.Term != st.Term || r.Machine.Descriptor().Generation != d.Generation || !g.move(place) {
		return fmt.Errorf("%w: %w", errNowhere, consensus.ErrNotLeader)
	}
	return nil
}

// round waits for a ReadIndex.
func (x *Txns) round(ctx context.Context, segment anchormesh.SegmentID) error {
	done := make(chan error, 1)
	x.engine.ReadIndex(segment, func(_ uint64, err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%w: %w", errNowhere, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNowhere, ctx.Err())
	}
}

// past makes what reads want of the past complete here, and returns the revision up to
// which there is any.
func (x *Txns) past(ctx context.Context, d *anchormesh.Descriptor, reads []commit.Read) (now anchormesh.Revision, err error) {
	wants, highest := false, anchormesh.Revision(0)
	for _, r := range reads {
		wants, highest = wants || r.Revision != 0, max(highest, r.Revision)
	}
	if !wants {
		return 0, nil
	}
	if now, err = x.lines.Now(ctx, d.Line); err == nil && highest > 0 {
		_, err = x.lines.Barrier(ctx, d, min(highest, now))
	}
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNowhere, err)
	}
	return now, nil
}

// prepare puts a prepare into the log, stamped. A stamp that another has overtaken is
// replaced: the locks hold.
func (x *Txns) prepare(ctx context.Context, r *host.Replica, d *anchormesh.Descriptor, body []byte) ([]byte, error) {
	from, body, ok := keyspace.ParseOrigin(body)
	if !ok {
		return nil, errMalformed
	}
	c, err := commit.DecodePrepare(body)
	if err != nil {
		return nil, err
	}
	cmd := command(askPrepare, body)
	if r.Machine.Space().WantsOrigin() {
		cmd = append(keyspace.AppendOrigin(nil, &from), cmd...)
	}
	if err := x.cfg.Admit(r, d, cmd); err != nil {
		return nil, err
	}
	g := x.gate(d.Segment)
	if err := g.propose(c); err != nil {
		return nil, err
	}
	for _, w := range c.Writes {
		r.Meter.Write(w.Key, len(w.Key)+len(w.Value))
	}
	done := make(chan consensus.Result, 1)
	tries := 0
	var ended func(consensus.Result)
	ended = func(res consensus.Result) {
		if tries++; errors.Is(res.Err, keyspace.ErrStampOrder) || errors.Is(res.Err, commit.ErrStampOrder) {
			if tries < restampMax {
				x.lines.Propose(d, cmd, ended)
				return
			}
		}
		g.prepared(c)
		done <- res
	}
	x.lines.Propose(d, cmd, ended)
	return await(ctx, done)
}

// settle ends a transaction's locks before what ends it goes into the log, so that no
// prepare comes behind that.
func (x *Txns) settle(ctx context.Context, d *anchormesh.Descriptor, body []byte) error {
	if len(body) < 1+len(commit.TxnID{}) {
		return errMalformed
	}
	under := x.gate(d.Segment).release(x.now(), commit.TxnID(body[1:1+len(commit.TxnID{})]))
	if under == nil {
		return nil
	}
	select {
	case <-under:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errNowhere, ctx.Err())
	}
}

// propose puts a command into the log and waits for what it came to.
func (x *Txns) propose(ctx context.Context, d *anchormesh.Descriptor, cmd []byte) ([]byte, error) {
	done := make(chan consensus.Result, 1)
	x.engine.Propose(d.Segment, d.Generation, cmd, func(res consensus.Result) { done <- res })
	return await(ctx, done)
}

func await(ctx context.Context, done chan consensus.Result) ([]byte, error) {
	select {
	case res := <-done:
		return res.Response, sorted(res.Err)
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", errLost, ctx.Err())
	}
}

// sorted marks the errors of a proposal.
func sorted(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, consensus.ErrUnknown):
		return fmt.Errorf("%w: %w", errLost, err)
	case errors.Is(err, consensus.ErrNotLeader), errors.Is(err, consensus.ErrDropped), errors.Is(err, consensus.ErrNoGroup),
		errors.Is(err, consensus.ErrOverloaded), errors.Is(err, consensus.ErrStopped), errors.Is(err, consensus.ErrTooFewAnchors), errors.Is(err, machine.ErrGeneration), errors.Is(err, machine.ErrFrozen), errors.Is(err, machine.ErrBetween),
		errors.Is(err, keyspace.ErrWrongSegment), errors.Is(err, keyspace.ErrStampOrder), errors.Is(err, keyspace.ErrLocked),
		errors.Is(err, machine.ErrUnapproved), errors.Is(err, approval.ErrStale), errors.Is(err, approval.ErrUnanswered):
		return fmt.Errorf("%w: %w", errNowhere, err)
	}
	return err
}

// refusal reports whether an error is one after which another attempt may succeed.
func refusal(err error) bool {
	for _, is := range []error{
		commit.ErrConflict, commit.ErrLockLost, commit.ErrStampOrder, commit.ErrDecided, commit.ErrNotPrepared, commit.ErrTooMany, errRemote,
	} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// errRemote is a refusal that another node's leader worded.
var errRemote = errors.New("refused by the segment's leader")

// Serve answers another node's request; it does not block.
func (x *Txns) Serve(_ anchormesh.NodeID, payload []byte, to mesh.Responder) {
	q, err := parseRequest(payload)
	if err != nil {
		to.Fail(codeStatus+uint16(codes.InvalidArgument), err.Error())
		return
	}
	go x.serve(q, to)
}

func (x *Txns) serve(q request, to mesh.Responder) {
	deadline := to.Deadline()
	if deadline.IsZero() {
		deadline = time.Now().Add(serveMax)
	}
	ctx, cancel := context.WithDeadline(x.life, deadline)
	defer cancel()
	r, here := x.host.Get(q.segment)
	if !here || r.Machine.Descriptor().Generation != q.generation {
		text := ""
		if d, ok := x.table.Segment(q.segment); ok {
			text = string(meshpb.EncodeDescriptor(d))
		}
		to.Fail(codeStale, text)
		return
	}
	answer, err := x.act(ctx, r, r.Machine.Descriptor(), q)
	switch {
	case err == nil:
		to.Reply(answer)
	case errors.Is(err, errNowhere):
		x.engine.Seek(q.segment)
		leader := ""
		if st, ok := x.engine.Status(q.segment); ok {
			leader = string(st.Leader)
		}
		to.Fail(codeNowhere, leader)
	case errors.Is(err, errLost):
		to.Fail(codeLost, err.Error())
	case refusal(err):
		to.Fail(codeRefused, err.Error())
	default:
		st := etcdapi.Status(err)
		to.Fail(codeStatus+uint16(st.Code()), st.Message())
	}
}
