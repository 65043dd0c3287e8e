package audit

import (
	"bytes"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

// versions makes sure that each segment went from version to version in order, and by
// decisions that exist.
func versions(b *Books, p *past) Verdict {
	v := Verdict{Name: "versions: adopted in order, each by a decision about it"}
	before := make(map[anchormesh.SegmentID]*lineage.Entry)
	for _, e := range p.all() {
		if governs(e) {
			v.adopted(p, before[e.Segment], e)
			before[e.Segment] = e
		}
	}
	for _, s := range b.States {
		if s.Scope != nil {
			v.record(s.Descriptor.Scope, s.Scope)
		}
	}
	return v
}

// adopted judges what a segment adopted behind something else; nil: nothing is known.
func (v *Verdict) adopted(p *past, before, e *lineage.Entry) {
	v.Judged++
	if before != nil && bytes.Equal(before.Rule.Scope, e.Rule.Scope) {
		if why := follows(before, e); why != "" {
			v.broken("segment %s, index %d: scope %q goes from version %d to %d: %s",
				e.Segment, e.Index, e.Rule.Scope, before.Rule.Version, e.Rule.Version, why)
		}
	}
	if e.Rule.Decision.IsZero() {
		return
	}
	switch by := p.entries[e.Rule.Decision]; {
	case by == nil:
		v.Unknown++
	case by.Kind != lineage.Policy || !bytes.Equal(by.Rule.Scope, e.Rule.Scope) || by.Rule.Version != e.Rule.Version || by.Rule.Policy != e.Rule.Policy:
		v.broken("segment %s, index %d: it adopted version %d of scope %q by a decision about version %d of %q",
			e.Segment, e.Index, e.Rule.Version, e.Rule.Scope, by.Rule.Version, by.Rule.Scope)
	}
}

// follows says why one version cannot come behind another in a segment. What a home
// decided is affirmed under the same number, for others to sign.
func follows(before, e *lineage.Entry) string {
	affirmed := !e.Rule.Decision.IsZero() && bytes.Equal(e.Rule.From, e.Rule.Scope) && len(e.Evidence.Numbers) > 0
	switch {
	case affirmed && e.Rule.Version == before.Rule.Version && e.Rule.Policy == before.Rule.Policy:
		return ""
	case e.Rule.Version <= before.Rule.Version && bytes.Equal(e.Rule.From, e.Rule.Scope):
		return "backwards"
	case e.Rule.Decision.IsZero() && e.Rule.Version != before.Rule.Version+1:
		return "a home leaves none out"
	}
	return ""
}

func (v *Verdict) record(prefix []byte, r *scope.Record) {
	for i := 1; i < len(r.Versions); i++ {
		a, b := &r.Versions[i-1], &r.Versions[i]
		v.Judged++
		if b.Number != a.Number+1 || b.Index <= a.Index || b.Proposal <= a.Proposal && a.Number > 1 {
			v.broken("scope %q: version %d, of proposal %d at index %d, is followed by %d, of proposal %d at index %d",
				prefix, a.Number, a.Proposal, a.Index, b.Number, b.Proposal, b.Index)
		}
	}
	if r.InForce > r.Newest().Number {
		v.broken("scope %q: version %d is said to be in force, and %d is the newest", prefix, r.InForce, r.Newest().Number)
	}
}

// Asked is a change that an operator asked for.
type Asked struct {
	Scope    string
	Operator string          // who said so, and nobody else
	Policy   anchormesh.Hash // of the policy as it was asked for
	// Told is the version that the operator was told to be in force; 0: none.
	Told uint64
}

// changes compares what scopes remember with what was asked for.
func changes(c *Case) Verdict {
	v := Verdict{Name: "changes: all that was told to be in force, and nothing that nobody asked for"}
	type change struct{ scope, operator string }
	asked := make(map[change]*Asked)
	for i := range c.Asked {
		asked[change{c.Asked[i].Scope, c.Asked[i].Operator}] = &c.Asked[i]
	}
	newest := make(map[string]*scope.Record)
	for _, s := range c.Books.States {
		if r := s.Scope; r != nil {
			at := string(s.Descriptor.Scope)
			if old := newest[at]; old == nil || old.Newest().Number < r.Newest().Number {
				newest[at] = r
			}
		}
	}
	for prefix, r := range newest {
		for i := range r.Versions {
			version := &r.Versions[i]
			v.Judged++
			switch a := asked[change{prefix, version.Operator}]; {
			case a == nil:
				v.broken("scope %q: version %d is by %q, who asked for nothing", prefix, version.Number, version.Operator)
			case a.Policy != scope.PolicyHash(version.Policy):
				v.broken("scope %q: version %d is not the policy that %q asked for", prefix, version.Number, version.Operator)
			}
		}
	}
	for _, a := range c.Asked {
		if r := newest[a.Scope]; r != nil && a.Told != 0 {
			if why := missing(r, &a); why != "" {
				v.broken("scope %q: %q was told that version %d is in force: %s", a.Scope, a.Operator, a.Told, why)
			}
		}
	}
	return v
}

func missing(r *scope.Record, a *Asked) string {
	version, kept := r.Find(a.Told)
	switch {
	case kept && version.Operator != a.Operator:
		return fmt.Sprintf("the record has one by %q", version.Operator)
	case r.Newest().Number < a.Told:
		return fmt.Sprintf("the newest one in the record is %d", r.Newest().Number)
	}
	return ""
}
