package simkit

import (
	"math/rand/v2"
	"time"
)

// LinkConfig says how every link behaves.
type LinkConfig struct {
	// LatencyMin is the time a packet takes at least; LatencyMean what it takes
	// above that on average (exponential: now and then much longer).
	LatencyMin, LatencyMean time.Duration
	// Loss, Duplicate and Reorder are the chances of a packet to vanish, to come
	// twice, and to overtake those before it.
	Loss, Duplicate, Reorder float64
}

// Network carries packets between machines that are numbered from zero.
type Network struct {
	k     *Kernel
	rng   *rand.Rand
	cfg   LinkConfig
	links map[[2]int]*link
	heals int // a swizzle from before a Heal is over
	Stats NetworkStats
}

// NetworkStats counts packets.
type NetworkStats struct{ Sent, Lost, Doubled uint64 }

// link is one direction between two machines.
type link struct {
	cut     bool
	clogged bool
	held    []func()      // packets that wait for a clogged link
	last    time.Duration // arrival of the newest packet that keeps its place
}

// NewNetwork returns a network without faults in force.
func NewNetwork(k *Kernel, cfg LinkConfig) *Network {
	return &Network{k: k, rng: k.Stream("network"), cfg: cfg, links: make(map[[2]int]*link)}
}

func (n *Network) link(from, to int) *link {
	l := n.links[[2]int{from, to}]
	if l == nil {
		l = &link{}
		n.links[[2]int{from, to}] = l
	}
	return l
}

// Send calls deliver when the packet arrives: once, twice or never.
func (n *Network) Send(from, to int, deliver func()) {
	n.Stats.Sent++
	l := n.link(from, to)
	if l.cut || n.rng.Float64() < n.cfg.Loss {
		n.Stats.Lost++
		return
	}
	n.carry(l, deliver)
	if n.rng.Float64() < n.cfg.Duplicate {
		n.Stats.Doubled++
		n.carry(l, deliver)
	}
}

// Stream is Send over a connection: nothing is lost but by a cut, nothing comes
// twice or out of order.
func (n *Network) Stream(from, to int, deliver func()) {
	n.Stats.Sent++
	l := n.link(from, to)
	if l.cut {
		n.Stats.Lost++
		return
	}
	l.last = max(l.last, n.k.Now()+n.Latency())
	n.deliver(l, l.last, deliver)
}

func (n *Network) carry(l *link, deliver func()) {
	at := n.k.Now() + n.Latency()
	if n.rng.Float64() >= n.cfg.Reorder {
		at = max(at, l.last)
		l.last = at
	}
	n.deliver(l, at, deliver)
}

func (n *Network) deliver(l *link, at time.Duration, deliver func()) {
	n.k.After(at-n.k.Now(), func() {
		switch {
		case l.cut:
			n.Stats.Lost++
		case l.clogged:
			l.held = append(l.held, deliver)
		default:
			deliver()
		}
	})
}

// Latency draws how long a packet takes now.
func (n *Network) Latency() time.Duration {
	return n.cfg.LatencyMin + time.Duration(n.rng.ExpFloat64()*float64(n.cfg.LatencyMean))
}

// Open reports whether packets from one machine reach another in time.
func (n *Network) Open(from, to int) bool {
	l := n.links[[2]int{from, to}]
	return l == nil || !l.cut && !l.clogged
}

// Cut stops all packets in one direction, those under way included.
func (n *Network) Cut(from, to int) { n.link(from, to).cut = true }

// Join undoes Cut.
func (n *Network) Join(from, to int) { n.link(from, to).cut = false }

// Clog holds all packets in one direction back.
func (n *Network) Clog(from, to int) { n.link(from, to).clogged = true }

// Unclog lets them go, in order.
func (n *Network) Unclog(from, to int) {
	l := n.link(from, to)
	l.clogged = false
	held := l.held
	l.held = nil
	for _, deliver := range held {
		n.k.After(0, deliver)
	}
}

// Heal ends all cuts and clogs among machines 0..count-1, those that a swizzle has still to
// come to included, and stops loss, duplication and reordering.
func (n *Network) Heal(count int) {
	n.heals++
	n.cfg.Loss, n.cfg.Duplicate, n.cfg.Reorder = 0, 0, 0
	for from := range count {
		for to := range count {
			n.Join(from, to)
			n.Unclog(from, to)
		}
	}
}

// Swizzle clogs a random subset of machines one by one and frees them in another
// order, as FoundationDB does: each is deaf and dumb for a while, and the
// combinations change.
func (n *Network) Swizzle(count int, step time.Duration) {
	some := n.rng.Perm(count)[:1+n.rng.IntN(count)]
	back := n.rng.Perm(len(some))
	heals := n.heals
	each := func(m int, f func(from, to int)) {
		for other := range count {
			if other != m && heals == n.heals {
				f(m, other)
				f(other, m)
			}
		}
	}
	for i, m := range some {
		n.k.After(time.Duration(i)*step, func() { each(m, n.Clog) })
	}
	for i, at := range back {
		n.k.After(time.Duration(len(some)+i)*step, func() { each(some[at], n.Unclog) })
	}
}
