package txns

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/etcdapi"
)

// send takes a request to the leader of the segment that holds a key, until it took
// effect, may have taken effect, or ctx ends.
func (x *Txns) send(ctx context.Context, key []byte, kind byte, body []byte) ([]byte, error) {
	for {
		changed := x.table.Changed() // before the try, so that no change is missed
		answer, err := x.once(ctx, key, kind, body)
		if err == nil || !errors.Is(err, errNowhere) {
			return answer, err
		}
		timer := time.NewTimer(retryWait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
		timer.Stop()
	}
}

func (x *Txns) once(ctx context.Context, key []byte, kind byte, body []byte) ([]byte, error) {
	d, ok := x.table.Lookup(key)
	if !ok {
		return nil, fmt.Errorf("%w: %w", errNowhere, etcdapi.ErrNoLeader)
	}
	st, here := x.engine.Status(d.Segment)
	if here && st.Leads() {
		r, here := x.host.Get(d.Segment)
		if !here || r.Machine.Descriptor().Generation != d.Generation {
			return nil, fmt.Errorf("%w: %w", errNowhere, etcdapi.ErrNotAnchor)
		}
		return x.act(ctx, r, r.Machine.Descriptor(), request{kind, d.Segment, d.Generation, body})
	}
	x.engine.Seek(d.Segment)
	leader := st.Leader // a replica here hears of changes
	if leader == "" {
		leader, _ = x.table.Leader(d.Segment)
	}
	if leader == "" || leader == x.cfg.Self {
		leader = x.someVoter(d)
	}
	if leader == "" {
		return nil, fmt.Errorf("%w: %w", errNowhere, etcdapi.ErrNoLeader)
	}
	answer, err := x.caller.Call(ctx, leader, Method, head(kind, d), body)
	if err != nil {
		return nil, x.failed(d, leader, err)
	}
	return answer, nil
}

// someVoter picks somebody who may know the leader.
func (x *Txns) someVoter(d *anchormesh.Descriptor) anchormesh.NodeID {
	voters := d.Voters()
	for _, i := range rand.Perm(len(voters)) {
		if voters[i].Node != x.cfg.Self {
			return voters[i].Node
		}
	}
	return ""
}

// failed marks the errors of a call.
func (x *Txns) failed(d *anchormesh.Descriptor, to anchormesh.NodeID, err error) error {
	var remote *mesh.RemoteError
	switch {
	case errors.As(err, &remote):
		return x.remoteFailed(d, remote)
	case errors.Is(err, mesh.ErrTooLarge):
		return etcdapi.ErrTooLarge
	case errors.Is(err, mesh.ErrUnreachable), errors.Is(err, mesh.ErrNoHandler), errors.Is(err, mesh.ErrRefused):
		if known, ok := x.table.Leader(d.Segment); ok && known == to {
			x.table.Guess(d.Segment, "")
		}
		return fmt.Errorf("%w: %w", errNowhere, err)
	case errors.Is(err, mesh.ErrOverloaded), errors.Is(err, mesh.ErrClosed):
		return fmt.Errorf("%w: %w", errNowhere, err)
	}
	return fmt.Errorf("%w: %w", errLost, err)
}

func (x *Txns) remoteFailed(d *anchormesh.Descriptor, e *mesh.RemoteError) error {
	switch {
	case e.Code == codeNowhere:
		if e.Text != "" {
			x.table.Guess(d.Segment, anchormesh.NodeID(e.Text))
		}
		return fmt.Errorf("%w: %w", errNowhere, etcdapi.ErrNoLeader)
	case e.Code == codeStale:
		if fresh, err := meshpb.DecodeDescriptor([]byte(e.Text)); err == nil {
			x.table.Learn(fresh)
		}
		return fmt.Errorf("%w: %w", errNowhere, etcdapi.ErrNotAnchor)
	case e.Code == codeRefused:
		return fmt.Errorf("%w: %s", errRemote, e.Text)
	case e.Code == codeLost:
		return fmt.Errorf("%w: %s", errLost, e.Text)
	case e.Code >= codeStatus && e.Code < codeStatus+32:
		return status.Error(codes.Code(e.Code-codeStatus), e.Text)
	}
	return fmt.Errorf("%w: %w", errLost, e)
}

// do carries out one effect and returns what came of it.
func (r *run) do(lines [][]byte, fx commit.Effect) commit.Event {
	x, ctx := r.x, r.ctx
	switch fx := fx.(type) {
	case commit.Acquire:
		return x.doAcquire(ctx, fx)
	case commit.PrepareAt:
		reply, err := x.command(ctx, fx.Key, askPrepare, append(r.from.Append(nil), fx.Command.Encode()...))
		if err != nil {
			return fault(err, anchormesh.KeyRange{})
		}
		return commit.Prepared{Part: fx.Part, Stamp: reply.Stamp}
	case commit.AskRevision:
		return x.doNumber(ctx, lines)
	case commit.DecideAt:
		reply, err := x.command(ctx, fx.Command.Key, askDecide, fx.Command.Encode())
		if err != nil {
			return fault(err, anchormesh.KeyRange{})
		}
		return commit.Decided{Verdict: reply.Verdict, Range: reply.Range}
	case commit.TellAt:
		kind := byte(askAbort)
		if fx.Command.Commit {
			kind = askCommit
		}
		reply, err := x.command(ctx, fx.Span.Start, kind, fx.Command.Encode())
		if err != nil {
			return x.later(ctx, commit.Lost{Span: fx.Span})
		}
		return commit.Told{Span: fx.Span, Range: reply.Range}
	case commit.ForgetAt:
		if _, err := x.command(ctx, fx.Key, askForget, commit.EncodeID(fx.Txn)); err != nil {
			return x.later(ctx, commit.Lost{})
		}
		return commit.Forgot{}
	}
	panic(fmt.Sprintf("txns: an effect of an unknown kind: %T", fx))
}

func (x *Txns) doAcquire(ctx context.Context, fx commit.Acquire) commit.Event {
	id, _ := ctx.Value(attemptKey{}).(commit.TxnID)
	answer, err := x.send(ctx, fx.Key, askLocks, (&wanted{txn: id, locks: fx.Locks, reads: fx.Reads}).encode())
	if err != nil {
		return fault(err, anchormesh.KeyRange{})
	}
	g, err := decodeGot(answer)
	if err != nil || len(g.values) != len(fx.Reads) {
		return commit.Failed{Err: errMalformed, Final: true}
	}
	return commit.Acquired{Part: fx.Part, Grant: g.grant, Values: g.values}
}

// doNumber asks for the revision. A number that nobody hears of is nobody's. The attempt
// fails if none comes within numberWait: a line that ended in a hand-over gives none any
// more, and the hand-over waits for what is prepared.
func (x *Txns) doNumber(ctx context.Context, lines [][]byte) commit.Event {
	for began := x.now(); ; {
		at, err := x.lines.NumberOver(ctx, lines)
		if err == nil {
			return commit.Numbered{Revision: at}
		}
		if x.later(ctx, nil); ctx.Err() != nil || x.now()-began >= numberWait {
			return commit.Failed{Err: err}
		}
	}
}

// command sends a request that becomes a command of the log.
func (x *Txns) command(ctx context.Context, key []byte, kind byte, body []byte) (*commit.Reply, error) {
	answer, err := x.send(ctx, key, kind, body)
	if err != nil {
		return nil, err
	}
	reply, err := commit.DecodeReply(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errLost, err)
	}
	return reply, nil
}

// later returns an event after a pause, so that nothing is asked again at once.
func (x *Txns) later(ctx context.Context, e commit.Event) commit.Event {
	timer := time.NewTimer(tellWait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return e
}

// fault is the event for a request that failed.
func fault(err error, span anchormesh.KeyRange) commit.Event {
	switch {
	case errors.Is(err, errLost):
		return commit.Lost{Span: span}
	case errors.Is(err, errNowhere), refusal(err):
		return commit.Failed{Err: err}
	}
	return commit.Failed{Err: err, Final: true}
}
