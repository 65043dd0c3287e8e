package shard

import (
	"errors"
	"flag"
	"fmt"
	"math/rand"
	"testing"
	"testing/cryptotest"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// cluster is a few nodes with a few groups each, on one goroutine: a network
// that loses, doubles, delays and cuts, and logs that forget what was not
// synced when a node crashes.
type cluster struct {
	t      *testing.T
	rng    *rand.Rand
	nodes  []*testNode
	groups int
	wire   []packet
	cut    map[[2]int]bool // one-way
	loss   float64

	committed []map[uint64]string     // by group: index -> contents, as first seen
	outcomes  map[string]int          // payload -> times its waiter was called
	applied   map[string]bool         // payload -> some node applied it
	results   map[string]error        // payload -> how it ended
	doneAt    []uint64                // by group: highest index of an acknowledged write
	leaders   map[[2]uint64]replicaOn // (group, term) -> leader
	seq       int
	boots     uint64
	sleep     int    // ticks after which groups sleep; 0 is never
	most      int    // groups that may be awake on a node before others wait; 0: as usual
	events    int    // so far
	losses    []loss // ends of connections that one side has not noticed yet
	votes     int    // of replicas without state
	slept     int    // times a group fell asleep
}

// loss is a node that another one has lost sight of.
type loss struct{ at, of int }

type replicaOn struct{ node int }

type packet struct {
	from, to int
	data     []byte
}

type testNode struct {
	id      int
	up      bool
	bare    bool // its replicas have no state
	shard   *Shard
	inbox   Inbox
	storage []*diskLog
	applied []uint64
	pending []Append // written, not yet synced
	reads   []ReadReady
}

// diskLog is raft's storage with a configuration that never changes.
type diskLog struct {
	*raft.MemoryStorage
	conf *raftpb.ConfState
}

func (d *diskLog) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, _, err := d.MemoryStorage.InitialState()
	return hs, d.conf, err
}

var (
	firstSeed = flag.Int64("seed", 1, "first seed of the random runs")
	seedCount = flag.Int64("seeds", 40, "number of random runs")
)

func nodeID(i int) anchormesh.NodeID { return anchormesh.NodeID(fmt.Sprintf("node-%d", i)) }

func newCluster(t *testing.T, seed int64, nodes, groups, sleep int) *cluster {
	cryptotest.SetGlobalRandom(t, uint64(seed))
	c := &cluster{
		t: t, rng: rand.New(rand.NewSource(seed)), groups: groups, sleep: sleep, cut: map[[2]int]bool{},
		outcomes: map[string]int{}, applied: map[string]bool{}, results: map[string]error{},
		doneAt: make([]uint64, groups), leaders: map[[2]uint64]replicaOn{},
	}
	for range groups {
		c.committed = append(c.committed, map[uint64]string{})
	}
	conf := &raftpb.ConfState{}
	for i := range nodes {
		conf.Voters = append(conf.Voters, uint64(i+1))
	}
	for i := range nodes {
		n := &testNode{id: i}
		for range groups {
			n.storage = append(n.storage, &diskLog{raft.NewMemoryStorage(), conf})
		}
		c.nodes = append(c.nodes, n)
		c.boot(n)
	}
	return c
}

// boot starts a node from its logs; nothing is applied yet, so all is replayed.
func (c *cluster) boot(n *testNode) {
	c.bare(n)
	for g := range c.groups {
		c.join(n, g)
	}
}

// bare starts a node on which no group runs.
func (c *cluster) bare(n *testNode) {
	n.up, n.bare, n.shard, n.inbox, n.pending, n.reads = true, false, New(), Inbox{}, nil, nil
	n.applied = make([]uint64, c.groups)
	n.shard.SleepAfter(c.sleep)
	if c.most > 0 {
		n.shard.AwakeAtMost(c.most)
	}
}

// join starts one group on a node.
func (c *cluster) join(n *testNode, g int) {
	peers := map[anchormesh.ReplicaID]anchormesh.NodeID{}
	for i := range n.storage[0].conf.Voters {
		peers[anchormesh.ReplicaID(i+1)] = nodeID(i)
	}
	cfg := replica.DefaultConfig()
	cfg.ID, cfg.Storage, cfg.MaxBatchRequests = anchormesh.ReplicaID(n.id+1), n.storage[g], 3
	c.boots++
	cfg.Boot = c.boots
	r, err := replica.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	n.shard.Add(anchormesh.SegmentID(g+1), r, peers)
}

// absent starts a node whose replicas have lost their states, and kept their logs.
func (c *cluster) absent(n *testNode) {
	c.bare(n)
	n.bare = true
	for g := range c.groups {
		n.shard.AddAbsent(anchormesh.SegmentID(g+1), anchormesh.ReplicaID(n.id+1), n.storage[g], 10)
	}
}

// restore gives them their states again.
func (c *cluster) restore(n *testNode) {
	for g := range c.groups {
		n.shard.Hush(anchormesh.SegmentID(g + 1))
	}
	c.sync(n, len(n.pending))
	inbox := n.inbox
	c.boot(n)
	n.inbox.Messages = inbox.Messages
}

func (c *cluster) crash(n *testNode) {
	n.up = false
	c.loses(n.id)
	for g := range c.groups {
		n.shard.Remove(anchormesh.SegmentID(g + 1))
	}
}

// loses ends the connections of a node: all others will notice, in a while.
func (c *cluster) loses(node int) {
	for _, other := range c.nodes {
		if other.id != node {
			c.losses = append(c.losses, loss{other.id, node})
		}
	}
}

// notice lets one node notice an end.
func (c *cluster) notice() {
	if len(c.losses) == 0 {
		return
	}
	i := c.rng.Intn(len(c.losses))
	l := c.losses[i]
	c.losses = append(c.losses[:i], c.losses[i+1:]...)
	if n := c.nodes[l.at]; n.up {
		n.inbox.Commands = append(n.inbox.Commands, func(s *Shard) { s.NodeLost(nodeID(l.of)) })
	}
}

// step runs one node once.
func (c *cluster) step(n *testNode) {
	fx := n.shard.Step(&n.inbox)
	n.inbox = Inbox{}
	c.post(n.id, fx.Frames)
	n.pending = append(n.pending, fx.Appends...)
	for _, a := range fx.Applies {
		c.apply(n, a)
	}
	n.reads = append(n.reads, fx.Reads...)
	kept := n.reads[:0]
	for _, r := range n.reads {
		if n.applied[r.Segment-1] >= r.Index {
			r.Done(r.Index, nil)
		} else {
			kept = append(kept, r)
		}
	}
	n.reads = kept
	for _, s := range fx.Sleeps {
		if s.Asleep {
			c.slept++
		}
	}
	for _, s := range fx.Statuses {
		if s.Role == raft.StateLeader {
			key := [2]uint64{uint64(s.Segment), s.Term}
			if old, ok := c.leaders[key]; ok && old.node != n.id {
				c.t.Fatalf("group %d has two leaders in term %d: nodes %d and %d", s.Segment, s.Term, old.node, n.id)
			}
			c.leaders[key] = replicaOn{n.id}
		}
	}
}

// sync makes some of a node's writes durable, in order, and says so.
func (c *cluster) sync(n *testNode, count int) {
	for _, a := range n.pending[:count] {
		log := n.storage[a.Segment-1]
		if a.HardState != nil && a.Sync {
			if err := log.SetHardState(a.HardState); err != nil {
				c.t.Fatal(err)
			}
		}
		if err := log.Append(a.Entries); err != nil {
			c.t.Fatal(err)
		}
		if n.bare {
			c.votes++
		}
		c.post(n.id, a.Frames)
		n.inbox.Appended = append(n.inbox.Appended, a.Done)
	}
	n.pending = append([]Append(nil), n.pending[count:]...)
}

func (c *cluster) post(from int, frames []Frame) {
	for _, f := range frames {
		for to := range c.nodes {
			if nodeID(to) == f.To {
				c.wire = append(c.wire, packet{from, to, append([]byte(nil), f.Data...)})
			}
		}
	}
}

func (c *cluster) deliver() {
	if len(c.wire) == 0 {
		return
	}
	i := c.rng.Intn(min(len(c.wire), 3)) // a little reordering
	p := c.wire[i]
	if c.rng.Float64() >= c.loss/4 { // else it comes again
		c.wire = append(c.wire[:i], c.wire[i+1:]...)
	}
	n := c.nodes[p.to]
	if !n.up || c.cut[[2]int{p.from, p.to}] || c.rng.Float64() < c.loss {
		return
	}
	err := message.Decode(p.data, func(s anchormesh.SegmentID, m *raftpb.Message) {
		if n.bare && m.GetType() == raftpb.MsgApp {
			return // nobody sends states here, and without one it would be sent the log again and again
		}
		n.inbox.Messages = append(n.inbox.Messages, Inbound{From: nodeID(p.from), Segment: s, Message: m})
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) apply(n *testNode, a Apply) {
	g := int(a.Segment - 1)
	for _, e := range a.Entries {
		if e.Index != n.applied[g]+1 {
			c.t.Fatalf("node %d group %d applies %d after %d", n.id, g, e.Index, n.applied[g])
		}
		n.applied[g] = e.Index
		body := fmt.Sprintf("%d %q", e.Term, e.Payloads)
		if old, ok := c.committed[g][e.Index]; ok && old != body {
			c.t.Fatalf("group %d index %d: node %d has %s, others had %s", g, e.Index, n.id, body, old)
		}
		c.committed[g][e.Index] = body
		for _, p := range e.Payloads {
			c.applied[string(p)] = true
		}
		for _, done := range e.Waiters {
			done(replica.Result{Index: e.Index, Term: e.Term})
		}
	}
	n.inbox.Applied = append(n.inbox.Applied, a.Done)
}

func (c *cluster) propose(n *testNode) {
	g := c.rng.Intn(c.groups)
	c.seq++
	name := fmt.Sprintf("p%d", c.seq)
	n.inbox.Proposals = append(n.inbox.Proposals, Proposal{
		Segment: anchormesh.SegmentID(g + 1),
		Proposal: replica.Proposal{Generation: 1, Payload: []byte(name), Done: func(r replica.Result) {
			c.outcomes[name]++
			c.results[name] = r.Err
			if r.Err == nil {
				c.doneAt[g] = max(c.doneAt[g], r.Index)
			}
		}},
	})
}

// read asks for a linearizable read: its index must not lie below any write
// that was acknowledged before it was asked for.
func (c *cluster) read(n *testNode) {
	g := c.rng.Intn(c.groups)
	floor := c.doneAt[g]
	n.inbox.Reads = append(n.inbox.Reads, Read{Segment: anchormesh.SegmentID(g + 1), Done: func(index uint64, err error) {
		if err == nil && index < floor {
			c.t.Fatalf("group %d: node %d reads at %d, but %d was acknowledged before", g, n.id, index, floor)
		}
	}})
}

func (c *cluster) event() {
	n := c.nodes[c.rng.Intn(len(c.nodes))]
	c.events++
	k := c.rng.Intn(100)
	if c.sleep > 0 && c.events/1000%2 == 1 && k >= 60 && k < 80 && c.rng.Intn(60) > 0 {
		k = []int{0, 0, 0, 0, 0, 0, 50, 79}[c.rng.Intn(8)] // calm: messages arrive instead of requests
	}
	switch {
	case k < 45:
		c.deliver()
	case k < 60 && n.up && len(n.pending) > 0:
		c.sync(n, 1+c.rng.Intn(len(n.pending)))
	case k < 68 && n.up:
		c.propose(n)
	case k < 72 && n.up:
		c.read(n)
	case k < 80 && n.up:
		n.inbox.Ticks++
	case k == 80 && c.rng.Intn(10) == 0:
		if n.up {
			c.crash(n)
		}
	case k == 81 && !n.up && c.rng.Intn(3) == 0:
		c.absent(n)
	case k == 81 && !n.up:
		c.boot(n)
	case k == 81 && n.bare:
		c.restore(n)
	case k == 82 && c.rng.Intn(8) == 0:
		to := c.rng.Intn(len(c.nodes))
		c.cut[[2]int{n.id, to}] = true
		c.losses = append(c.losses, loss{n.id, to}, loss{to, n.id}) // pings fail both ways
	case k == 83 && c.rng.Intn(4) == 0:
		c.cut = map[[2]int]bool{}
	case k == 84 && n.up && c.rng.Intn(10) == 0:
		n.shard.NodeLost(nodeID(c.rng.Intn(len(c.nodes))))
	case k >= 85 && k < 88:
		c.notice()
	}
	if n.up {
		c.step(n)
	}
}

// heal stops all faults and runs until every group has applied everything on
// every node.
func (c *cluster) heal() {
	c.cut, c.loss = map[[2]int]bool{}, 0
	for len(c.losses) > 0 {
		c.notice()
	}
	for _, n := range c.nodes {
		if !n.up {
			c.boot(n)
		} else if n.bare {
			c.restore(n)
		}
	}
	c.until("groups did not converge after all faults were healed", func(round int) bool { return round > 200 && c.converged() })
	if c.sleep > 0 {
		c.until("groups did not fall asleep", func(int) bool { return c.asleep() == len(c.nodes)*c.groups })
		c.touch()
	}
}

// until lets time pass until something is the case.
func (c *cluster) until(what string, holds func(round int) bool) {
	for round := range 4000 {
		if holds(round) {
			return
		}
		c.round()
	}
	c.t.Fatal(what)
}

// round lets a tick pass, in which messages go there, back, and on.
func (c *cluster) round() {
	for _, n := range c.nodes {
		n.inbox.Ticks++
	}
	for range 6 {
		for len(c.wire) > 0 {
			c.deliver()
		}
		for _, n := range c.nodes {
			if n.up {
				c.step(n)
				c.sync(n, len(n.pending))
				c.step(n)
			}
		}
	}
}

func (c *cluster) asleep() (n int) {
	for _, node := range c.nodes {
		n += node.shard.Asleep()
	}
	return n
}

// touch reads every group from every node; most sleep.
func (c *cluster) touch() {
	for _, n := range c.nodes {
		for g := range c.groups {
			answered := false
			n.inbox.Reads = append(n.inbox.Reads, Read{Segment: anchormesh.SegmentID(g + 1), Done: func(index uint64, err error) {
				answered = true
				if err != nil || index < c.doneAt[g] {
					c.t.Errorf("group %d: node %d reads at %d after %d was acknowledged: %v", g, n.id, index, c.doneAt[g], err)
				}
			}})
			c.until("a sleeping group does not answer", func(round int) bool {
				if round > 10 && !answered {
					c.t.Fatalf("group %d: node %d waits for a read for %d ticks", g, n.id, round)
				}
				return answered
			})
		}
	}
}

func (c *cluster) converged() bool {
	for g := range c.groups {
		for _, n := range c.nodes {
			if n.applied[g] == 0 || n.applied[g] != c.nodes[0].applied[g] {
				return false
			}
		}
	}
	return true
}

// check: every proposal ended exactly once, and truthfully.
func (c *cluster) check() {
	for i := 1; i <= c.seq; i++ {
		name := fmt.Sprintf("p%d", i)
		err := c.results[name]
		switch {
		case c.outcomes[name] > 1:
			c.t.Errorf("%s ended %d times", name, c.outcomes[name])
		case c.outcomes[name] == 0 && c.applied[name]:
			// It was in the inbox or on an entry of a node that crashed; nobody
			// there can be told.
		case c.outcomes[name] == 0:
		case err == nil && !c.applied[name]:
			c.t.Errorf("%s was acknowledged and is nowhere", name)
		case errors.Is(err, replica.ErrUnknown):
		case err != nil && c.applied[name]:
			c.t.Errorf("%s was applied, but its client heard %q", name, err)
		}
	}
}

func TestRandomFaultsKeepEveryPromise(t *testing.T) {
	slept, mayHave, votes := 0, 0, 0
	for seed := *firstSeed; seed < *firstSeed+*seedCount; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			c := randomFaults(t, seed)
			votes += c.votes
			if c.sleep > 0 {
				mayHave++
			}
			if c.slept > 0 {
				slept++
			}
		})
	}
	if slept < mayHave/2 {
		t.Errorf("groups slept between the faults in %d runs of %d only: the others show nothing of it", slept, mayHave)
	}
	if votes < int(*seedCount)/2 {
		t.Errorf("replicas without state voted %d times in %d runs: they show little of it", votes, *seedCount)
	}
}

func randomFaults(t *testing.T, seed int64) *cluster {
	rng := rand.New(rand.NewSource(seed))
	nodes, groups := []int{1, 3, 3, 5}[rng.Intn(4)], 1+rng.Intn(4)
	c := newCluster(t, seed, nodes, groups, []int{0, 2, 4}[seed%3])
	c.loss = []float64{0, 0.02, 0.15}[rng.Intn(3)]
	for range 20_000 {
		c.event()
	}
	slept := c.slept
	c.heal()
	c.check()
	c.slept = slept
	acknowledged := 0
	for _, err := range c.results {
		if err == nil {
			acknowledged++
		}
	}
	if acknowledged == 0 {
		t.Errorf("seed %d: nothing was acknowledged out of %d proposals: the run shows nothing", seed, c.seq)
	}
	return c
}
