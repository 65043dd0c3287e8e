package node

import (
	"net"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/admin"
	"github.com/anchormesh/anchormesh/node/approvals"
	"github.com/anchormesh/anchormesh/node/classes"
	"github.com/anchormesh/anchormesh/node/compactor"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/dispatch"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/exchange"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/leases"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/merger"
	"github.com/anchormesh/anchormesh/node/pairing"
	"github.com/anchormesh/anchormesh/node/proofs"
	"github.com/anchormesh/anchormesh/node/stamps"
	"github.com/anchormesh/anchormesh/node/steward"
	"github.com/anchormesh/anchormesh/node/transfer"
	"github.com/anchormesh/anchormesh/node/trust"
	"github.com/anchormesh/anchormesh/node/txns"
	"github.com/anchormesh/anchormesh/node/watches"
	"github.com/anchormesh/anchormesh/node/web"
)

func (n *Node) meshConfig(a *assembly) mesh.Config {
	listen := n.cfg.Listen
	listen.Client = a.ports.client.Addr().String()
	local, err := net.InterfaceAddrs()
	if err != nil {
		local = nil // then loopback is advertised
	}
	told := n.cfg.Advertise.Resolve(listen, local)
	links := wire.DefaultLimits()
	links.KeepAlive = keepAlive
	return mesh.Config{
		Wire: links, Key: n.key, DataDir: a.dir.Path(), Name: n.cfg.Identity.Name, Zone: n.cfg.Identity.Zone,
		Version: n.version, Mesh: a.dir.Record().Mesh,
		PeerAddr: n.cfg.Listen.Peer, AdvertisePeer: n.cfg.Advertise.Peer,
		GossipAddr: n.cfg.Listen.Gossip, AdvertiseGossip: n.cfg.Advertise.Gossip,
		ClientURLs: told.ClientURLs, Join: n.cfg.Mesh.Join, Logger: n.log,
		Events: mesh.Events{
			// A node of another mesh is loud already in the mesh's own log.
			PeerDown:      func(id anchormesh.NodeID) { n.peerDown(a, id) },
			IdentityInUse: func(string) { a.fail(ErrIdentityInUse) },
		},
	}
}

// keepAlive is how often an idle connection to a node is tried. A node that fell
// silent without closing its connections is given up after two of these at the
// latest, and nobody forwards to it any more. Shorter would take a busy machine
// for a dead one.
const keepAlive = time.Second

// peerDown lets the groups led from a node that is gone elect at once. The
// connection may only have blinked: then the election fails or moves the
// leadership, both at no harm.
func (n *Node) peerDown(a *assembly, id anchormesh.NodeID) {
	if !a.running.Load() {
		return // no group that could have lost it
	}
	n.log.Debug("connection to a node ended", "node", id.Short())
	a.table.ForgetNode(id)
	a.engine.NodeLost(id)
}

// follows is whom a segment's replica here follows; empty if there is none.
func (a *assembly) follows(id anchormesh.SegmentID) anchormesh.NodeID {
	st, _ := a.engine.Status(id)
	return st.Leader
}

func (n *Node) engineConfig(a *assembly) consensus.Config {
	cfg := consensus.DefaultConfig(a.mesh.Self().ID)
	cfg.Tick = n.cfg.Raft.Heartbeat
	cfg.ElectionTicks = max(2, int(n.cfg.Raft.Election/n.cfg.Raft.Heartbeat))
	cfg.KeepEntries = n.cfg.Raft.SnapshotCount
	cfg.Replica.Keeps, cfg.Replica.Gates = machine.MustLast, machine.Gated
	cfg.Listener = a.metrics.Consensus()
	cfg.Listener.Failed = n.fail
	counted := cfg.Listener.StatusChanged
	cfg.Listener.StatusChanged = func(id anchormesh.SegmentID, s consensus.Status) {
		counted(id, s)
		a.table.SetLeader(id, s.Leader)
		a.lessor.StatusChanged(id, s)
		a.lines.StatusChanged(id, s)
		a.approvals.Changed(id)
		if s.Leads() {
			n.log.Info("this node leads", "segment", id, "term", s.Term)
			a.steward.Kick()
		}
	}
	cfg.Listener.Stranger = func(_ anchormesh.SegmentID, from anchormesh.NodeID) { a.exchange.From(from) }
	return cfg
}

func (n *Node) transferConfig() transfer.Config {
	cfg := transfer.DefaultConfig()
	cfg.Logger = n.log
	return cfg
}

// assemble makes what stands between API and engine. Nothing runs yet.
func (n *Node) assemble(a *assembly, transfers *transfer.Transfers) {
	self := a.mesh.Self().ID
	a.verifier = newVerifier()
	limits := keyspace.DefaultLimits()
	limits.QuotaBytes = n.cfg.Limits.Quota()
	watchLimits := watch.DefaultLimits()
	watchLimits.ProgressInterval = n.cfg.Watch.ProgressInterval
	a.host = host.New(host.Config{
		Self: self, Limits: limits, Watch: watchLimits, Logger: n.log,
		Leases:  func(id anchormesh.SegmentID) func([]lease.Event) { return a.lessor.Follow(id) },
		Changed: a.recordChanged,
		Boot:    datadir.ThisBoot(),
		Held:    a.held,
		Verify:  a.verifier.Verify,
		Agreed:  true,
		Forged:  func(id anchormesh.SegmentID, term uint64, err error) { n.forged(a, id, term, err) },
	}, a.dir, a.stores, a.engine, a.wal, a.table)
	transfers.SetHost(a.host)
	leaseConfig := lease.DefaultConfig()
	leaseConfig.Extend = n.cfg.Raft.Election
	a.lines = n.newLines(a)
	a.approvals = n.newApprovals(a)
	a.trust = n.newTrust(a)
	a.txns = n.newTxns(a)
	a.lessor = leases.New(leaseConfig, a.host, a.engine, a.txns, func() { a.ender.Wake() })
	a.leases = leases.NewService(self, a.lessor, a.host, a.engine, a.table, a.mesh)
	a.requests = dispatch.New(self, a.host, a.engine, a.table, a.mesh, a.leases, a.peers, a.lines, a.txns, a.approvals)
	a.ender = leases.NewEnder(a.host, a.engine, a.requests)
	a.leases.SetEnder(a.ender)
	a.proofs = n.newProofs(a)
	a.pulse = n.newPulse(a)
	a.neighbours = n.newNeighbours(a)
	a.steward = n.newSteward(a)
	a.leaving.Store(a.host.Leaving())
	a.governor = n.newGovernor(a)
	a.classes = classes.New(classes.Config{Self: self, Forgot: a.steward.Forgot, Dead: a.governor.ReportDead, Logger: n.log}, a.host, a.engine, a.table, a.mesh)
	a.merger = merger.New(merger.Config{Self: self, Logger: n.log, Ended: a.metrics.Structure().Merged, Agree: a.approvals.Agree}, a.host, a.engine, a.table, a.mesh)
	a.pairing = n.newPairing(a)
	a.turns = n.newTurns(a)
	a.exchange = exchange.New(exchange.Config{
		Interval: time.Second, Hurry: 200 * time.Millisecond, Logger: n.log, Learn: a.host.Descriptor,
	}, a.mesh, a.table)
}

// serveMesh opens the node to other nodes.
func (n *Node) serveMesh(a *assembly, transfers *transfer.Transfers) {
	a.mesh.HandleMessages(raftClass, func(from anchormesh.NodeID, frame []byte) {
		if err := a.engine.Receive(from, frame); err != nil && n.noise.Allow(string(from)) {
			n.log.Warn("raft frame refused", "from", from.Short(), "err", err)
		}
	})
	a.mesh.HandleCalls(dispatch.Method, a.requests.Serve)
	a.mesh.HandleCalls(dispatch.CommandMethod, a.requests.ServeCommand)
	a.mesh.HandleCalls(exchange.Method, a.exchange.Serve)
	a.mesh.HandleCalls(leases.Method, a.leases.Serve)
	a.mesh.HandleCalls(steward.Method, a.steward.Serve)
	a.mesh.HandleCalls(stamps.Method, a.lines.Serve)
	a.mesh.HandleCalls(approvals.Method, a.approvals.Serve)
	a.mesh.HandleCalls(trust.Method, a.trust.Serve)
	a.mesh.HandleCalls(merger.Method, a.merger.Serve)
	a.mesh.HandleCalls(governor.Method, a.governor.Serve)
	a.mesh.HandleCalls(pairing.Method, a.pairing.Serve)
	a.mesh.HandleCalls(txns.Method, a.txns.Serve)
	a.mesh.HandleCalls(proofs.Method, a.proofs.Serve)
	a.mesh.HandleCalls(classes.Method, a.classes.Serve)
	a.mesh.HandleNews(a.neighbours.Hear)
	a.mesh.HandleBulk(transfer.Protocol, transfers.Receive)
}

func (n *Node) newAPI(a *assembly) (*etcdapi.Server, error) {
	cfg := etcdapi.DefaultConfig()
	cfg.Logger, cfg.Listener = n.log, a.metrics.API()
	cfg.MaxRequestBytes, cfg.MaxTxnOps = int(n.cfg.Limits.RequestBytes), int(n.cfg.Limits.TxnOps)
	cfg.ElectionTimeout = n.cfg.Raft.Election
	b := &backends{assembly: a, self: a.mesh.Self().ID, quota: n.cfg.Limits.Quota(), log: n.log}
	a.watches = watches.New(watches.Config{
		Self: b.self, ProgressInterval: n.cfg.Watch.ProgressInterval, Logger: n.log, Connected: a.mesh.Connected,
	}, a.host, a.engine, a.table, a.lines, a.peers)
	api, err := etcdapi.New(cfg, etcdapi.Backends{
		Requests: a.requests, Leases: a.leases, Cluster: b, Maintenance: b, Node: b,
		Watches: a.watches,
	})
	if err != nil {
		return nil, err
	}
	a.watches.Register(api)
	addresses := &meshpb.Addresses{Client: a.ports.client.Addr().String(), Peer: n.cfg.Listen.Peer, Gossip: n.cfg.Listen.Gossip}
	if a.ports.http != nil {
		addresses.Http = a.ports.http.Addr().String()
	}
	meshpb.RegisterMeshServer(api, admin.New(admin.Config{
		Mesh: a.mesh, Host: a.host, Engine: a.engine, Table: a.table, Addresses: addresses, Started: a.started,
		Order: a.ordered, Steward: a.steward, Peers: a.peers, Merger: a.merger, Proofs: a.proofs, Hasher: a,
		Check: a.ready, Figures: b.figures, Load: a.judged,
		Nodes:      func() []place.Node { return a.steward.Nodes(time.Now()) },
		SetLeaving: func(leaving bool) error { return n.setLeaving(a, leaving) },
	}))
	meshpb.RegisterScopesServer(api, n.newCharter(a))
	api.SetServing(true)
	return api, nil
}

func (n *Node) newCompactor(a *assembly) *compactor.Compactor {
	period, revisions, err := n.cfg.Compaction.Parse()
	if err != nil {
		panic("node: configuration was not validated: " + err.Error())
	}
	return compactor.New(compactions{a}, period, revisions, n.log)
}

func (n *Node) webConfig(a *assembly) web.Config {
	cfg := web.Default()
	cfg.Checks = []web.Check{{Name: "read", Func: a.ready}}
	cfg.Metrics, cfg.Pprof, cfg.Logger = a.metrics.Handler(), n.cfg.Listen.Pprof, n.log
	return cfg
}
