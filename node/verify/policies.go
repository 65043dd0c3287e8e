package verify

import (
	"bytes"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

// policies makes sure that every segment holds a version of its scope's policy that a
// home has decided, that all of one scope and version hold one policy, and that every
// scope has its home. A version that not all segments have adopted yet is no fault.
func (l *look) policies(a *archive) {
	type version struct {
		scope  string
		number uint64
	}
	homes := make(map[string]*anchormesh.Descriptor)
	for _, o := range l.Owners {
		if o.Descriptor.Home() {
			homes[string(o.Descriptor.Scope)] = o.Descriptor
		}
	}
	seen := make(map[version]*lineage.Entry)
	for _, o := range l.Owners {
		d := o.Descriptor
		home := homes[string(d.Scope)]
		switch {
		case home == nil:
			l.find(Policy, d.Segment, "", "segment %s is in scope %q, which has no home", d.Segment, d.Scope)
		case home.Policy > d.Policy:
			l.note("segment %s has adopted version %d of the policy of scope %q, its home version %d", d.Segment, d.Policy, d.Scope, home.Policy)
		}
		e, known := a.rule(d)
		switch {
		case !known && d.Policy == 0 && len(d.Scope) == 0:
			continue // it was never governed, by its own word
		case !known:
			l.note("what put version %d of the policy of scope %q in force in segment %s is not kept any more", d.Policy, d.Scope, d.Segment)
			continue
		case e == nil && (d.Policy != 0 || len(d.Scope) != 0):
			l.find(Policy, d.Segment, "", "segment %s is in scope %q at version %d, of which its lineage says nothing", d.Segment, d.Scope, d.Policy)
			continue
		case e == nil:
			continue
		case !bytes.Equal(e.Rule.Scope, d.Scope) || e.Rule.Version != d.Policy:
			l.find(Policy, d.Segment, "", "segment %s is in scope %q at version %d, by its lineage in %q at version %d",
				d.Segment, d.Scope, d.Policy, e.Rule.Scope, e.Rule.Version)
			continue
		}
		at := version{string(d.Scope), d.Policy}
		if other := seen[at]; other == nil {
			seen[at] = e
		} else if other.Rule.Policy != e.Rule.Policy {
			l.find(Policy, d.Segment, "", "version %d of the policy of scope %q is one in segment %s, and another in segment %s",
				d.Policy, d.Scope, d.Segment, other.Segment)
		}
		l.decided(a, d, e)
	}
}

// rule returns the entry that put in force what holds for a segment, nil if none ever
// did; known is false if that is not kept.
func (a *archive) rule(d *anchormesh.Descriptor) (e *lineage.Entry, known bool) {
	for e = a.entries[d.Lineage]; e != nil; e = a.entries[e.Previous[0]] {
		// Numbers are those of a vote: a decision is about its own segment only if it keeps the scope.
		own := bytes.Equal(e.Rule.From, e.Rule.Scope) && e.Evidence.Reason != lineage.Recovery
		if e.Kind == lineage.Policy && (own || len(e.Evidence.Numbers) == 0) {
			return e, true
		}
		if e.Kind == lineage.Genesis {
			return nil, true
		}
	}
	return nil, false
}

// decided follows an adoption to the decision of a home.
func (l *look) decided(a *archive, d *anchormesh.Descriptor, e *lineage.Entry) {
	for !e.Rule.Decision.IsZero() {
		by := a.entries[e.Rule.Decision]
		switch {
		case by == nil:
			l.note("the decision that segment %s adopted with version %d of the policy of scope %q is not kept any more", d.Segment, e.Rule.Version, e.Rule.Scope)
			return
		case by.Kind != lineage.Policy || !bytes.Equal(by.Rule.Scope, e.Rule.Scope) || by.Rule.Version != e.Rule.Version || by.Rule.Policy != e.Rule.Policy:
			l.find(Policy, d.Segment, "", "segment %s adopted version %d of the policy of scope %q by a decision about something else",
				d.Segment, e.Rule.Version, e.Rule.Scope)
			return
		}
		e = by
	}
}
