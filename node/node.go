package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/internal/quiet"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/classes"
	"github.com/anchormesh/anchormesh/node/config"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/dispatch"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/exchange"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/leases"
	"github.com/anchormesh/anchormesh/node/merger"
	"github.com/anchormesh/anchormesh/node/neighbours"
	"github.com/anchormesh/anchormesh/node/pairing"
	"github.com/anchormesh/anchormesh/node/peers"
	"github.com/anchormesh/anchormesh/node/proofs"
	"github.com/anchormesh/anchormesh/node/pulse"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/scopes"
	"github.com/anchormesh/anchormesh/node/stamps"
	"github.com/anchormesh/anchormesh/node/steward"
	"github.com/anchormesh/anchormesh/node/telemetry"
	"github.com/anchormesh/anchormesh/node/transfer"
	"github.com/anchormesh/anchormesh/node/turns"
	"github.com/anchormesh/anchormesh/node/txns"
	"github.com/anchormesh/anchormesh/node/upkeep"
	"github.com/anchormesh/anchormesh/node/watches"
	"github.com/anchormesh/anchormesh/node/web"
)

// logCacheBytes of recent entries stay in memory: what followers that keep up
// still need. Those that lag are fed from the files.
const logCacheBytes = 2 << 20

// stopTimeout bounds how long requests may take once the node stops.
const stopTimeout = 3 * time.Second

// Node is one node of a mesh.
type Node struct {
	cfg     config.Config
	key     meshkey.Key
	version string
	log     *slog.Logger
	serving atomic.Pointer[assembly] // nil until everything runs
	failed  func(error)
	noise   quiet.Gate // of what other nodes can provoke
	governance
}

// assembly is everything a running node is made of.
type assembly struct {
	started time.Time
	ground
	services
	governor *governor.Governor
	metrics  *telemetry.Metrics
	api      *etcdapi.Server
	ports    ports
	fatal    chan error     // holds the first reason to stop that no service found
	closers  []func() error // of what is open, in the order of its opening
}

// ground is what the node's state stands on, in the order of its start.
type ground struct {
	dir     *datadir.Dir
	wal     *wal.Log
	stores  *scopes.Stores
	mesh    *mesh.Mesh
	table   *route.Table
	engine  *consensus.Engine
	running atomic.Bool // the engine is
	host    *host.Host
}

// services act on the ground.
type services struct {
	lessor     *leases.Lessor
	lines      *stamps.Lines
	leases     *leases.Service
	watches    *watches.Watches
	txns       *txns.Txns
	ender      *leases.Ender
	requests   *dispatch.Dispatcher
	steward    *steward.Steward
	merger     *merger.Merger
	turns      *turns.Turns
	neighbours *neighbours.Neighbours
	leaving    atomic.Bool // the node is being drained
	exchange   *exchange.Exchange
	identity   wire.Identity
	proofs     *proofs.Keeper
	classes    *classes.Reporter
	pulse      *pulse.Pulse
	pairing    *pairing.Pairing
	peers      *peers.Peers
	consent
}

// ports are the TCP ports that clients use.
type ports struct {
	client net.Listener
	http   net.Listener // nil if off
}

// New returns a node; it opens nothing before Run. cfg must be valid.
func New(cfg config.Config, key meshkey.Key, version string, log *slog.Logger) (*Node, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Node{cfg: cfg, key: key, version: version, log: log, governance: defaultGovernance().hastened(time.Duration(cfg.Recruit.Haste))}, nil
}

// OnFailure says what happens when the disk fails under a running node: f must
// end the process and not return, because nobody knows what is on the disk until
// a new process has looked. Without it the node panics. Call it before Run.
func (n *Node) OnFailure(f func(error)) { n.failed = f }

// fail ends the process.
func (n *Node) fail(err error) {
	err = fmt.Errorf("the node stops so that nothing is acknowledged that is not on disk, and can be started again when the disk is well: %w", err)
	if n.failed != nil {
		n.failed(err)
	}
	panic("node: " + err.Error())
}

var (
	// ErrNotServing says that the node has not started yet.
	ErrNotServing = errors.New("the node has not started yet")
	// ErrIdentityInUse ends a process that shares its identity with another: each
	// votes and acknowledges writes in the other's name. Whoever notices first
	// stops, as a rule the one that came second.
	ErrIdentityInUse = errors.New("another running process has this node's identity, because its data directory was copied: " +
		"this one stops; keep the one that ran all the time, and give the other an empty directory")
)

// Check does one linearizable read through this node. Its error says what is
// missing.
func (n *Node) Check(ctx context.Context) error {
	a := n.serving.Load()
	if a == nil {
		return ErrNotServing
	}
	return a.ready(ctx)
}

// Run serves until ctx ends, then stops in order and returns nil. Any other end
// is an error.
func (n *Node) Run(ctx context.Context) (err error) {
	a := &assembly{started: time.Now(), fatal: make(chan error, 1)}
	a.table = route.NewTable()
	defer func() { err = errors.Join(err, a.close()) }()
	if err := n.open(ctx, a); err != nil {
		return err
	}
	transfers, err := n.startEngine(a)
	if err != nil {
		return err
	}
	n.serveMesh(a, transfers)
	if a.api, err = n.newAPI(a); err != nil {
		return err
	}
	return n.serve(ctx, a)
}

// open opens what the replicas stand on, from the ground up.
func (n *Node) open(ctx context.Context, a *assembly) (err error) {
	// The data directory: one process at a time.
	if a.dir, err = datadir.Open(fsys.OS, n.cfg.Identity.Dir()); err != nil {
		return err
	}
	a.closeLater(a.dir.Close)
	a.metrics = telemetry.New(n.sources(a), n.version)

	// The ports: a busy one is found before anything else is done.
	if a.ports.client, err = net.Listen("tcp", n.cfg.Listen.Client); err != nil {
		return fmt.Errorf("--client-addr: %w", err)
	}
	a.closeLater(closeListener(a.ports.client))
	if a.ports.http, err = listenHTTP(n.cfg.Listen.HTTP); err != nil {
		return err
	}
	if a.ports.http != nil {
		a.closeLater(closeListener(a.ports.http))
	}

	// Log and stores: what was acknowledged before the last stop.
	walOptions := wal.DefaultOptions()
	walOptions.CacheBytes = logCacheBytes
	walOptions.Listener = a.metrics.Log(func(err error) { n.log.Warn("log", "err", err) })
	if a.wal, err = wal.Open(fsys.OS, a.dir.Log(), walOptions); err != nil {
		return err
	}
	a.closeLater(a.wal.Close)
	storeConfig := scopes.DefaultConfig()
	storeConfig.Committed, storeConfig.Failed = a.metrics.Committed, n.fail
	a.stores = scopes.New(storeConfig, a.dir.Scope)
	a.closeLater(a.stores.Close)

	// The mesh: identity, gossip, streams.
	identity, err := wire.LoadIdentity(fsys.OS, a.dir.Path())
	if err != nil {
		return err
	}
	if err := a.dir.Belongs(identity.NodeID()); err != nil {
		return err
	}
	a.identity = identity
	if a.mesh, err = mesh.Start(ctx, n.meshConfig(a)); err != nil {
		return err
	}
	a.closeLater(a.mesh.Close)
	a.peers = peers.New(a.mesh)
	a.closeLater(a.peers.Close)
	return nil
}

// startEngine starts the engine and opens the replicas it runs.
func (n *Node) startEngine(a *assembly) (transfers *transfer.Transfers, err error) {
	transfers = transfer.New(n.transferConfig(), a.mesh)
	if a.engine, err = consensus.New(n.engineConfig(a), a.wal, raftWire{a.mesh}, transfers); err != nil {
		return nil, err
	}
	a.table.Follow(a.follows)
	n.assemble(a, transfers)
	a.engine.Start()
	a.running.Store(true)
	a.closeLater(func() error { a.engine.Stop(); return nil })
	a.closeLater(func() error { a.host.Close(); return nil })
	return transfers, a.host.Open()
}

// serve runs the services around the engine until told to stop, or until
// something fails.
func (n *Node) serve(ctx context.Context, a *assembly) error {
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	services, run := errgroup.WithContext(run)
	for _, service := range []func(context.Context) error{
		a.lessor.Run, a.ender.Run, a.lines.Run, a.approvals.Run, a.trust.Run, a.txns.Run, a.steward.Run, a.merger.Run, a.governor.Run, a.neighbours.Run, a.exchange.Run, a.proofs.Run, a.classes.Run, a.pulse.Run, n.newCompactor(a).Run,
		a.turns.Run,
		upkeep.New(a.host, a.engine, a.table, a.requests, n.log).Run,
		func(ctx context.Context) error { return n.follow(ctx, a) },
		a.awaitFatal,
		func(context.Context) error { return a.api.Serve(a.ports.client) },
		func(context.Context) error { return a.api.Serve(a.mesh.ListenClients()) },
	} {
		services.Go(func() error { return service(run) })
	}
	if a.ports.http != nil {
		services.Go(func() error { return web.Serve(run, a.ports.http, n.webConfig(a)) })
	}
	n.serving.Store(a)
	n.log.Info("node serves", "id", a.mesh.Self().ID, "client", a.ports.client.Addr().String())

	select {
	case <-ctx.Done():
		n.log.Info("node stops")
	case <-run.Done():
	}
	n.serving.Store(nil)
	n.handOver(a)
	bounded, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	a.watches.Close()
	a.api.Stop(bounded)
	stop()
	return services.Wait()
}

// awaitFatal ends with what makes the node stop, or with ctx.
func (a *assembly) awaitFatal(ctx context.Context) error {
	select {
	case err := <-a.fatal:
		return err
	case <-ctx.Done():
		return nil
	}
}

// fail makes the node stop; only the first reason counts.
func (a *assembly) fail(err error) {
	select {
	case a.fatal <- err:
	default:
	}
}

// closeLater has f called when the node stops, before what was opened earlier is
// closed.
func (a *assembly) closeLater(f func() error) { a.closers = append(a.closers, f) }

// close closes everything in the reverse order of its opening.
func (a *assembly) close() error {
	var errs []error
	for _, f := range slices.Backward(a.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// closeListener closes a listener that its server may have closed already.
func closeListener(l net.Listener) func() error {
	return func() error { l.Close(); return nil }
}

func listenHTTP(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--http-addr: %w", err)
	}
	return l, nil
}

// raftWire carries the engine's frames.
type raftWire struct{ mesh *mesh.Mesh }

// raftClass is the class of messages that carries Raft.
const raftClass mesh.Class = 0

// Send implements consensus.Transport.
func (w raftWire) Send(to anchormesh.NodeID, frame []byte) bool {
	return w.mesh.Send(to, raftClass, frame)
}
