package hosttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/exchange"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/scopes"
	"github.com/anchormesh/anchormesh/node/transfer"
)

// Node is one running node. It stops with the test, or by Stop.
type Node struct {
	ID     anchormesh.NodeID
	Dir    *datadir.Dir
	Log    *wal.Log
	Stores *scopes.Stores
	Engine *consensus.Engine
	Host   *host.Host
	Table  *route.Table
	Mesh   *meshtest.Node

	t       testing.TB
	closers []func() error
}

// raftClass is the class of messages that carries Raft.
const raftClass mesh.Class = 0

// Start runs a node from its disk; t fails if it cannot.
func Start(t testing.TB, d *Disk, net *meshtest.Network, id anchormesh.NodeID) *Node {
	t.Helper()
	n, err := Open(t, d, net, id)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Open runs a node from its disk, or says why it refuses to start.
func Open(t testing.TB, d *Disk, net *meshtest.Network, id anchormesh.NodeID) (n *Node, err error) {
	n = &Node{ID: id, t: t, Table: route.NewTable(), Mesh: net.Add(id, mesh.Member{})}
	t.Cleanup(n.Stop)
	n.closers = append(n.closers, n.Mesh.Close)
	files := d.files()
	if n.Dir, err = datadir.Open(files, dataDir); err != nil {
		return nil, err
	}
	n.closers = append(n.closers, n.Dir.Close)
	options := wal.DefaultOptions()
	options.FileBytes = 128 << 10
	if n.Log, err = wal.Open(files, n.Dir.Log(), options); err != nil {
		return nil, err
	}
	n.closers = append(n.closers, n.Log.Close)
	cfg := scopes.DefaultConfig()
	cfg.CommitInterval = time.Hour // a test commits when it wants to
	n.Stores = scopes.New(cfg, func(prefix []byte) string { return d.real(n.Dir.Scope(prefix)) })
	n.closers = append(n.closers, n.Stores.Close)
	if err := n.startEngine(fmt.Sprint("boot ", d.boot)); err != nil {
		return nil, err
	}
	return n, n.Host.Open()
}

func (n *Node) startEngine(boot string) (err error) {
	ctx, stop := context.WithCancel(context.Background())
	n.closers = append(n.closers, func() error { stop(); return nil })
	quiet := slog.New(slog.DiscardHandler)
	tell := exchange.New(exchange.Config{
		Interval: time.Second, Hurry: 200 * time.Millisecond, Logger: quiet,
		Learn: func(d *anchormesh.Descriptor) error { return n.Host.Descriptor(d) },
	}, n.Mesh, n.Table)
	moves := transfer.DefaultConfig()
	moves.Logger = quiet
	transfers := transfer.New(moves, n.Mesh)
	config := consensus.DefaultConfig(n.ID)
	config.Workers, config.Replica.Keeps, config.Replica.Gates = 1, machine.MustLast, machine.Gated
	config.Listener.Stranger = func(_ anchormesh.SegmentID, from anchormesh.NodeID) { tell.From(from) }
	config.Listener.StatusChanged = func(id anchormesh.SegmentID, s consensus.Status) { n.Table.SetLeader(id, s.Leader) }
	if n.Engine, err = consensus.New(config, n.Log, wire{n.Mesh}, transfers); err != nil {
		return err
	}
	n.Table.Follow(func(id anchormesh.SegmentID) anchormesh.NodeID {
		st, _ := n.Engine.Status(id)
		return st.Leader
	})
	n.Host = host.New(host.Config{
		Self: n.ID, Limits: keyspace.DefaultLimits(), Watch: watch.DefaultLimits(), Logger: quiet, Boot: boot,
		Leases: func(anchormesh.SegmentID) func([]lease.Event) { return func([]lease.Event) {} },
		Verify: Signed,
	}, n.Dir, n.Stores, n.Engine, n.Log, n.Table)
	transfers.SetHost(n.Host)
	n.Engine.Start()
	n.closers = append(n.closers, func() error { n.Host.Close(); n.Engine.Stop(); return nil })
	n.Mesh.HandleMessages(raftClass, func(from anchormesh.NodeID, frame []byte) {
		if err := n.Engine.Receive(from, frame); err != nil {
			n.t.Error(err)
		}
	})
	n.Mesh.SetEvents(mesh.Events{PeerDown: func(id anchormesh.NodeID) {
		n.Table.ForgetNode(id)
		n.Engine.NodeLost(id)
	}})
	n.Mesh.HandleCalls(exchange.Method, tell.Serve)
	n.Mesh.HandleBulk(transfer.Protocol, transfers.Receive)
	go tell.Run(ctx)
	return nil
}

// Stop stops the node in order; it may be called twice.
func (n *Node) Stop() {
	for _, f := range slices.Backward(n.closers) {
		if err := f(); err != nil {
			n.t.Error(err)
		}
	}
	n.closers = nil
}

// wire carries the engine's frames.
type wire struct{ mesh *meshtest.Node }

// Send implements consensus.Transport.
func (w wire) Send(to anchormesh.NodeID, frame []byte) bool { return w.mesh.Send(to, raftClass, frame) }

// Put writes through the node's replica of a segment, which must lead or come to
// lead, and returns when it is acknowledged.
func (n *Node) Put(segment anchormesh.SegmentID, key, value string) {
	n.t.Helper()
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		n.t.Fatal(err)
	}
	command := keyspace.AppendCommand(nil, keyspace.OpPut, raw)
	for begin := time.Now(); ; {
		err := n.propose(segment, command)
		if err == nil {
			return
		}
		refused := errors.Is(err, consensus.ErrNotLeader) || errors.Is(err, consensus.ErrDropped) || errors.Is(err, consensus.ErrNoGroup)
		if !refused || time.Since(begin) > time.Minute {
			n.t.Fatalf("put of %q: %v", key, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (n *Node) propose(segment anchormesh.SegmentID, command []byte) error {
	r, ok := n.Host.Get(segment)
	if !ok {
		return consensus.ErrNoGroup
	}
	done := make(chan error, 1)
	n.Engine.Propose(segment, r.Machine.Descriptor().Generation, slices.Clone(command), func(res consensus.Result) { done <- res.Err })
	return <-done
}

// Govern puts a policy in force at the home of a scope, in which this node votes alone.
func (n *Node) Govern(segment anchormesh.SegmentID, p *policy.Policy) {
	n.t.Helper()
	r, _ := n.Host.Get(segment)
	s := r.Machine.State()
	newest, d := s.Scope.Newest().Number, s.Descriptor
	err := n.propose(segment, machine.Propose(&scope.Proposal{Kind: scope.Amend, Subject: d.Scope, Base: newest, Version: newest + 1, Policy: p}))
	if open := r.Machine.State().Scope.Open; err == nil && len(open) > 0 {
		wanted := open[len(open)-1]
		v := &scope.Vote{Node: n.ID, Approve: true, Signature: Signature(n.ID, wanted.Statement(d.Mesh, segment, true))}
		err = n.propose(segment, machine.CastVote(wanted.ID, v))
	}
	if now := r.Machine.State().Scope.Newest().Number; err != nil || now != newest+1 {
		n.t.Fatalf("policy of segment %s: version %d, %v", segment, now, err)
	}
}

// Get reads a key from the node's replica as it is.
func (n *Node) Get(segment anchormesh.SegmentID, key string) (value string, ok bool) {
	n.t.Helper()
	r, here := n.Host.Get(segment)
	if !here {
		return "", false
	}
	v := r.Machine.Segment().Read()
	defer v.Close()
	found, err := v.Range([]byte(key), nil, 0, 0, false)
	if err != nil {
		n.t.Fatal(err)
	}
	if len(found.KVs) == 0 {
		return "", false
	}
	return string(found.KVs[0].Value()), true
}

// Commit writes to the stores what was applied.
func (n *Node) Commit(segment anchormesh.SegmentID) {
	n.t.Helper()
	r, ok := n.Host.Get(segment)
	if !ok {
		n.t.Fatalf("%s holds no replica of %s", n.ID, segment)
	}
	if err := r.Store.Commit(); err != nil {
		n.t.Fatal(err)
	}
}

// Hash is the hash of a replica's history.
func (n *Node) Hash(segment anchormesh.SegmentID) string {
	r, ok := n.Host.Get(segment)
	if !ok {
		return "absent"
	}
	h, err := r.Machine.Space().HashKV(0)
	return fmt.Sprintf("%+v %v", h, err)
}

// Signature is what a node of these tests signs a statement with.
func Signature(node anchormesh.NodeID, statement []byte) []byte {
	sum := sha256.Sum256(append([]byte(node+" signs "), statement...))
	return sum[:]
}

// Signed is a machine.Verify.
func Signed(node anchormesh.NodeID, statement, signature []byte) bool {
	return bytes.Equal(signature, Signature(node, statement))
}

// Sign returns what signs as the node.
func (n *Node) Sign(statement []byte) ([]byte, error) { return Signature(n.ID, statement), nil }

// Join makes voters of nodes in a segment that n leads, one after the other.
func (n *Node) Join(segment anchormesh.SegmentID, nodes ...*Node) {
	n.t.Helper()
	for _, other := range nodes {
		r, _ := n.Host.Get(segment)
		d := r.Machine.Descriptor().Clone()
		id := d.NextReplica
		d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: other.ID, Replica: id, Role: anchormesh.Learner})
		d.NextReplica++
		n.change(segment, d, raftpb.ConfChangeAddLearnerNode, id)
		Eventually(n.t, time.Minute, "replica on "+string(other.ID), func() bool {
			r, here := other.Host.Get(segment)
			return here && r.Machine.Descriptor().Changed >= n.descriptor(segment).Changed
		})
		d = n.descriptor(segment).Clone()
		d.Anchors[len(d.Anchors)-1].Role = anchormesh.Voter
		n.change(segment, d, raftpb.ConfChangeAddNode, id)
	}
}

func (n *Node) descriptor(segment anchormesh.SegmentID) *anchormesh.Descriptor {
	r, _ := n.Host.Get(segment)
	return r.Machine.Descriptor()
}

func (n *Node) change(segment anchormesh.SegmentID, next *anchormesh.Descriptor, kind raftpb.ConfChangeType, id anchormesh.ReplicaID) {
	n.t.Helper()
	cc := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: kind.Enum(), NodeId: new(uint64(id))}}}
	done := make(chan error, 1)
	Eventually(n.t, time.Minute, "change of the group", func() bool {
		n.Engine.ChangeConf(segment, next.Generation, cc, meshpb.EncodeDescriptor(next), func(res consensus.Result) { done <- res.Err })
		err := <-done
		if err != nil && !errors.Is(err, consensus.ErrConfChangePending) {
			n.t.Fatal(err)
		}
		return err == nil
	})
}

// Eventually waits, in the bubble's time, until cond holds.
func Eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for begin := time.Now(); !cond(); {
		if time.Since(begin) > limit {
			t.Fatalf("no %s within %v", what, limit)
		}
		<-time.After(20 * time.Millisecond)
	}
}
