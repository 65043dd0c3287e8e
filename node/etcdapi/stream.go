package etcdapi

import (
	"context"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// A long-lived stream ends because the client ends it, because this node stops,
// because a require-leader stream has no leader for too long, or because the
// backend says so. Whoever ends it leaves the reason as the cause of the
// stream's context.

// openStream derives the context of a stream; the first reason given to end
// counts, nil is the ordinary end.
func (s *Server) openStream(client context.Context) (ctx context.Context, end func(reason error)) {
	ctx, cancel := context.WithCancelCause(client)
	unlink := context.AfterFunc(s.stopping, func() { cancel(ErrStopped) })
	return ctx, func(reason error) {
		unlink()
		cancel(reason)
	}
}

// streamError is the status of a stream that ended with err: the reason it was
// ended for, if there is one.
func streamError(ctx context.Context, err error) error { return toWire(streamCause(ctx, err)) }

func streamCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// leaderlessMax is how many election timeouts a require-leader stream may be
// without a leader before it ends, as in etcd: to reconnect costs more than to
// wait.
const leaderlessMax = 3

// everyElection calls check once per election timeout until ctx ends. A timer
// per stream needs no registry of streams.
func (s *Server) everyElection(ctx context.Context, check func()) {
	var timer *time.Timer
	armed := make(chan struct{})
	timer = time.AfterFunc(s.cfg.ElectionTimeout, func() {
		<-armed
		if ctx.Err() == nil {
			check()
			timer.Reset(s.cfg.ElectionTimeout)
		}
	})
	close(armed)
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// endWithoutLeader ends a stream that needs a leader once led was false for
// leaderlessMax election timeouts in a row.
func (s *Server) endWithoutLeader(ctx context.Context, led func() bool, end func(error)) {
	missed := 0
	s.everyElection(ctx, func() {
		if missed++; led() {
			missed = 0
		}
		if missed >= leaderlessMax {
			end(rpctypes.ErrGRPCNoLeader)
		}
	})
}
