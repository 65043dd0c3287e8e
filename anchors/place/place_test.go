package place

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/cockroachdb/datadriven"
)

// TestMeshes runs testdata/meshes/*: whole meshes on virtual time.
//
//	nodes N [zones=N] [size=N]          nodes join, over so many zones
//	segments N [load=N|rising|one] [on=N]  more of them, on the first N nodes (3), led by the first
//	anchors N                           what the policy asks for
//	kill NAME | revive NAME | drain NAME
//	load SEGMENT N                      its load
//	children N                          all segments above N were split off just now
//	where SEGMENT                       who leads and holds it
//	order SEGMENT FROM TO | lead SEGMENT TO | withdraw
//	run DURATION [chart]                prints what moved; chart: over time
//	table                               every node
func TestMeshes(t *testing.T) {
	datadriven.Walk(t, "testdata/meshes", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			c := &script{mesh: newMesh(1)}
			for _, line := range strings.Split(strings.TrimSpace(d.Input), "\n") {
				c.do(t, strings.Fields(line))
			}
			if c.broken != nil {
				t.Error(c.broken)
			}
			return c.out.String()
		})
	})
}

type script struct {
	*mesh
	out strings.Builder
}

func (c *script) do(t *testing.T, f []string) {
	opt := func(name, otherwise string) string {
		for _, a := range f {
			if v, ok := strings.CutPrefix(a, name+"="); ok {
				return v
			}
		}
		return otherwise
	}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	id := func() anchormesh.SegmentID { return anchormesh.SegmentID(number(f[1])) }
	switch f[0] {
	case "nodes":
		zones := number(opt("zones", "1"))
		for i := range number(f[1]) {
			c.join(string(rune('a'+i%zones)), number(opt("size", "1000")))
		}
	case "segments":
		c.seed(number(f[1]), loads(opt("load", "0")), c.nodes[:number(opt("on", "3"))]...)
	case "anchors":
		c.anchors = number(f[1])
	case "kill", "revive":
		c.alive(c.node(anchormesh.NodeID(f[1])), f[0] == "revive")
	case "drain":
		var all []Node
		for _, n := range c.nodes {
			all = append(all, c.own(n))
		}
		if err := Drainable(all, anchormesh.NodeID(f[1]), c.anchors); err != nil {
			fmt.Fprintf(&c.out, "refused: %v\n", err)
			return
		}
		c.node(anchormesh.NodeID(f[1])).leaving = true
	case "load":
		c.segments[id()-1].load = uint64(number(f[2]))
	case "children":
		for i := number(f[1]); i < len(c.segments); i++ {
			c.segments[i].child = true
		}
	case "order":
		c.orders = append(c.orders, Order{Segment: id(), Kind: Replace, From: anchormesh.NodeID(f[2]), To: anchormesh.NodeID(f[3])})
	case "lead":
		c.orders = append(c.orders, Order{Segment: id(), Kind: Transfer, To: anchormesh.NodeID(f[2])})
	case "withdraw":
		c.orders = nil
	case "where":
		s := c.segments[id()-1]
		fmt.Fprintf(&c.out, "segment %d is led by %s, on", id(), s.leader)
		for _, a := range s.d.Anchors {
			fmt.Fprintf(&c.out, " %s", a.Node)
		}
		fmt.Fprintln(&c.out)
	case "table":
		c.out.WriteString(c.table())
	case "run":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			t.Fatal(err)
		}
		parts := 1
		if len(f) > 2 {
			parts = 8
		}
		for range parts {
			c.line(d / time.Duration(parts))
		}
	default:
		t.Fatalf("unknown line %q", f)
	}
}

// line runs and prints one line.
func (c *script) line(d time.Duration) {
	moves, causes, transfers, declined := c.moves, c.causes, c.transfers, c.declined
	c.run(d)
	var why []string
	for i, n := range c.causes {
		if n > causes[i] {
			why = append(why, fmt.Sprintf("%v %d", Cause(i), n-causes[i]))
		}
	}
	replicas, leads := c.uneven()
	fmt.Fprintf(&c.out, "%8v moved %3d, led over %3d, declined %3d; off by: replicas %4d ‰ %-12s leading %5d ‰ %-12s %s\n",
		c.elapsed(), c.moves-moves, c.transfers-transfers, c.declined-declined,
		replicas, strings.Repeat("#", min(replicas/100, 12)), leads, strings.Repeat("#", min(leads/100, 12)), strings.Join(why, ", "))
}

func loads(kind string) func(int) uint64 {
	switch kind {
	case "rising":
		return func(i int) uint64 { return uint64(i % 40 * 10) }
	case "one":
		return func(i int) uint64 {
			if i == 0 {
				return 1500
			}
			return 20
		}
	}
	n, _ := strconv.Atoi(kind)
	return func(int) uint64 { return uint64(n) }
}

var (
	seeds = flag.Int("seeds", 3, "how many meshes TestConverges lets live")
	large = flag.Bool("large", false, "let TestLarge run: thirty nodes, three hundred segments")
)

// TestConverges lets meshes live at random, with nodes joining, dying and leaving
// while summaries come late, and then calm down: shares become even, everything
// stops moving, zones are spread as far as they can be, nodes that leave are
// empty, and no rule was broken on the way.
func TestConverges(t *testing.T) {
	base, runs := rand.Uint64(), *seeds
	for i := range uint64(runs) {
		if err := converge(base+i, t.Logf); err != nil {
			t.Errorf("seed %d: %v", base+i, err)
		}
	}
}

func converge(seed uint64, logf func(string, ...any)) error {
	m := newMesh(seed)
	rng := rand.New(rand.NewPCG(seed, 6))
	zones, count := 1+rng.IntN(4), 5+rng.IntN(12)
	for i := range count {
		m.join(string(rune('a'+i%zones)), 1000)
	}
	m.seed(10+rng.IntN(90), func(int) uint64 { return rng.Uint64N(60) }, m.nodes[:3]...)
	for range 6 {
		m.run(time.Duration(2+rng.IntN(10)) * time.Minute)
		m.upset(rng, zones)
	}
	for _, n := range m.nodes {
		if !n.Alive {
			m.alive(n, true)
		}
	}
	m.run(75 * time.Minute)
	busy := m.moves + m.transfers
	m.run(20 * time.Minute)
	replicas, leads := m.uneven()
	logf("seed %d: %d nodes, %d zones, %d segments: %d moves, %d transfers, %d declined; off by %d, %d; last %v ago", seed, len(m.nodes), zones,
		len(m.segments), m.moves, m.transfers, m.declined, replicas, leads, m.now.Sub(m.lastMove))
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%s\n%s", fmt.Sprintf(format, args...), m.table())
	}
	switch {
	case m.broken != nil:
		return m.broken
	case m.moves+m.transfers > busy:
		return bad("%d moves in the last 20 minutes of calm", m.moves+m.transfers-busy)
	case m.zonesMissed() > 0:
		return bad("%d segments could be in more zones", m.zonesMissed())
	case replicas > 200:
		return bad("replicas are off by %d ‰", replicas)
	}
	for _, n := range m.nodes {
		if o := m.own(n); n.leaving && (o.Replicas > 0 || o.Leaders > 0) {
			return bad("node %s leaves and still holds %d replicas", n.Node, o.Replicas)
		}
	}
	return m.fairlyLed(bad)
}

// TestLarge: 300 segments on three nodes, 27 more join, one in each zone leaves and
// one dies. It takes hardly more moves than are needed.
func TestLarge(t *testing.T) {
	if !*large {
		t.Skip("takes long; -large runs it")
	}
	seed := rand.Uint64()
	m, rng := newMesh(seed), rand.New(rand.NewPCG(seed, 7))
	zone := func(i int) string { return string(rune('a' + i%3)) }
	for i := range 3 {
		m.join(zone(i), 1000)
	}
	m.seed(300, func(int) uint64 { return rng.Uint64N(60) }, m.nodes...)
	for i := range 27 {
		m.join(zone(i), 1000)
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("seed %d: %s\n%s", seed, fmt.Sprintf(format, args...), m.table())
	}
	calm := func(what string, d time.Duration, needed int) {
		before := m.moves
		m.run(d)
		moved := m.moves - before
		m.run(20 * time.Minute)
		replicas, leads := m.uneven()
		t.Logf("%s: %d moves, %d are needed; the last %v ago; off by %d, %d", what, moved, needed, m.now.Sub(m.lastMove), replicas, leads)
		if err := m.fairlyLed(bad); err != nil || m.broken != nil || replicas > 200 || m.zonesMissed() > 0 ||
			m.moves > before+moved || moved > needed*13/10 {
			t.Fatal(bad("%s: %d moves, then %d, %v, %v, %d, %d", what, moved, m.moves-before-moved, err, m.broken, replicas, leads))
		}
	}
	calm("27 nodes join", 4*time.Hour, 810)
	for i := range 3 {
		m.nodes[3+i].leaving = true
	}
	calm("three leave", 2*time.Hour, 90)
	m.alive(m.nodes[20], false)
	calm("one dies", time.Hour, 10)
}

// fairlyLed: no node leads more than a fifth, or the heaviest segment, above the
// mean.
func (m *mesh) fairlyLed(bad func(string, ...any) error) error {
	heaviest, sum, n := uint64(0), uint64(0), uint64(0)
	for _, s := range m.segments {
		heaviest = max(heaviest, s.load+m.cfg.IdleLoad)
		sum += s.load + m.cfg.IdleLoad
	}
	for _, o := range m.nodes {
		if !o.leaving {
			n++
		}
	}
	for _, o := range m.nodes {
		own := m.own(o)
		if score := own.Load + uint64(own.Leaders)*m.cfg.IdleLoad; score > sum/n+max(sum/n/5, heaviest) {
			return bad("node %s leads %d, the mean is %d", o.Node, score, sum/n)
		}
	}
	return nil
}

// upset changes something at random.
func (m *mesh) upset(rng *rand.Rand, zones int) {
	n := m.nodes[rng.IntN(len(m.nodes))]
	down, leaving := 0, 0
	for _, o := range m.nodes {
		if !o.Alive {
			down++
		}
		if o.leaving {
			leaving++
		}
	}
	switch rng.IntN(4) {
	case 0:
		m.join(string(rune('a'+len(m.nodes)%zones)), 1000)
	case 1:
		if n.Alive && down == 0 {
			m.alive(n, false)
		}
	case 2:
		if !n.Alive {
			m.alive(n, true)
		}
	case 3:
		if n.Alive && len(m.nodes)-down-leaving > 4 && leaving < 2 {
			n.leaving = true
		}
	}
}
