package audit

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

// past answers what held in a segment at a place of its log, by lineages alone.
type past struct {
	entries  map[anchormesh.Hash]*lineage.Entry
	own      map[anchormesh.SegmentID][]*lineage.Entry // of its own log, by index
	births   map[anchormesh.SegmentID]*lineage.Entry   // the split that it came from
	policies map[anchormesh.Hash]*policy.Policy
	alive    map[anchormesh.SegmentID]bool // its newest decision is known
}

func newPast(b *Books) *past {
	p := &past{
		entries: make(map[anchormesh.Hash]*lineage.Entry), own: make(map[anchormesh.SegmentID][]*lineage.Entry),
		births: make(map[anchormesh.SegmentID]*lineage.Entry), policies: map[anchormesh.Hash]*policy.Policy{{}: nil},
		alive: make(map[anchormesh.SegmentID]bool),
	}
	for _, e := range b.Lineage {
		p.keep(e)
	}
	for _, s := range b.States {
		p.alive[s.Descriptor.Segment] = true
		for _, e := range s.Chain.Entries() {
			p.keep(e)
		}
		p.learn(s.Policy)
		if s.Scope != nil {
			for i := range s.Scope.Versions {
				p.learn(s.Scope.Versions[i].Policy)
			}
		}
	}
	for _, log := range b.Logs {
		for i := range log.Entries {
			p.overhear(&log.Entries[i])
		}
	}
	for _, list := range p.own {
		slices.SortFunc(list, func(a, b *lineage.Entry) int { return cmp.Compare(a.Index, b.Index) })
	}
	return p
}

func (p *past) keep(e *lineage.Entry) {
	h := e.Hash()
	if p.entries[h] != nil {
		return
	}
	p.entries[h] = e
	p.own[e.Segment] = append(p.own[e.Segment], e)
	if e.Kind == lineage.Split {
		p.births[e.Other.Segment] = e
	}
}

func (p *past) learn(rules *policy.Policy) {
	if rules != nil {
		p.policies[rules.Hash()] = rules
	}
}

// overhear learns the policies that a log speaks of.
func (p *past) overhear(e *Entry) {
	if len(e.Payloads) == 0 || len(e.Payloads[0]) == 0 {
		return
	}
	body := e.Payloads[0][1:]
	switch keyspace.Op(e.Payloads[0][0]) {
	case machine.OpPropose:
		if wanted, err := scope.DecodeWanted(body); err == nil {
			p.learn(wanted.Policy)
		}
	case machine.OpAdopt:
		r := fields.Reader{Rest: body}
		r.Bytes() // the proof
		if rules, err := scope.DecodePolicy(r.Bytes()); err == nil {
			p.learn(rules)
		}
	}
}

// all returns every entry, those of one segment's log in order.
func (p *past) all() (out []*lineage.Entry) {
	for _, id := range slices.Sorted(maps.Keys(p.own)) {
		out = append(out, p.own[id]...)
	}
	return out
}

// last returns the newest decision about a segment that stands in its log below an
// index, or the one that it came from; nil if that is not kept.
func (p *past) last(segment anchormesh.SegmentID, index uint64) *lineage.Entry {
	list := p.own[segment]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].Index >= index {
			continue
		}
		next := i+1 < len(list)
		if next && list[i+1].Previous[0] != list[i].Hash() || !next && !p.alive[segment] {
			return nil // something between is not kept
		}
		return list[i]
	}
	if birth := p.births[segment]; birth != nil && (len(list) == 0 || list[0].Previous[0] == birth.Hash()) {
		return birth
	}
	return nil
}

// inForce is what a segment is governed by at a place.
type inForce struct {
	scope      []byte
	version    uint64
	policy     *policy.Policy // nil: the mesh's default
	generation anchormesh.Generation
	voters     []anchormesh.NodeID
}

// at returns what held for an entry at an index; ok is false if that is not kept.
func (p *past) at(segment anchormesh.SegmentID, index uint64) (out inForce, ok bool) {
	e := p.last(segment, index)
	if e == nil {
		return out, false
	}
	left, _ := e.Leaves(segment)
	out.generation, out.voters = left.Generation, e.Voters.Incoming
	rule, ok := p.rule(e)
	if !ok {
		return out, false
	}
	out.scope, out.version = rule.Scope, rule.Version
	out.policy, ok = p.policies[rule.Policy]
	return out, ok
}

// rule returns what was put in force by an entry or one before it; the zero rule is the
// mesh's default.
func (p *past) rule(e *lineage.Entry) (lineage.Rule, bool) {
	for e != nil {
		if governs(e) {
			return e.Rule, true
		}
		if e.Kind == lineage.Genesis {
			return lineage.Rule{}, true
		}
		e = p.entries[e.Previous[0]]
	}
	return lineage.Rule{}, false
}

// governs reports whether an entry puts a policy in force in its own segment: a home's
// decision about its own scope, or an adoption. Decisions about others have numbers, too.
func governs(e *lineage.Entry) bool {
	own := bytes.Equal(e.Rule.From, e.Rule.Scope) && e.Evidence.Reason != lineage.Recovery
	return e.Kind == lineage.Policy && (own || len(e.Evidence.Numbers) == 0)
}

// Anew is how often a segment with keys of a prefix lost its majority and began anew.
func (b *Books) Anew(prefix string) (n int) {
	keys := anchormesh.PrefixRange([]byte(prefix))
	for _, e := range newPast(b).all() {
		if e.Kind == lineage.Recovered && e.After.Range.Overlaps(keys) {
			n++
		}
	}
	return n
}

// thresholds are those that effective weights have to fit under a policy.
func thresholds(p *policy.Policy) []trust.Threshold {
	if p == nil {
		return []trust.Threshold{{}}
	}
	out := []trust.Threshold{p.Amend.Threshold}
	if !p.Approvals.Threshold.IsZero() {
		out = append(out, p.Approvals.Threshold)
	}
	return out
}
