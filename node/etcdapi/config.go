package etcdapi

import (
	"fmt"
	"log/slog"
	"math"
	"time"

	"google.golang.org/grpc/codes"
)

// Version is what Maintenance.Status reports: the release of etcd whose API
// this package was compiled with. Kubernetes reads it to decide whether watch
// progress requests may be trusted (from 3.4.31 and 3.5.13 on), and etcdctl to
// decide what it may ask for; a version of our own would turn both off. A test
// compares it with the api module's.
const Version = "3.7.3"

// StorageVersion is what Maintenance.Status reports of the store: the format that
// a cluster of that release has agreed on, which is its minor version.
const StorageVersion = "3.7.0"

// overheadBytes is what gRPC accepts above MaxRequestBytes, as in etcd: a
// request between the two limits gets etcd's text instead of gRPC's.
const overheadBytes = 512 << 10

// Config are the limits and intervals of the API. Defaults are etcd's.
type Config struct {
	Logger *slog.Logger
	// Listener hears about requests and streams; the zero value hears nothing.
	Listener Listener

	// MaxRequestBytes bounds a write as it would stand in etcd's log (the
	// request and its envelope). gRPC refuses what is 512 KiB longer.
	MaxRequestBytes int
	// MaxTxnOps bounds the operations of a transaction, counted as etcd does:
	// the longest of its three lists, plus the same of each nested transaction.
	MaxTxnOps int
	// MaxConcurrentStreams bounds the requests and streams in flight on one
	// connection; more wait in the client.
	MaxConcurrentStreams uint32

	// ElectionTimeout is the time in which a lost leader is replaced. It gives
	// the request timeout and how long a require-leader stream survives
	// without one (three times this).
	ElectionTimeout time.Duration
	// RequestTimeout bounds every request. Zero means etcd's rule: 5 s for
	// queues and disks, and two election timeouts.
	RequestTimeout time.Duration

	// KeepAliveMinTime is the shortest allowed pause between a client's pings;
	// a client that pings faster is disconnected.
	KeepAliveMinTime time.Duration
	// KeepAliveInterval is the idle time after which the server pings.
	KeepAliveInterval time.Duration
	// KeepAliveTimeout is how long a ping may stay unanswered.
	KeepAliveTimeout time.Duration

	// Tuning are gRPC's knobs; see BENCH.md for how they were chosen.
	Tuning Tuning
}

// Tuning are gRPC's knobs that cost or save CPU.
type Tuning struct {
	// StreamWorkers is the number of goroutines that wait for requests, so that
	// a request does not grow a fresh stack. When all are busy a request gets a
	// goroutine of its own. Many idle ones cost more than they save: gRPC wakes
	// the one that has slept longest, whose stack is in no cache.
	StreamWorkers uint32
	// WriteBufferBytes and ReadBufferBytes are per connection, the former only
	// while it is written to. They bound what one system call moves.
	WriteBufferBytes, ReadBufferBytes int
}

// DefaultConfig returns etcd's defaults.
func DefaultConfig() Config {
	return Config{
		Logger:               slog.New(slog.DiscardHandler),
		MaxRequestBytes:      3 << 19, // 1.5 MiB
		MaxTxnOps:            128,
		MaxConcurrentStreams: math.MaxUint32,
		ElectionTimeout:      time.Second,
		KeepAliveMinTime:     5 * time.Second,
		KeepAliveInterval:    2 * time.Hour,
		KeepAliveTimeout:     20 * time.Second,
		Tuning:               DefaultTuning(),
	}
}

// DefaultTuning returns the measured choice.
func DefaultTuning() Tuning {
	return Tuning{StreamWorkers: 16, WriteBufferBytes: 32 << 10, ReadBufferBytes: 32 << 10}
}

// Validate reports the first value that cannot work.
func (c Config) Validate() error {
	switch {
	case c.Logger == nil:
		return fmt.Errorf("etcdapi: Logger is missing")
	case c.MaxRequestBytes <= 0 || c.MaxRequestBytes > math.MaxInt32-overheadBytes:
		return fmt.Errorf("etcdapi: max request bytes %d: want 1 to %d", c.MaxRequestBytes, math.MaxInt32-overheadBytes)
	case c.MaxTxnOps <= 0:
		return fmt.Errorf("etcdapi: max txn ops %d: want at least 1", c.MaxTxnOps)
	case c.ElectionTimeout <= 0:
		return fmt.Errorf("etcdapi: election timeout %v: want more than zero", c.ElectionTimeout)
	case c.RequestTimeout < 0:
		return fmt.Errorf("etcdapi: request timeout %v: want zero (etcd's rule) or more", c.RequestTimeout)
	case c.KeepAliveMinTime < 0 || c.KeepAliveInterval < 0 || c.KeepAliveTimeout < 0:
		return fmt.Errorf("etcdapi: keep-alive times must not be negative")
	}
	return nil
}

func (c Config) requestTimeout() time.Duration {
	if c.RequestTimeout > 0 {
		return c.RequestTimeout
	}
	return 5*time.Second + 2*c.ElectionTimeout
}

// minLeaseTTL is etcd's rule: one and a half election timeouts, in whole seconds
// rounded up, so that a lease survives the time in which nobody can renew it.
func (c Config) minLeaseTTL() int64 {
	return int64((c.ElectionTimeout*3/2 + time.Second - 1) / time.Second)
}

// Listener hears what the API does. Each func may be nil, is called on the
// request's goroutine and must not block. Methods are gRPC's full names.
type Listener struct {
	// Request is one answered unary request.
	Request func(method string, code codes.Code, took time.Duration)
	// StreamOpened and StreamClosed frame a stream's life.
	StreamOpened func(method string)
	StreamClosed func(method string, code codes.Code)
}
