package place

import (
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/recruit"
)

// view is the nodes with what follows from them.
type view struct {
	cfg   *Config
	now   time.Time
	self  anchormesh.NodeID
	nodes []*Node
	by    map[anchormesh.NodeID]*Node

	all   total
	zones map[string]*total
	leads map[string]bool // zones with a node that may lead
	mean  uint64          // score of those that may lead
}

// total is what some nodes hold, and could hold if those that leave are left out.
type total struct {
	replicas, capacity int64
}

func (t *total) add(n *Node) {
	t.replicas += int64(n.Replicas)
	if !n.Leaving {
		t.capacity += capacity(n)
	}
}

// even is a node's share, in thousandths of a replica.
func (t *total) even(n *Node) int64 {
	if n.Leaving || t.capacity == 0 {
		return 0
	}
	return t.replicas * 1000 * capacity(n) / t.capacity
}

// surplus is what it holds above that.
func (t *total) surplus(n *Node) int64 { return int64(n.Replicas)*1000 - t.even(n) }

func look(cfg *Config, now time.Time, w *World) *view {
	v := &view{cfg: cfg, now: now, self: w.Self, by: make(map[anchormesh.NodeID]*Node, len(w.Nodes)), zones: make(map[string]*total), leads: make(map[string]bool)}
	leads, sum := 0, uint64(0)
	nodes := slices.Clone(w.Nodes) // spread counts in its own
	for i := range nodes {
		n := &nodes[i]
		v.nodes = append(v.nodes, n)
		v.by[n.Node] = n
		if !v.heard(n) {
			continue
		}
		if v.zones[n.Zone] == nil {
			v.zones[n.Zone] = &total{}
		}
		v.all.add(n)
		v.zones[n.Zone].add(n)
		if v.open(n) {
			leads++
			sum += v.score(n)
			v.leads[n.Zone] = true
		}
	}
	if leads > 0 {
		v.mean = sum / uint64(leads)
		if self := v.by[w.Self]; self != nil && v.score(self) <= v.mean {
			v.mean = v.usual(v.mean, uint64(leads))
		}
	}
	return v
}

// usual is the mean of the scores, of which none counts for more than one and a half
// times the result. It is the measure of nodes below the plain mean: another that leads
// something very hot shall not make all of them look idle, and keep them from
// levelling among themselves.
func (v *view) usual(mean, leads uint64) uint64 {
	for range 8 {
		sum := uint64(0)
		for _, n := range v.nodes {
			if v.open(n) {
				sum += min(v.score(n), mean*3/2)
			}
		}
		mean = sum / leads
	}
	return mean
}

// capacity is how many replicas the node could hold.
func capacity(n *Node) int64 { return int64(n.Replicas) + int64(n.Room) }

// heard reports whether the node's summary counts.
func (v *view) heard(n *Node) bool {
	return n.Alive && (n.Node == v.self || v.now.Sub(n.Heard) < v.cfg.Stale)
}

// open reports whether the node may be given something to lead.
func (v *view) open(n *Node) bool {
	return n != nil && v.heard(n) && !n.Leaving && (n.Node == v.self || v.now.Sub(n.Since) >= v.cfg.Settle)
}

// takes reports whether it may be given a replica.
func (v *view) takes(n *Node) bool { return v.open(n) && n.Room > 0 && n.Node != v.self }

// score is the load that a node leads.
func (v *view) score(n *Node) uint64 { return n.Load + uint64(n.Leaders)*v.cfg.IdleLoad }

// weight is the same of one segment.
func (v *view) weight(s *Segment) uint64 { return s.Load + v.cfg.IdleLoad }

// zone is the total of the node's zone.
func (v *view) zone(n *Node) *total {
	if t := v.zones[n.Zone]; t != nil {
		return t
	}
	return &v.all
}

// even is how many replicas a node should hold, in thousandths: its share of all,
// or of those in its zone if that is more. Where the spread over zones dictates
// what a zone holds, the nodes of a small zone cannot get down to the share of all.
func (v *view) even(n *Node) int64 { return max(v.all.even(n), v.zone(n).even(n)) }

// surplus is what the node holds above that.
func (v *view) surplus(n *Node) int64 { return int64(n.Replicas)*1000 - v.even(n) }

// crowded is what it holds above the smaller of both shares: what may go to some
// node or other.
func (v *view) crowded(n *Node) int64 { return max(v.all.surplus(n), v.zone(n).surplus(n)) }

// uneven reports whether from holds so much more than to, in relation to their
// shares, that a replica should move: over the mean, and by the gap. Within a zone
// the zone's mean counts.
func (v *view) uneven(from, to *Node) bool {
	among := &v.all
	if from.Zone == to.Zone {
		among = v.zone(from)
	}
	gap := max(2000, max(among.even(from), among.even(to))*int64(v.cfg.Gap)/1000)
	over, under := among.surplus(from), among.surplus(to)
	return over > 0 && under < 0 && over-under >= gap
}

// epoch is the number of the time in which lots stay as they are.
func (v *view) epoch() uint64 { return uint64(v.now.UnixNano() / int64(v.cfg.Epoch)) }

// drawn is the lottery: true in part of whole cases, the same for one segment and
// node during an epoch.
func (v *view) drawn(segment anchormesh.SegmentID, node anchormesh.NodeID, part, whole uint64) bool {
	if part >= whole {
		return true
	}
	return recruit.Hash(segment, node, v.epoch())>>40 < part<<24/max(whole, 1)
}

// zoneCost is how crowded the voters' zones are, the lower the better, with a
// voter gone and a zone added.
func zoneCost(d *anchormesh.Descriptor, without anchormesh.ReplicaID, add *Node) (cost int) {
	zones := make(map[string]int)
	for _, a := range d.Anchors {
		if a.Role == anchormesh.Voter && a.Replica != without {
			zones[a.Zone]++
		}
	}
	if add != nil {
		zones[add.Zone]++
	}
	for _, n := range zones {
		cost += n * n
	}
	return cost
}

// leastCost is what so many voters cost when they are spread as far as can be.
func (v *view) leastCost(voters int) int {
	zones := max(1, min(len(v.leads), voters))
	each, more := voters/zones, voters%zones
	return more*(each+1)*(each+1) + (zones-more)*each*each
}

// pick is the node that should take the place of a voter: of those with a weight,
// the ones that leave zones least crowded, and of these the highest rendezvous
// score. Zones may get no worse than worst.
func (v *view) pick(d *anchormesh.Descriptor, leaves anchormesh.ReplicaID, worst int, weight func(*Node) int64) *Node {
	var best *Node
	var bestCost int
	var bestScore float64
	for _, n := range v.nodes {
		if _, has := d.AnchorOn(n.Node); has || !v.takes(n) {
			continue
		}
		w := weight(n)
		if w <= 0 {
			continue
		}
		cost, score := zoneCost(d, leaves, n), recruit.Score(d.Segment, n.Node, uint64(w))
		if cost > worst || best != nil && (cost > bestCost || cost == bestCost && score <= bestScore) {
			continue
		}
		best, bestCost, bestScore = n, cost, score
	}
	return best
}

// Even is how many replicas a node takes for balance: its share of all, a tenth
// more, and one. It is the Even of recruit's Load; 0 if the share is unknown.
func Even(cfg Config, now time.Time, nodes []Node, self anchormesh.NodeID) int {
	v := look(&cfg, now, &World{Self: self, Nodes: nodes})
	n := v.by[self]
	if n == nil || v.all.capacity == 0 {
		return 0
	}
	share := v.even(n)
	return int((share + max(1000, share/10) + 999) / 1000)
}

// Drainable says why a node cannot be taken out of the mesh: too few would stay
// for groups of so many anchors. nil: it can.
func Drainable(nodes []Node, leaving anchormesh.NodeID, anchors int) error {
	left, known := 0, false
	for _, n := range nodes {
		switch {
		case n.Node == leaving:
			known = true
		case n.Alive && !n.Leaving:
			left++
		}
	}
	switch {
	case !known:
		return fmt.Errorf("node %s is not in the mesh", leaving.Short())
	case left < anchors:
		return fmt.Errorf("without node %s %d nodes are left, and %d anchors are asked for", leaving.Short(), left, anchors)
	}
	return nil
}
