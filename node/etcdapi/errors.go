package etcdapi

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/rules"
)

// What a backend can answer. Wrap them: only errors.Is counts, and the client
// sees etcd's text, because clientv3 tells errors apart by text.
var (
	// ErrCompacted: the revision asked for lies below the compacted one.
	ErrCompacted = keyspace.ErrCompacted
	// ErrFutureRevision: the revision asked for was not given out yet.
	ErrFutureRevision = keyspace.ErrFutureRev
	// ErrKeyNotFound: a put that keeps value or lease found no key.
	ErrKeyNotFound = keyspace.ErrKeyNotFound
	// ErrLeaseNotFound: no such lease.
	ErrLeaseNotFound = keyspace.ErrLeaseNotFound
	// ErrLeaseExists: a grant named an ID that is taken.
	ErrLeaseExists = keyspace.ErrLeaseExists
	// ErrLeaseTTLTooLarge: a grant asked for more than 9,000,000,000 s.
	ErrLeaseTTLTooLarge = keyspace.ErrLeaseTTLTooLarge

	// ErrTooLarge: the request does not fit into a log entry.
	ErrTooLarge = errors.New("etcdapi: the request is too large")
	// ErrNoSpace: the quota is used up or its alarm is raised.
	ErrNoSpace = keyspace.ErrNoSpace
	// ErrTooManyRequests: a queue is full; nothing was proposed.
	ErrTooManyRequests = errors.New("etcdapi: too many requests are waiting")
	// ErrCorrupt: replicas differ, or this one is damaged.
	ErrCorrupt = keyspace.ErrCorrupt

	// ErrNoLeader: the segment has no leader; nothing was proposed.
	ErrNoLeader = errors.New("etcdapi: no leader")
	// ErrNotLeader: the act needs this node to lead.
	ErrNotLeader = errors.New("etcdapi: this node does not lead")
	// ErrLeaderChanged: leadership moved while a read waited.
	ErrLeaderChanged = errors.New("etcdapi: the leader changed")
	// ErrBadTransferee: leadership cannot go to that member.
	ErrBadTransferee = errors.New("etcdapi: the member cannot lead")
	// ErrTimeoutTransfer: the member did not take over in time.
	ErrTimeoutTransfer = errors.New("etcdapi: leader transfer took too long")
	// ErrUnhealthy: too few anchors are reachable.
	ErrUnhealthy = errors.New("etcdapi: too few anchors are reachable")

	// ErrStopped: this node is stopping.
	ErrStopped = errors.New("etcdapi: the node is stopping")
	// ErrTimeout: no answer in time; a write's outcome is unknown.
	ErrTimeout = errors.New("etcdapi: timed out, outcome unknown")
	// ErrTimeoutLeaderFail: the same, and the leader was lost meanwhile.
	ErrTimeoutLeaderFail = errors.New("etcdapi: timed out, leader lost, outcome unknown")
	// ErrTimeoutConnectionLost: the same, and the connection to the leader broke.
	ErrTimeoutConnectionLost = errors.New("etcdapi: connection lost, outcome unknown")
	// ErrTimeoutApply: a read waited too long for this replica to catch up.
	ErrTimeoutApply = errors.New("etcdapi: timed out waiting for apply")
	// ErrCanceled: the client gave up on a write; its outcome is unknown.
	ErrCanceled = errors.New("etcdapi: canceled by the client")

	// ErrLightTxn: a transaction names keys of a light scope and others. What a light
	// scope acknowledged may be forgotten, and half of a transaction with it.
	ErrLightTxn = errors.New("etcdapi: a transaction mixes a light scope with other keys")

	// ErrNotAnchor: another node must serve this stream. Watches.Open says so;
	// a stream whose segment leaves this node ends with it. A client sees it as
	// Unavailable and asks elsewhere.
	ErrNotAnchor = errors.New("etcdapi: this node holds no anchor of the segment")
)

// answers is the only place where an error becomes a gRPC status.
var answers = []struct {
	is     error
	status error
}{
	{ErrCompacted, rpctypes.ErrGRPCCompacted},
	{ErrFutureRevision, rpctypes.ErrGRPCFutureRev},
	{ErrKeyNotFound, rpctypes.ErrGRPCKeyNotFound},
	{ErrLeaseNotFound, rpctypes.ErrGRPCLeaseNotFound},
	{ErrLeaseExists, rpctypes.ErrGRPCLeaseExist},
	{ErrLeaseTTLTooLarge, rpctypes.ErrGRPCLeaseTTLTooLarge},
	{ErrTooLarge, rpctypes.ErrGRPCRequestTooLarge},
	{ErrNoSpace, rpctypes.ErrGRPCNoSpace},
	{keyspace.ErrScopeFull, rpctypes.ErrGRPCNoSpace},
	{ErrTooManyRequests, rpctypes.ErrGRPCRequestTooManyRequests},
	{ErrCorrupt, rpctypes.ErrGRPCCorrupt},
	{ErrNoLeader, rpctypes.ErrGRPCNoLeader},
	{ErrNotLeader, rpctypes.ErrGRPCNotLeader},
	{ErrLeaderChanged, rpctypes.ErrGRPCLeaderChanged},
	{ErrBadTransferee, rpctypes.ErrGRPCBadLeaderTransferee},
	// etcd has no code for this one either.
	{ErrTimeoutTransfer, status.Error(codes.Unknown, "etcdserver: request timed out, leader transfer took too long")},
	{ErrUnhealthy, rpctypes.ErrGRPCUnhealthy},
	{ErrStopped, rpctypes.ErrGRPCStopped},
	{ErrTimeout, rpctypes.ErrGRPCTimeout},
	{ErrTimeoutLeaderFail, rpctypes.ErrGRPCTimeoutDueToLeaderFail},
	{ErrTimeoutConnectionLost, rpctypes.ErrGRPCTimeoutDueToConnectionLost},
	{ErrTimeoutApply, rpctypes.ErrGRPCTimeoutWaitAppliedIndex},
	{ErrCanceled, rpctypes.ErrGRPCCanceled},
	{ErrLightTxn, status.Error(codes.FailedPrecondition, "etcdserver: a transaction must not mix keys of a light scope with others")},
	{ErrNotAnchor, status.Error(codes.Unavailable, "etcdserver: this node no longer serves these keys, another one does")},
	// A context error that no rule about writes caught, as gRPC words it.
	{context.Canceled, status.Error(codes.Canceled, context.Canceled.Error())},
	{context.DeadlineExceeded, status.Error(codes.DeadlineExceeded, context.DeadlineExceeded.Error())},
}

// Status translates an error into the gRPC status a client gets. A status
// inside err is passed on as it is; an error of no known kind is Unknown with
// its own text, as in etcd.
func Status(err error) *status.Status {
	if err == nil {
		return nil
	}
	for _, a := range answers {
		if errors.Is(err, a.is) {
			return status.Convert(a.status)
		}
	}
	var refusal *rules.Refusal
	if errors.As(err, &refusal) {
		return status.New(refusalCode(refusal), refusal.Error())
	}
	var carrier interface{ GRPCStatus() *status.Status }
	if errors.As(err, &carrier) {
		return carrier.GRPCStatus()
	}
	return status.New(codes.Unknown, err.Error())
}

// refusalCode is PermissionDenied if the rule is about who writes, and
// FailedPrecondition if it is about what is written or what there is.
func refusalCode(r *rules.Refusal) codes.Code {
	if r.Denied {
		return codes.PermissionDenied
	}
	return codes.FailedPrecondition
}

// toWire is Status as an error.
func toWire(err error) error {
	if err == nil {
		return nil
	}
	return Status(err).Err()
}

// settle words the end of a call's context as etcd does: a write that was given
// up on or ran out of time has an unknown outcome; a read that the client gave
// up on gets gRPC's own words, one that the server gave up on a timeout.
func settle(client context.Context, write bool, err error) error {
	canceled, late := errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded)
	switch {
	case !canceled && !late:
		return err
	case write && canceled:
		return ErrCanceled
	case write:
		return ErrTimeout
	case client.Err() != nil:
		return client.Err()
	case late:
		return ErrTimeout
	}
	return err
}
