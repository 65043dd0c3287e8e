package scope

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/trust"
)

// Place is where an entry stands in the home's log.
type Place struct{ Index, Term uint64 }

// Tally is how a proposal stands, in weights of the voters in force.
type Tally struct {
	Approved, Refused, Total uint64
	// Needed is the least weight that decides.
	Needed uint64
}

// Decided reports whether enough approve.
func (t Tally) Decided() bool { return t.Total > 0 && t.Approved >= t.Needed }

// Hopeless reports whether enough cannot approve any more.
func (t Tally) Hopeless() bool { return t.Total-t.Refused < t.Needed }

// Threshold is what a proposal must reach by the rules of the newest version.
func (r *Record) Threshold() policy.Fraction {
	if v := r.Newest(); v.Policy != nil {
		return v.Policy.Amend.Threshold
	}
	return policy.Fraction{}
}

// Tally counts the votes on a proposal among the voters in force.
func (r *Record) Tally(p *Proposal, e *trust.Electorate) Tally {
	t := Tally{Total: uint64(e.Sum()), Needed: uint64(e.Need(r.Threshold()))}
	for _, v := range p.Votes {
		switch {
		case !votes(e, v.Node):
		case v.Approve:
			t.Approved += uint64(e.Weight(v.Node))
		default:
			t.Refused += uint64(e.Weight(v.Node))
		}
	}
	return t
}

// votes reports whether a node is among the voters: each weighs something.
func votes(e *trust.Electorate, n anchormesh.NodeID) bool { return e.Weight(n) > 0 }

// clone returns a copy whose slices may be appended to and whose open proposals may be
// replaced.
func (r *Record) clone() *Record {
	c := *r
	c.Versions, c.Open, c.Closed = slices.Clone(r.Versions), slices.Clone(r.Open), slices.Clone(r.Closed)
	return &c
}

// Propose opens a proposal. The errors are ErrVersion, ErrBusy and ErrProposal.
func (r *Record) Propose(prefix []byte, p Proposal, at Place) (*Record, error) {
	if err := r.admits(prefix, &p); err != nil {
		return nil, err
	}
	out := r.clone()
	out.Next++
	p.ID, p.Index, p.Term, p.Votes = out.Next, at.Index, at.Term, nil
	out.Open = append(out.Open, &p)
	return out, nil
}

func (r *Record) admits(prefix []byte, p *Proposal) error {
	if err := p.valid(prefix, r.Newest().Number); err != nil {
		return err
	}
	switch {
	case p.Base != r.Newest().Number:
		return fmt.Errorf("%w: version %d is in force, not %d", ErrVersion, r.Newest().Number, p.Base)
	case len(r.Open) >= OpenMax:
		return fmt.Errorf("%w: %d proposals are open", ErrBusy, len(r.Open))
	case r.Deleting() && p.Kind != Recover:
		return fmt.Errorf("%w: it is being deleted", ErrBusy)
	}
	if doing := *r.place(p.Kind); doing != nil && p.Kind != Amend {
		return fmt.Errorf("%w: proposal %d, to %s %q, is being carried out", ErrBusy, doing.ID, doing.Kind, doing.Subject)
	}
	return nil
}

// valid checks what a proposal says by itself.
func (p *Proposal) valid(prefix []byte, newest uint64) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrProposal, fmt.Sprintf(format, args...))
	}
	if p.AtMillis < 0 || p.Anchors < 0 {
		return wrong("a time or a number below zero")
	}
	if len(p.Subject) > PrefixBytesMax || len(p.Operator) > OperatorBytesMax || len(EncodePolicy(p.Policy)) > policy.BytesMax {
		return wrong("a prefix has at most %d bytes, an operator's name %d, a policy %d", PrefixBytesMax, OperatorBytesMax, policy.BytesMax)
	}
	inside := len(p.Subject) > len(prefix) && bytes.HasPrefix(p.Subject, prefix)
	switch p.Kind {
	case Amend:
		if !bytes.Equal(p.Subject, prefix) || p.Policy == nil || p.Version != newest+1 {
			return wrong("an amendment is a policy, the next version of the scope")
		}
	case Create:
		if !inside || p.Policy == nil || p.Version != 1 {
			return wrong("a new scope is inside this one and has a policy")
		}
	case Delete:
		if len(p.Subject) >= len(prefix) || !bytes.HasPrefix(prefix, p.Subject) || (p.Policy == nil) != (p.Version == 0) {
			return wrong("a scope is given back to one around it")
		}
		if p.Policy == nil && p.Anchors < 1 {
			return wrong("the number of anchors is missing")
		}
	case Recover:
		if p.Segment == 0 || p.Survivor == "" || p.Policy != nil || !bytes.HasPrefix(p.Subject, prefix) {
			return wrong("a recovery names a segment inside the scope and a surviving node")
		}
	case Split, Merge, Move:
		return p.validOrder(prefix, wrong)
	default:
		return wrong("%s is not known here", p.Kind)
	}
	return nil
}

func (p *Proposal) validOrder(prefix []byte, wrong func(string, ...any) error) error {
	moves := p.From != "" && p.To != "" && p.From != p.To && len(p.Key) == 0
	cuts := p.From == "" && p.To == "" && len(p.Key) > 0 && len(p.Key) <= KeyBytesMax
	if p.Segment == 0 || p.Generation == 0 || p.Policy != nil || !bytes.Equal(p.Subject, prefix) {
		return wrong("an order names a segment of the scope and its generation")
	}
	if p.Kind == Move && !moves || p.Kind != Move && !cuts {
		return wrong("a split or merge names a key of at most %d bytes, a move two nodes", KeyBytesMax)
	}
	return nil
}

// Decision is a proposal that an entry decided.
type Decision struct {
	*Proposal
	Tally Tally
}

// Vote counts a vote and returns the decision if this one decides. Whoever calls has
// checked the signature. The errors are ErrNoProposal and ErrVote.
func (r *Record) Vote(id uint64, v Vote, e *trust.Electorate, at Place) (*Record, *Decision, error) {
	i := r.find(id)
	if i < 0 {
		return nil, nil, fmt.Errorf("%w: %d", ErrNoProposal, id)
	}
	if !votes(e, v.Node) {
		return nil, nil, fmt.Errorf("%w: node %s does not vote in the home's group", ErrVote, v.Node.Short())
	}
	if len(v.Why) > NoteBytesMax || len(v.Signature) > signatureBytesMax || len(r.Open[i].Votes) >= votesMax {
		return nil, nil, fmt.Errorf("%w: its reason has more than %d bytes, its signature more than %d, or %d have voted",
			ErrVote, NoteBytesMax, signatureBytesMax, votesMax)
	}
	at2, voted := slices.BinarySearchFunc(r.Open[i].Votes, v.Node, func(v Vote, n anchormesh.NodeID) int { return cmp.Compare(v.Node, n) })
	if voted {
		return nil, nil, fmt.Errorf("%w: node %s has voted already", ErrVote, v.Node.Short())
	}
	out, p := r.clone(), *r.Open[i]
	p.Votes = slices.Insert(slices.Clone(p.Votes), at2, v)
	out.Open[i] = &p
	return out.judge(i, e, at)
}

// judge ends the open proposal i if its votes suffice, either way. r is the caller's.
func (r *Record) judge(i int, e *trust.Electorate, at Place) (*Record, *Decision, error) {
	p := r.Open[i]
	t := r.Tally(p, e)
	switch {
	case t.Decided():
		r.counted(p, e, t)
		if p.Kind != Amend && *r.place(p.Kind) != nil { // decided behind another one that was open beside it
			r.end(i, Outdated, "another change is being carried out", at)
			return r, nil, nil
		}
		return r, r.decide(i, t, at), nil
	case t.Hopeless():
		r.counted(p, e, t)
		r.end(i, Refused, p.refusal(), at)
	}
	return r, nil, nil
}

// refusal is the first reason that a voter gave.
func (p *Proposal) refusal() string {
	for _, v := range p.Votes {
		if !v.Approve {
			return fmt.Sprintf("node %s: %s", v.Node.Short(), v.Why)
		}
	}
	return ""
}

func (r *Record) decide(i int, t Tally, at Place) *Decision {
	p := r.Open[i]
	d := &Decision{Proposal: p, Tally: t}
	if p.Kind != Amend {
		*r.place(p.Kind) = p
		if p.Kind == Recover {
			r.Recoveries++
		}
		r.Open = slices.Delete(r.Open, i, i+1)
		if p.Kind == Delete {
			r.outdate("the scope is being deleted", at)
		}
		return d
	}
	r.end(i, Decided, "", at)
	r.Versions = append(r.Versions, Version{
		Number: p.Version, Policy: p.Policy, Operator: p.Operator, AtMillis: p.AtMillis, Proposal: p.ID,
		Index: at.Index, Term: at.Term, Approved: t.Approved, Total: t.Total,
	})
	r.trim()
	r.outdate(fmt.Sprintf("version %d was decided meanwhile", p.Version), at)
	return d
}

// trim forgets the oldest versions beyond the limits.
func (r *Record) trim() {
	sum, keep := 0, 0
	for i := len(r.Versions) - 1; i >= 0; i-- {
		if sum += len(EncodePolicy(r.Versions[i].Policy)); keep > 0 && (sum > historyBytesMax || keep == VersionsMax) {
			break
		}
		keep++
	}
	r.Versions = slices.Clone(r.Versions[len(r.Versions)-keep:])
}

// outdate ends every proposal that is open.
func (r *Record) outdate(why string, at Place) {
	for len(r.Open) > 0 {
		r.end(0, Outdated, why, at)
	}
}

// end closes the open proposal i.
func (r *Record) end(i int, o Outcome, note string, at Place) {
	p := r.Open[i]
	r.Open = slices.Delete(r.Open, i, i+1)
	r.close(p, o, note, at)
}

func (r *Record) close(p *Proposal, o Outcome, note string, at Place) {
	if len(note) > NoteBytesMax {
		note = note[:NoteBytesMax]
	}
	r.Closed = append(r.Closed, Closed{
		ID: p.ID, Kind: p.Kind, Subject: p.Subject, Version: p.Version, Operator: p.Operator, AtMillis: p.AtMillis,
		Outcome: o, Note: note, Index: at.Index,
	})
	if cut := len(r.Closed) - ClosedMax; cut > 0 {
		r.Closed = slices.Clone(r.Closed[cut:])
	}
}

// Close ends an open proposal without a decision: Expired or Withdrawn.
func (r *Record) Close(id uint64, o Outcome, note string, at Place) (*Record, error) {
	i := r.find(id)
	if i < 0 {
		return nil, fmt.Errorf("%w: %d", ErrNoProposal, id)
	}
	if o != Expired && o != Withdrawn {
		return nil, fmt.Errorf("%w: %s is decided by votes", ErrProposal, o)
	}
	out := r.clone()
	out.end(i, o, note, at)
	return out, nil
}

// Finish ends what was being carried out: Decided if it was done, Abandoned if it
// cannot be. A scope that was deleted has no record any more; nothing abandons that, and
// it waits for a recovery. The errors are ErrNoProposal, ErrProposal and ErrBusy.
func (r *Record) Finish(id uint64, o Outcome, note string, at Place) (*Record, error) {
	p, carried := r.Carried(id)
	switch {
	case !carried:
		return nil, fmt.Errorf("%w: %d", ErrNoProposal, id)
	case o != Decided && (o != Abandoned || p.Kind == Delete):
		return nil, fmt.Errorf("%w: what is being carried out does not end as %s", ErrProposal, o)
	case p.Kind == Delete && r.Recovering != nil:
		return nil, fmt.Errorf("%w: segment %s is being recovered", ErrBusy, r.Recovering.Segment)
	}
	out := r.clone()
	*out.place(p.Kind) = nil
	out.close(p, o, note, at)
	return out, nil
}

// Adopted notes that all segments of the scope have adopted a version.
func (r *Record) Adopted(number uint64) (*Record, error) {
	if number <= r.InForce || number > r.Newest().Number {
		return nil, fmt.Errorf("%w: version %d is in force, %d the newest", ErrVersion, r.InForce, r.Newest().Number)
	}
	out := *r
	out.InForce = number
	return &out, nil
}

// Begun is the record of a scope that was just created.
func Begun(v Version) *Record { return &Record{Versions: []Version{v}} }

// Entered names the lineage's entry about what was decided just now.
func (r *Record) Entered(k Kind, entry anchormesh.Hash) *Record {
	out := r.clone()
	if k == Amend {
		out.Versions[len(out.Versions)-1].Entry = entry
		return out
	}
	doing := **out.place(k)
	doing.Entry = entry
	*out.place(k) = &doing
	return out
}
