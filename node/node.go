package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node/config"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/dispatch"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/exchange"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/leases"
	"github.com/anchormesh/anchormesh/node/peers"
	"github.com/anchormesh/anchormesh/node/pulse"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/scopes"
	"github.com/anchormesh/anchormesh/node/steward"
	"github.com/anchormesh/anchormesh/node/telemetry"
	"github.com/anchormesh/anchormesh/node/transfer"
	"github.com/anchormesh/anchormesh/node/web"
)

// logCacheBytes of recent entries stay in memory: what followers that keep up
// still need. Those that lag are fed from the files.
const logCacheBytes = 4 << 20

// stopTimeout bounds how long requests may take once the node stops.
const stopTimeout = 3 * time.Second

// Node is one node of a mesh.
type Node struct {
	cfg     config.Config
	key     meshkey.Key
	version string
	log     *slog.Logger
	serving atomic.Pointer[assembly] // nil until everything runs
}

// assembly is everything a running node is made of, in the order of its start.
type assembly struct {
	started  time.Time
	dir      *datadir.Dir
	wal      *wal.Log
	stores   *scopes.Stores
	mesh     *mesh.Mesh
	table    *route.Table
	engine   *consensus.Engine
	host     *host.Host
	lessor   *leases.Lessor
	leases   *leases.Service
	requests *dispatch.Dispatcher
	steward  *steward.Steward
	exchange *exchange.Exchange
	pulse    *pulse.Pulse
	peers    *peers.Peers
	metrics  *telemetry.Metrics
	api      *etcdapi.Server
}

// New returns a node; it opens nothing before Run. cfg must be valid.
func New(cfg config.Config, key meshkey.Key, version string, log *slog.Logger) (*Node, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Node{cfg: cfg, key: key, version: version, log: log}, nil
}

// ErrNotServing says that the node has not started yet.
var ErrNotServing = errors.New("the node has not started yet")

// Check does one linearizable read through this node.
func (n *Node) Check(ctx context.Context) error {
	a := n.serving.Load()
	if a == nil {
		return ErrNotServing
	}
	return a.check(ctx)
}

// Run serves until ctx ends, then stops in order and returns nil. Any other end
// is an error.
func (n *Node) Run(ctx context.Context) (err error) {
	a := &assembly{started: time.Now(), table: route.NewTable()}

	// The data directory: one process at a time.
	if a.dir, err = datadir.Open(fsys.OS, n.cfg.Identity.Dir()); err != nil {
		return err
	}
	defer closing(&err, a.dir.Close)
	a.metrics = telemetry.New(n.sources(a), n.version)

	// The ports: a busy one is found before anything else is done.
	client, err := net.Listen("tcp", n.cfg.Listen.Client)
	if err != nil {
		return fmt.Errorf("--client-addr: %w", err)
	}
	defer client.Close()
	httpListener, err := listenHTTP(n.cfg.Listen.HTTP)
	if err != nil {
		return err
	}
	if httpListener != nil {
		defer httpListener.Close()
	}

	// Log and stores: what was acknowledged before the last stop.
	walOptions := wal.DefaultOptions()
	walOptions.CacheBytes = logCacheBytes
	walOptions.Listener = a.metrics.Log(func(err error) { n.log.Warn("log", "err", err) })
	if a.wal, err = wal.Open(fsys.OS, a.dir.Log(), walOptions); err != nil {
		return err
	}
	defer closing(&err, a.wal.Close)
	storeConfig := scopes.DefaultConfig()
	storeConfig.Committed = a.metrics.Committed
	a.stores = scopes.New(storeConfig, a.dir.Scope)
	defer closing(&err, a.stores.Close)

	// The mesh: identity, gossip, streams.
	if a.mesh, err = mesh.Start(ctx, n.meshConfig(a, client.Addr())); err != nil {
		return err
	}
	defer closing(&err, a.mesh.Close)
	a.peers = peers.New(a.mesh)
	defer closing(&err, a.peers.Close)

	// The engine and the replicas it runs.
	transfers := transfer.New(n.transferConfig(), a.mesh)
	if a.engine, err = consensus.New(n.engineConfig(a), a.wal, raftWire{a.mesh}, transfers); err != nil {
		return err
	}
	n.assemble(a, transfers)
	a.engine.Start()
	defer a.engine.Stop()
	defer a.host.Close()
	if err := a.host.Open(); err != nil {
		return err
	}
	n.serveMesh(a, transfers)

	// The services around them.
	if a.api, err = n.newAPI(a, client.Addr(), httpListener); err != nil {
		return err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	services, run := errgroup.WithContext(run)
	services.Go(func() error { return a.lessor.Run(run) })
	services.Go(func() error { return a.steward.Run(run) })
	services.Go(func() error { return a.exchange.Run(run) })
	services.Go(func() error { return a.pulse.Run(run) })
	services.Go(func() error { return n.newCompactor(a).Run(run) })
	services.Go(func() error { return n.follow(run, a) })
	services.Go(func() error { return a.api.Serve(client) })
	services.Go(func() error { return a.api.Serve(a.mesh.ListenClients()) })
	if httpListener != nil {
		services.Go(func() error { return web.Serve(run, httpListener, n.webConfig(a)) })
	}
	n.serving.Store(a)
	n.log.Info("node serves", "id", a.mesh.Self().ID, "client", client.Addr().String())

	// Until told to stop, or until something fails.
	select {
	case <-ctx.Done():
		n.log.Info("node stops")
	case <-run.Done():
	}
	n.serving.Store(nil)
	n.handOver(a)
	bounded, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	a.api.Stop(bounded)
	stop()
	return services.Wait()
}

// closing adds a close error to the function's own.
func closing(err *error, f func() error) { *err = errors.Join(*err, f()) }

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
