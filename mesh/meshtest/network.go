package meshtest

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
)

// Link is how the network carries what one node sends to another. The zero Link
// is perfect.
type Link struct {
	Delay  time.Duration // of everything
	Jitter time.Duration // up to so much more, drawn for each; order is kept
	Loss   float64       // share of messages lost
	Reset  float64       // share of requests whose connection ends: half of them before, half after they are served
	Cut    bool          // nothing passes
}

// Network carries what its nodes send. All methods may be called at any time.
type Network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	nodes map[anchormesh.NodeID]*Node
	links map[pair]Link
	pipes map[pair]*pipe
	made  uint64
}

type pair struct{ from, to anchormesh.NodeID }

// NewNetwork returns a network whose losses and jitter follow the seed. They
// replay exactly only if the nodes send in the same order.
func NewNetwork(seed uint64) *Network {
	return &Network{
		rng:   rand.New(rand.NewPCG(seed, 0)),
		nodes: make(map[anchormesh.NodeID]*Node),
		links: make(map[pair]Link),
		pipes: make(map[pair]*pipe),
	}
}

// Add makes a node. Every node sees it alive at once. The name is its node ID.
func (n *Network) Add(id anchormesh.NodeID, self mesh.Member) *Node {
	n.mu.Lock()
	n.made++
	self.ID, self.State, self.Since = id, mesh.Alive, time.Now()
	self.Boot, self.Epoch = n.made, n.made<<32
	if self.Name == "" {
		self.Name = string(id)
	}
	node := newNode(n, self)
	old := n.nodes[id]
	n.nodes[id] = node
	members := map[anchormesh.NodeID]mesh.Member{}
	for other, o := range n.nodes {
		members[other] = o.self()
	}
	others := n.othersLocked(id)
	n.mu.Unlock()
	if old != nil {
		old.stop() // a restart
	}
	for _, m := range members {
		node.learn(m)
	}
	for _, o := range others {
		o.learn(self)
	}
	return node
}

func (n *Network) othersLocked(id anchormesh.NodeID) []*Node {
	var out []*Node
	for other, o := range n.nodes {
		if other != id {
			out = append(out, o)
		}
	}
	slices.SortFunc(out, func(a, b *Node) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	return out
}

// SetLink changes one direction.
func (n *Network) SetLink(from, to anchormesh.NodeID, l Link) {
	n.mu.Lock()
	was := n.links[pair{from, to}]
	n.links[pair{from, to}] = l
	a, b := n.nodes[from], n.nodes[to]
	n.mu.Unlock()
	if a == nil || b == nil || was.Cut == l.Cut {
		return
	}
	a.reachable(to, n)
	b.reachable(from, n)
}

// Link returns one direction.
func (n *Network) Link(from, to anchormesh.NodeID) Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.links[pair{from, to}]
}

// Cut stops what from sends to to; the other direction goes on. A connection
// needs both, so calls, bulk and client streams between the two end.
func (n *Network) Cut(from, to anchormesh.NodeID) {
	l := n.Link(from, to)
	l.Cut = true
	n.SetLink(from, to, l)
}

// Heal undoes Cut.
func (n *Network) Heal(from, to anchormesh.NodeID) {
	l := n.Link(from, to)
	l.Cut = false
	n.SetLink(from, to, l)
}

// Partition cuts every link between the groups, both ways, and heals every link
// within one.
func (n *Network) Partition(groups ...[]anchormesh.NodeID) {
	for i, g := range groups {
		for _, a := range g {
			for j, h := range groups {
				for _, b := range h {
					if a == b {
						continue
					}
					if i == j {
						n.Heal(a, b)
					} else {
						n.Cut(a, b)
					}
				}
			}
		}
	}
}

// Observe makes what observer's failure detector says: detection is modelled,
// not run, so that it can be wrong in any way.
func (n *Network) Observe(observer, subject anchormesh.NodeID, s mesh.State) {
	n.mu.Lock()
	o := n.nodes[observer]
	n.mu.Unlock()
	if o != nil {
		o.observe(subject, s)
	}
}

// Crash stops a node without a word. Others see it alive until Observe says
// otherwise; its connections end.
func (n *Network) Crash(id anchormesh.NodeID) {
	n.mu.Lock()
	node := n.nodes[id]
	delete(n.nodes, id)
	n.mu.Unlock()
	if node != nil {
		node.stop()
	}
}

func (n *Network) node(id anchormesh.NodeID) *Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[id]
}

// connected reports whether a connection between two nodes can be.
func (n *Network) connected(a, b anchormesh.NodeID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[a] != nil && n.nodes[b] != nil && !n.links[pair{a, b}].Cut && !n.links[pair{b, a}].Cut
}

// fate decides what happens to one thing sent.
type fate struct {
	delay time.Duration
	lost  bool // a message
	early bool // a request: its connection ends before it is served
	late  bool // after
}

func (n *Network) fate(from, to anchormesh.NodeID) fate {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.links[pair{from, to}]
	f := fate{delay: l.Delay, lost: l.Cut}
	if l.Jitter > 0 {
		f.delay += time.Duration(n.rng.Int64N(int64(l.Jitter)))
	}
	if l.Loss > 0 && n.rng.Float64() < l.Loss {
		f.lost = true
	}
	if l.Reset > 0 && n.rng.Float64() < l.Reset {
		f.early = n.rng.IntN(2) == 0
		f.late = !f.early
	}
	return f
}

// pipe delivers what one node sends to another, in order, each after its delay.
func (n *Network) pipe(from, to anchormesh.NodeID) *pipe {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pipes[pair{from, to}]
	if p == nil {
		p = &pipe{}
		n.pipes[pair{from, to}] = p
	}
	return p
}

// pipe runs a goroutine only while it holds something.
type pipe struct {
	mu      sync.Mutex
	queue   []parcel
	running bool
}

type parcel struct {
	due     time.Time
	deliver func()
}

// pipeMax bounds what is under way from one node to another.
const pipeMax = 8192

// put queues a delivery; false at the limit.
func (p *pipe) put(delay time.Duration, deliver func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) >= pipeMax {
		return false
	}
	p.queue = append(p.queue, parcel{time.Now().Add(delay), deliver})
	if !p.running {
		p.running = true
		go p.run()
	}
	return true
}

func (p *pipe) run() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.running = false
			p.mu.Unlock()
			return
		}
		next := p.queue[0]
		p.queue = p.queue[1:]
		p.mu.Unlock()
		if wait := time.Until(next.due); wait > 0 {
			time.Sleep(wait)
		}
		next.deliver()
	}
}
