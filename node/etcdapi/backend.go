package etcdapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/watch"
)

// Backends is all that the API needs from the node it runs on. Errors are the
// sentinels of errors.go, possibly wrapped, or gRPC statuses, which are passed
// on as they are (an answer that was translated on another node).
type Backends struct {
	Requests    Requests
	Watches     Watches
	Leases      Leases
	Cluster     Cluster
	Maintenance Maintenance
	Node        Node
}

// Requests runs a checked request and answers with an encoded response.
type Requests interface {
	// Do routes and runs the call and returns the encoded etcd response, its
	// header included. It returns soon after ctx ends. A write whose outcome
	// is not known then is ErrTimeout or one of its kin, never a retry. An
	// unknown lease is a TTL of -1 in LeaseTimeToLive's answer, not an error.
	Do(ctx context.Context, call *Call) (codec.Chunks, error)
}

// Watches opens watch streams.
type Watches interface {
	// Open returns a new stream; keys is the range of its first watch. It
	// answers ErrNotAnchor when another node must serve the stream.
	Open(ctx context.Context, keys anchormesh.KeyRange) (WatchStream, error)
	// Forward returns a connection to a node that can serve watches of keys.
	Forward(ctx context.Context, keys anchormesh.KeyRange) (grpc.ClientConnInterface, error)
}

// WatchStream is the watches of one client stream; *watch.Stream is one, and so
// is whatever merges the streams of several segments. Create, Cancel and
// RequestProgress are called by one goroutine, Next by another.
type WatchStream interface {
	// Create begins a watch. Next answers with Created, in the order of the
	// calls that succeeded. The error is watch.ErrEmptyRange,
	// watch.ErrDuplicateID, or what Next will fail with.
	Create(ctx context.Context, r watch.Request) (id, revision int64, err error)
	// Cancel ends a watch and reports whether there was one; then Next answers
	// with Canceled.
	Cancel(id int64) bool
	// RequestProgress asks for a response that speaks for all watches of the
	// stream, once all have been sent everything up to its revision.
	RequestProgress()
	// Next blocks for the next response. An error ends the stream.
	Next(ctx context.Context) (watch.Response, error)
	// Close ends all watches. It may be called while Next runs.
	Close()
}

// Leases keeps leases alive. All other lease methods go through Requests.
type Leases interface {
	// KeepAlive renews the leases with one check of leadership and returns
	// their new TTLs in seconds, zero for a lease that does not exist, and a
	// header taken before the renewal.
	KeepAlive(ctx context.Context, ids []int64) (codec.Header, []int64, error)
}

// Cluster knows the mesh.
type Cluster interface {
	Members(ctx context.Context, linearizable bool) ([]*pb.Member, error)
}

// Maintenance is the operator's side of the node.
type Maintenance interface {
	// Status fills everything but Header and the versions.
	Status(ctx context.Context) (*pb.StatusResponse, error)
	// HashKV fills everything but the identifiers of the header, whose other
	// fields may stay empty; revision 0 is the newest.
	HashKV(ctx context.Context, revision int64) (*pb.HashKVResponse, error)
	Defragment(ctx context.Context) error
	// MoveLeader hands this node's leaderships to the member. The errors are
	// ErrNotLeader, ErrBadTransferee and ErrTimeoutTransfer.
	MoveLeader(ctx context.Context, member uint64) error
}

// Node says who answers and whether it could. All methods are cheap.
type Node interface {
	// Header returns the identifiers, the newest revision applied here and the
	// term.
	Header() codec.Header
	// KeysLed reports whether every segment that keys touches has a leader, as
	// far as this node knows.
	KeysLed(keys anchormesh.KeyRange) bool
	// LeasesLed reports the same of the segment that keeps the leases.
	LeasesLed() bool
}
