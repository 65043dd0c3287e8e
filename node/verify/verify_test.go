package verify

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func secret(id anchormesh.NodeID) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	copy(seed, id)
	return ed25519.NewKeyFromSeed(seed)
}

func check(_ *lineage.Entry, p *lineage.Proof) error {
	return p.Verify(p.Entry.Voters, func(n anchormesh.NodeID, statement, signature []byte) bool {
		return ed25519.Verify(secret(n).Public().(ed25519.PublicKey), statement, signature)
	})
}

// prove signs an entry in the name of its voters.
func prove(e *lineage.Entry) []byte {
	p := &lineage.Proof{Entry: e}
	for _, n := range e.Voters.Incoming {
		p.Add(n, ed25519.Sign(secret(n), lineage.Statement(e.Hash())))
	}
	return p.Encode()
}

// world is a mesh as its logs made it.
type world struct {
	rng    *rand.Rand
	names  []anchormesh.NodeID
	chains []*lineage.Chain
	state  map[anchormesh.SegmentID]*anchormesh.Descriptor
	past   []*anchormesh.Descriptor
	log    map[anchormesh.SegmentID][]Replica // every state that a segment was in
	proofs map[anchormesh.Hash][]byte
	next   anchormesh.SegmentID
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 1)), state: map[anchormesh.SegmentID]*anchormesh.Descriptor{},
		log: map[anchormesh.SegmentID][]Replica{}, proofs: map[anchormesh.Hash][]byte{}, next: 2,
	}
	for i := range 5 {
		w.names = append(w.names, anchormesh.NodeID(fmt.Sprintf("node%d", i)))
	}
	c := must(lineage.Begin(7, 1, lineage.Extent{Generation: 1}, lineage.Place{Index: 5, Term: 1},
		lineage.Voters{Incoming: slices.Clone(w.names[:3])}, lineage.Evidence{}))
	w.chains = []*lineage.Chain{c}
	w.enter(c, w.names[:3])
	return w
}

// enter puts the newest state of a segment in force.
func (w *world) enter(c *lineage.Chain, nodes []anchormesh.NodeID) {
	now := c.Now()
	d := &anchormesh.Descriptor{
		Mesh: 7, Segment: c.Segment(), Generation: now.Generation, Range: now.Range, Changed: c.Last().Index,
		NextReplica: 100, Lineage: c.Head(), Stamped: len(w.chains) > 1,
	}
	if c.Last().Segment != c.Segment() {
		d.Changed = 5
	}
	for i, n := range nodes {
		d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: n, Replica: anchormesh.ReplicaID(i + 1), Role: anchormesh.Voter})
	}
	w.state[c.Segment()] = d
	w.past = append(w.past, d)
	r := Replica{Descriptor: d, Chain: c.Encode(), Term: 1, Revision: 40, Compacted: -1}
	for _, e := range c.Entries() {
		if h := e.Hash(); w.proofs[h] == nil {
			w.proofs[h] = prove(e)
		}
		r.Proofs = append(r.Proofs, w.proofs[e.Hash()])
	}
	w.log[c.Segment()] = append(w.log[c.Segment()], r)
}

func (w *world) split() {
	i := w.rng.IntN(len(w.chains))
	c := w.chains[i]
	at := []byte(fmt.Sprintf("k%03d", w.rng.IntN(1000)))
	if r := c.Now().Range; !r.Contains(at) || string(at) == string(r.Start) {
		return
	}
	nodes := c.Last().Voters.Incoming
	left, right, err := c.Split(lineage.Place{Index: w.state[c.Segment()].Changed + 10, Term: 1}, at, w.next, lineage.Evidence{})
	if err != nil {
		panic(err)
	}
	w.next++
	w.chains = append(slices.Replace(w.chains, i, i+1, left), right)
	w.enter(left, nodes)
	w.enter(right, nodes)
}

func (w *world) move() {
	i := w.rng.IntN(len(w.chains))
	c := w.chains[i]
	nodes := slices.Clone(w.names)
	w.rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	nodes = slices.Sorted(slices.Values(nodes[:3]))
	if slices.Equal(nodes, c.Last().Voters.Incoming) {
		return
	}
	w.chains[i] = must(c.Change(lineage.Place{Index: w.state[c.Segment()].Changed + 10, Term: 1}, lineage.Voters{Incoming: nodes}, lineage.Evidence{}))
	w.enter(w.chains[i], nodes)
}

func grown(seed uint64, changes int) *world {
	w := newWorld(seed)
	for range changes {
		if w.rng.IntN(2) == 0 {
			w.split()
		} else {
			w.move()
		}
	}
	return w
}

// told is what the nodes say: each its replicas, the last one of a segment up to date
// and leading, others perhaps behind; and routes, perhaps old.
func (w *world) told(late bool) []Node {
	out := make([]Node, len(w.names))
	for i, n := range w.names {
		out[i] = Node{ID: n, Mesh: 7}
		for _, d := range w.past {
			now := w.state[d.Segment]
			if d == now || late && w.rng.IntN(2) == 0 && d.Generation < now.Generation {
				out[i].Routes = append(out[i].Routes, d)
			}
		}
		for id, d := range w.state {
			if _, ok := d.AnchorOn(n); !ok {
				continue
			}
			states := w.log[id]
			r := states[len(states)-1]
			if r.Leads = d.Anchors[0].Node == n; !r.Leads && late && w.rng.IntN(3) == 0 {
				r = states[w.rng.IntN(len(states))]
			}
			out[i].Replicas = append(out[i].Replicas, r)
		}
	}
	return out
}

func kinds(all []Finding) (out []Kind) {
	for _, f := range all {
		out = append(out, f.Kind)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Whatever was decided, and whoever lags: a mesh without a fault is found to have none.
func TestNoFalseAlarm(t *testing.T) {
	for seed := range uint64(25) {
		w := grown(seed, 40)
		for _, late := range []bool{false, true} {
			r := Look(w.told(late), check)
			if len(r.Findings) > 0 || len(r.Owners) != len(w.chains) {
				t.Fatalf("seed %d, late %v: %d owners of %d: %+v", seed, late, len(r.Owners), len(w.chains), r.Findings)
			}
			if len(r.Notes) > 0 {
				t.Fatalf("seed %d: %q", seed, r.Notes)
			}
		}
	}
}

// each changes every replica of one segment.
func each(nodes []Node, id anchormesh.SegmentID, f func(n *Node, r *Replica)) {
	for i := range nodes {
		for j := range nodes[i].Replicas {
			if r := &nodes[i].Replicas[j]; r.Descriptor.Segment == id {
				f(&nodes[i], r)
			}
		}
	}
}

// without takes the replicas of one segment away.
func without(nodes []Node, id anchormesh.SegmentID) {
	for i := range nodes {
		nodes[i].Replicas = slices.DeleteFunc(nodes[i].Replicas, func(r Replica) bool { return r.Descriptor.Segment == id })
	}
}

// reform decodes a chain, lets f change an entry, and puts it together again so that
// the bytes are a chain, if not a true one.
func reform(r *Replica, f func(last *lineage.Entry)) {
	last := must(lineage.DecodeChain(r.Chain)).Last()
	framed := func() []byte {
		b := last.Append(nil)
		return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
	}
	before, _ := bytes.CutSuffix(r.Chain, framed())
	f(last)
	r.Chain = slices.Concat(before, framed())
	d := r.Descriptor.Clone()
	d.Lineage = last.Hash()
	r.Descriptor = d
}

// Each planted fault is found, as what it is.
func TestPlantedFaults(t *testing.T) {
	one := func(nodes []Node, id anchormesh.SegmentID, f func(r *Replica)) {
		done := false
		each(nodes, id, func(_ *Node, r *Replica) {
			if !done {
				done = true
				f(r)
			}
		})
	}
	for name, c := range map[string]struct {
		plant func(w *world, nodes []Node)
		want  []Kind
	}{
		"a chain with an altered byte": {func(_ *world, n []Node) {
			one(n, 1, func(r *Replica) { r.Chain = slices.Clone(r.Chain); r.Chain[len(r.Chain)-40] ^= 1 })
		}, []Kind{Lineage}},
		"a chain that is another segment's": {func(w *world, n []Node) {
			one(n, 1, func(r *Replica) { r.Chain = w.log[2][0].Chain })
		}, []Kind{State}},
		"a doctored decision, hashed anew on every anchor": {func(_ *world, n []Node) {
			each(n, 1, func(_ *Node, r *Replica) { reform(r, func(e *lineage.Entry) { e.Evidence.Pressure = 9999 }) })
		}, []Kind{Fork, Route, Unproven}},
		"a doctored decision on one anchor": {func(_ *world, n []Node) {
			one(n, 1, func(r *Replica) { reform(r, func(e *lineage.Entry) { e.Evidence.Operator = "nobody" }) })
		}, []Kind{Fork, Route, State, Unproven}},
		"proofs are gone everywhere": {func(_ *world, n []Node) {
			for i := range n {
				for j := range n[i].Replicas {
					n[i].Replicas[j].Proofs = nil
				}
			}
		}, []Kind{Unproven}},
		"a proof that cannot be read": {func(_ *world, n []Node) {
			one(n, 1, func(r *Replica) { r.Proofs = append(slices.Clone(r.Proofs), []byte{9}) })
		}, []Kind{Unproven}},
		"a gap": {func(_ *world, n []Node) { without(n, 2) }, []Kind{Gap}},
		"an overlap": {func(w *world, n []Node) {
			each(n, 2, func(_ *Node, r *Replica) {
				d := r.Descriptor.Clone()
				d.Range.Start = []byte("a")
				r.Descriptor = d
			})
		}, []Kind{Overlap, Route, State}},
		"a segment that nobody decided": {func(w *world, n []Node) {
			d := w.state[2].Clone()
			d.Segment = 77
			for i := range n {
				if _, here := d.AnchorOn(n[i].ID); here {
					r := w.log[2][len(w.log[2])-1]
					r.Descriptor, r.Leads = d, d.Anchors[0].Node == n[i].ID
					n[i].Replicas = append(n[i].Replicas, r)
				}
			}
		}, []Kind{Overlap, State}},
		"no leader":   {func(_ *world, n []Node) { each(n, 1, func(_ *Node, r *Replica) { r.Leads = false }) }, []Kind{Leader}},
		"two leaders": {func(_ *world, n []Node) { each(n, 1, func(_ *Node, r *Replica) { r.Leads = true }) }, []Kind{Leader}},
		"a voter without a replica": {func(w *world, n []Node) {
			at := w.state[1].Anchors[1].Node
			for i := range n {
				if n[i].ID == at {
					n[i].Replicas = slices.DeleteFunc(n[i].Replicas, func(r Replica) bool { return r.Descriptor.Segment == 1 })
				}
			}
		}, []Kind{Missing}},
		"one state, two contents": {func(_ *world, n []Node) {
			one(n, 1, func(r *Replica) {
				d := r.Descriptor.Clone()
				d.NextReplica++
				r.Descriptor = d
			})
		}, []Kind{Route, State}},
		"a map ahead of everybody": {func(w *world, n []Node) {
			d := w.state[1].Clone()
			d.Generation++
			n[0].Routes = append(slices.Clone(n[0].Routes), d)
		}, []Kind{Route}},
		"a map with a hole": {func(w *world, n []Node) {
			n[0].Routes = []*anchormesh.Descriptor{w.state[2]}
		}, []Kind{Route}},
		"two meshes": {func(_ *world, n []Node) { n[4].Mesh = 8 }, []Kind{Meshes}},
	} {
		w := newWorld(1)
		for len(w.chains) < 2 {
			w.split()
		}
		nodes := w.told(false)
		c.plant(w, nodes)
		if got := kinds(Look(nodes, check).Findings); !slices.Equal(got, c.want) {
			t.Errorf("%s: found %q, want %q: %+v", name, got, c.want, Look(nodes, check).Findings)
		}
	}
}

// What cannot be seen is told, and is no fault: nodes that did not answer, lineages
// that are so long that their beginning was forgotten.
func TestNotes(t *testing.T) {
	w := newWorld(1)
	for range 2 * lineage.EntriesMax {
		w.move()
	}
	r := Look(w.told(false), check)
	if len(r.Findings) > 0 || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "kept from height") {
		t.Errorf("%+v, %q", r.Findings, r.Notes)
	}
	w = newWorld(1)
	for len(w.chains) < 2 {
		w.split()
	}
	nodes := w.told(false)
	without(nodes, 1)
	r = Look(nodes, check)
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "no node that answered has any more") {
		t.Errorf("the child of a segment that is out of reach: %q", r.Notes)
	}
	if got := kinds(r.Findings); !slices.Contains(got, Gap) {
		t.Errorf("its keys are out of reach, too: %q", got)
	}
}

// A change that one look saw half is in no two looks; a fault is in all.
func TestLasting(t *testing.T) {
	fault, first, second := Finding{Kind: State, Segment: 1, Text: "x"}, Finding{Kind: Unproven, Segment: 1, mark: "1"}, Finding{Kind: Unproven, Segment: 1, mark: "2"}
	said := fault
	said.Text = "y"
	if got := Lasting([]Finding{fault, first}, []Finding{second, said}); len(got) != 1 || got[0].Text != "y" {
		t.Errorf("%+v", got)
	}
	if got := Lasting(nil, []Finding{fault}); got != nil {
		t.Errorf("%+v", got)
	}
	if Lasting() != nil {
		t.Error("nothing was looked at")
	}
}

func TestHashes(t *testing.T) {
	w := grown(3, 30)
	owners := Look(w.told(false), check).Owners
	questions := Questions(owners, 0)
	if len(questions) != 3*len(w.chains) || questions[0].At != 40 || questions[0].Floor != -1 {
		t.Fatalf("%d questions for %d segments: %+v", len(questions), len(w.chains), questions[0])
	}
	if at := Questions(owners, 12)[0].At; at != 12 {
		t.Errorf("asked at %d", at)
	}
	var answers []Answer
	for _, q := range questions {
		answers = append(answers, Answer{Question: q, Sum: uint64(q.Segment)})
	}
	if got := Differing(answers); len(got) > 0 {
		t.Errorf("equal replicas: %+v", got)
	}
	answers[1].Sum++
	answers[4].Err = errors.New("no answer")
	got := Differing(answers)
	if len(got) != 2 || got[0].Kind != Hash || got[0].Node != answers[1].Node && got[1].Node != answers[1].Node {
		t.Errorf("%+v", got)
	}
	answers[2].Floor = 7
	if again := Raise(answers); len(again) == 0 || again[0].Floor != 7 || again[0].Segment != answers[2].Segment {
		t.Errorf("after a compaction: %+v", again)
	}
}

// Replicas as they stand tell of a segment where all its anchors stand at one place.
func TestApart(t *testing.T) {
	owners := Look(grown(3, 30).told(false), check).Owners
	n := len(owners[0].Replicas)
	for what, c := range map[string]struct {
		tell  func(answers []Answer) []Answer
		apart bool
	}{
		"together":          {func(a []Answer) []Answer { return a }, false},
		"different hashes":  {func(a []Answer) []Answer { a[1].Sum++; return a }, false},
		"one behind":        {func(a []Answer) []Answer { a[1].Stands.Index--; return a }, true},
		"of another term":   {func(a []Answer) []Answer { a[1].Stands.Term++; return a }, true},
		"one silent":        {func(a []Answer) []Answer { a[0].Err = errors.New("no"); return a }, true},
		"one compacted":     {func(a []Answer) []Answer { a[n-1].Floor++; return a }, true},
		"one was not asked": {func(a []Answer) []Answer { return a[1:] }, true},
		"none says where": {func(a []Answer) []Answer {
			a[0].Stands, a[1].Stands, a[2].Stands = lineage.Place{}, lineage.Place{}, lineage.Place{}
			return a
		}, true},
		"a revision to come": {func(a []Answer) []Answer { a[0].At, a[1].At, a[2].At = 1000, 1000, 1000; return a }, true},
	} {
		var answers []Answer
		for _, q := range Questions(owners, 0) {
			answers = append(answers, Answer{Question: q, Sum: 1, Stands: lineage.Place{Index: 7, Term: 2}})
		}
		answers = c.tell(answers)
		var want []int
		for i, a := range answers {
			if c.apart && a.Segment == owners[0].Descriptor.Segment {
				want = append(want, i)
			}
		}
		if got := Apart(owners, answers); !slices.Equal(got, want) {
			t.Errorf("%s: %v are to be asked again, want %v", what, got, want)
		}
	}
}
