package verify

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

// Kind is what is wrong.
type Kind string

// The kinds of findings.
const (
	Meshes   Kind = "mesh"    // nodes of several meshes
	Gap      Kind = "gap"     // keys that nobody has
	Overlap  Kind = "overlap" // keys that two have
	Leader   Kind = "leader"  // none, or two in one term
	Missing  Kind = "missing" // an anchor without its replica
	State    Kind = "state"   // replicas in one state that differ, or are not what their lineage says
	Lineage  Kind = "lineage" // a chain that does not verify or does not lead to genesis
	Fork     Kind = "fork"    // two histories
	Unproven Kind = "unproven"
	Route    Kind = "route"  // a map that leads nowhere
	Policy   Kind = "policy" // a policy that no home decided, or a scope without a home
	Hash     Kind = "hash"   // replicas that hold different histories
)

// Finding is one thing that is wrong.
type Finding struct {
	Kind    Kind
	Segment anchormesh.SegmentID // zero: no segment in particular
	Node    anchormesh.NodeID    // empty: no node in particular
	Text    string
	mark    string // what else tells it from others of its kind
}

// same reports whether two looks found one thing. Texts may tell numbers that move.
func (f Finding) same(o Finding) bool {
	return f.Kind == o.Kind && f.Segment == o.Segment && f.Node == o.Node && f.mark == o.mark
}

// Node is what a node said of itself, of the others and of its replicas.
type Node struct {
	ID       anchormesh.NodeID
	Mesh     anchormesh.MeshID
	Routes   []*anchormesh.Descriptor
	Replicas []Replica
}

// Replica is what a node has applied of a segment.
type Replica struct {
	Descriptor          *anchormesh.Descriptor
	Chain               []byte   // lineage, encoded
	Proofs              [][]byte // of the chain's entries, encoded
	Leads               bool
	Term                uint64
	Revision, Compacted anchormesh.Revision
}

// Check says whether a proof holds for an entry behind another one, which is nil if
// it is not known; see package proofs.
type Check func(before *lineage.Entry, p *lineage.Proof) error

// Report is what a look saw.
type Report struct {
	Findings []Finding
	Notes    []string // what is no fault, but was not seen
	Owners   []Owner  // in key order
}

// Owner is a segment and who holds it.
type Owner struct {
	Descriptor *anchormesh.Descriptor
	Replicas   []Held // on the nodes that answered, by node
}

// Held is a replica and whose it is.
type Held struct {
	Node anchormesh.NodeID
	Replica
	chain *lineage.Chain // nil: it does not verify
}

// look is one look under way.
type look struct {
	Report
	check Check
	nodes []Node
	held  map[anchormesh.SegmentID][]Held
	order []anchormesh.SegmentID
}

// Look judges what the nodes said.
func Look(nodes []Node, check Check) Report {
	l := &look{check: check, nodes: nodes, held: make(map[anchormesh.SegmentID][]Held)}
	l.gather()
	a := l.lineages()
	l.states()
	l.owners()
	l.policies(a)
	l.routes()
	slices.SortStableFunc(l.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Segment, b.Segment), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Text, b.Text))
	})
	return l.Report
}

func (l *look) find(k Kind, s anchormesh.SegmentID, n anchormesh.NodeID, format string, args ...any) {
	l.Findings = append(l.Findings, Finding{Kind: k, Segment: s, Node: n, Text: fmt.Sprintf(format, args...)})
}

// marked gives the last finding what tells it from others of its kind.
func (l *look) marked(format string, args ...any) {
	l.Findings[len(l.Findings)-1].mark = fmt.Sprintf(format, args...)
}

// gather sorts the replicas by segment, and reads their lineages.
func (l *look) gather() {
	slices.SortFunc(l.nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	for _, n := range l.nodes {
		if n.Mesh != l.nodes[0].Mesh {
			l.find(Meshes, 0, n.ID, "node %s belongs to mesh %s, node %s to %s", n.ID.Short(), n.Mesh, l.nodes[0].ID.Short(), l.nodes[0].Mesh)
		}
		for _, r := range n.Replicas {
			id := r.Descriptor.Segment
			h := Held{Node: n.ID, Replica: r}
			if c, err := lineage.DecodeChain(r.Chain); err != nil {
				l.find(Lineage, id, n.ID, "the lineage on node %s does not verify: %v", n.ID.Short(), err)
			} else {
				h.chain = c
			}
			if l.held[id] == nil {
				l.order = append(l.order, id)
			}
			l.held[id] = append(l.held[id], h)
		}
	}
	slices.Sort(l.order)
}

// newest returns the newest state that a replica of a segment is in.
func newest(all []Held) *anchormesh.Descriptor {
	return slices.MaxFunc(all, func(a, b Held) int {
		return cmp.Or(cmp.Compare(a.Descriptor.Generation, b.Descriptor.Generation), cmp.Compare(a.Descriptor.Changed, b.Descriptor.Changed))
	}).Descriptor
}

// states compares replicas with each other and with their lineages.
func (l *look) states() {
	for _, id := range l.order {
		all := l.held[id]
		for i, h := range all {
			d := h.Descriptor
			if c := h.chain; c != nil && (c.Segment() != id || !c.Last().Describes(d)) {
				l.find(State, id, h.Node, "on node %s segment %s is not what its lineage says", h.Node.Short(), id)
			}
			for _, o := range all[:i] {
				if o.Descriptor.Generation == d.Generation && o.Descriptor.Changed == d.Changed && !equal(o.Descriptor, d) {
					l.find(State, id, h.Node, "nodes %s and %s are in one state of segment %s, and it differs", o.Node.Short(), h.Node.Short(), id)
				}
			}
		}
	}
}

func equal(a, b *anchormesh.Descriptor) bool {
	return a.Mesh == b.Mesh && a.Segment == b.Segment && a.Range.Equal(b.Range) && bytes.Equal(a.Scope, b.Scope) && bytes.Equal(a.Line, b.Line) && a.Policy == b.Policy && a.Class == b.Class &&
		a.Generation == b.Generation && a.Changed == b.Changed && slices.Equal(a.Anchors, b.Anchors) &&
		a.NextReplica == b.NextReplica && a.Lineage == b.Lineage && a.Stamped == b.Stamped && a.Joint == b.Joint
}

// owners finds who has each key.
func (l *look) owners() {
	last := l.lastGenerations()
	for _, id := range l.order {
		d := newest(l.held[id])
		if d.Generation < last[id] {
			continue // only replicas that are behind, or one that was absorbed
		}
		o := Owner{Descriptor: d, Replicas: l.held[id]}
		l.Owners = append(l.Owners, o)
		l.leads(o)
		l.holds(o)
	}
	slices.SortFunc(l.Owners, func(a, b Owner) int { return bytes.Compare(a.Descriptor.Range.Start, b.Descriptor.Range.Start) })
	l.cover()
}

// lastGenerations tells, by what all lineages say, which generation each segment is
// of at least; one that was absorbed is of none that it could still be in.
func (l *look) lastGenerations() map[anchormesh.SegmentID]anchormesh.Generation {
	out := make(map[anchormesh.SegmentID]anchormesh.Generation)
	for _, id := range l.order {
		for _, h := range l.held[id] {
			if h.chain == nil {
				continue
			}
			for _, e := range h.chain.Entries() {
				out[e.Segment] = max(out[e.Segment], e.After.Generation)
				switch e.Kind {
				case lineage.Split:
					out[e.Other.Segment] = max(out[e.Other.Segment], e.Other.Generation)
				case lineage.Merge:
					out[e.Other.Segment] = max(out[e.Other.Segment], e.Other.Generation+1)
				}
			}
		}
	}
	return out
}

// leads makes sure that one replica leads, and not two in a term.
func (l *look) leads(o Owner) {
	terms := make(map[uint64]anchormesh.NodeID)
	for _, h := range o.Replicas {
		if !h.Leads {
			continue
		}
		if other, two := terms[h.Term]; two {
			l.find(Leader, o.Descriptor.Segment, "", "nodes %s and %s both lead segment %s in term %d", other.Short(), h.Node.Short(), o.Descriptor.Segment, h.Term)
		}
		terms[h.Term] = h.Node
	}
	if len(terms) == 0 {
		l.find(Leader, o.Descriptor.Segment, "", "no node that answered leads segment %s %s", o.Descriptor.Segment, o.Descriptor.Range)
	}
}

// holds makes sure that the voters that answered have their replicas.
func (l *look) holds(o Owner) {
	for _, a := range o.Descriptor.Voters() {
		answered := slices.ContainsFunc(l.nodes, func(n Node) bool { return n.ID == a.Node })
		if answered && !slices.ContainsFunc(o.Replicas, func(h Held) bool { return h.Node == a.Node }) {
			l.find(Missing, o.Descriptor.Segment, a.Node, "node %s is a voter of segment %s and has no replica of it", a.Node.Short(), o.Descriptor.Segment)
		}
	}
}

// cover makes sure that the owners' ranges make up the keyspace.
func (l *look) cover() {
	var end []byte // of what is covered, from the beginning
	open := false  // covered to the end
	for i, o := range l.Owners {
		r, id := o.Descriptor.Range, o.Descriptor.Segment
		if c := bytes.Compare(r.Start, end); open || c < 0 {
			for _, p := range l.Owners[:i] {
				if p.Descriptor.Range.Overlaps(r) {
					l.find(Overlap, id, "", "%s is held by segment %s at generation %d and by segment %s at generation %d",
						p.Descriptor.Range.Intersect(r), p.Descriptor.Segment, p.Descriptor.Generation, id, o.Descriptor.Generation)
				}
			}
		} else if c > 0 {
			l.gap(anchormesh.KeyRange{Start: end, End: r.Start})
		}
		switch {
		case len(r.End) == 0:
			open = true
		case bytes.Compare(r.End, end) > 0:
			end = r.End
		}
	}
	if !open {
		l.gap(anchormesh.KeyRange{Start: end})
	}
}

func (l *look) gap(r anchormesh.KeyRange) {
	l.find(Gap, 0, "", "no node that answered has %s", r)
	l.marked("%s", r)
}

// routes makes sure that what nodes route by is what anchors are, or were.
func (l *look) routes() {
	live := make(map[anchormesh.SegmentID]*anchormesh.Descriptor)
	for _, o := range l.Owners {
		live[o.Descriptor.Segment] = o.Descriptor
	}
	for _, n := range l.nodes {
		for _, d := range n.Routes {
			l.route(n.ID, d, live[d.Segment])
		}
		if hole, ok := firstHole(n.Routes); ok {
			l.find(Route, 0, n.ID, "node %s knows no segment for %s", n.ID.Short(), hole)
			l.marked("%s", hole)
		}
	}
}

func (l *look) route(n anchormesh.NodeID, d, now *anchormesh.Descriptor) {
	switch {
	case now != nil && d.Newer(now):
		l.find(Route, d.Segment, n, "node %s routes to segment %s at generation %d, change %d; its anchors are at %d, %d",
			n.Short(), d.Segment, d.Generation, d.Changed, now.Generation, now.Changed)
		l.marked("%d %d", d.Generation, d.Changed)
	case now != nil && !now.Newer(d) && !equal(d, now):
		l.find(Route, d.Segment, n, "node %s routes by a descriptor of segment %s that its anchors do not know", n.Short(), d.Segment)
	case now == nil:
		for _, o := range l.Owners {
			if o.Descriptor.Range.Overlaps(d.Range) && d.Generation >= o.Descriptor.Generation {
				l.find(Route, d.Segment, n, "node %s routes %s to segment %s, of which no node that answered is an anchor",
					n.Short(), o.Descriptor.Range.Intersect(d.Range), d.Segment)
			}
		}
	}
}

// firstHole returns the first keys for which there is no route.
func firstHole(routes []*anchormesh.Descriptor) (anchormesh.KeyRange, bool) {
	sorted := slices.SortedFunc(slices.Values(routes), func(a, b *anchormesh.Descriptor) int { return bytes.Compare(a.Range.Start, b.Range.Start) })
	var end []byte
	for _, d := range sorted {
		switch {
		case bytes.Compare(d.Range.Start, end) > 0:
			return anchormesh.KeyRange{Start: end, End: d.Range.Start}, true
		case len(d.Range.End) == 0:
			return anchormesh.KeyRange{}, false
		case bytes.Compare(d.Range.End, end) > 0:
			end = d.Range.End
		}
	}
	return anchormesh.KeyRange{Start: end}, true
}

// Lasting returns what every look found, in the words of the last one.
func Lasting(looks ...[]Finding) []Finding {
	if len(looks) == 0 {
		return nil
	}
	var out []Finding
	for _, f := range looks[len(looks)-1] {
		missed := slices.ContainsFunc(looks, func(found []Finding) bool { return !slices.ContainsFunc(found, f.same) })
		if !missed {
			out = append(out, f)
		}
	}
	return out
}
