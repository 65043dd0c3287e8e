package audit

import (
	"bytes"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

// decisions counts the votes behind every decision again.
func decisions(c *Case, p *past, l *ledgers) Verdict {
	v := Verdict{Name: "decisions: every change had the votes that the version in force asked for"}
	for _, e := range p.all() {
		if e.Kind != lineage.Policy || !e.Rule.Decision.IsZero() || len(e.Evidence.Numbers) < 4 {
			continue
		}
		held, known := p.at(e.Segment, e.Index)
		box := ballots(c, e)
		if !known || box == nil || !l.of(e.Segment).whole {
			v.Unknown++
			continue
		}
		v.Judged++
		if why := box.wrong(e, &held, l.of(e.Segment).at(e.Index)); why != "" {
			v.broken("segment %s, index %d: version %d of the policy of scope %q: %s", e.Segment, e.Index, e.Rule.Version, e.Rule.Scope, why)
		}
	}
	return v
}

// box is the votes on one proposal.
type box struct {
	proposal *scope.Proposal // nil: nobody made it
	why      string          // what the deciding vote lacks
	approve  map[anchormesh.NodeID]bool
}

// ballots finds the votes behind a decision, which the last of them made; nil if the log
// does not have them any more.
func ballots(c *Case, e *lineage.Entry) *box {
	log := c.Books.Logs[e.Segment]
	if log == nil || !log.Whole {
		return nil
	}
	out := &box{approve: make(map[anchormesh.NodeID]bool)}
	wanted, cast := spoken(log, e.Index)
	if len(cast) == 0 || cast[len(cast)-1].index != e.Index {
		out.why = "no vote made it"
		return out
	}
	last := &cast[len(cast)-1]
	for _, p := range wanted {
		p.ID = last.id
		if c.Verify(last.vote.Node, p.Statement(e.Mesh, e.Segment, last.vote.Approve), last.vote.Signature) {
			out.proposal = p
		}
	}
	if out.proposal == nil {
		out.why = fmt.Sprintf("the vote of node %s that decided it is not signed, or is about nothing that was proposed", last.vote.Node.Short())
		return out
	}
	for i := range cast {
		b := &cast[i]
		signed := b.id == out.proposal.ID && c.Verify(b.vote.Node, out.proposal.Statement(e.Mesh, e.Segment, b.vote.Approve), b.vote.Signature)
		if _, twice := out.approve[b.vote.Node]; signed && !twice {
			out.approve[b.vote.Node] = b.vote.Approve
		}
	}
	return out
}

// ballot is a vote at its place.
type ballot struct {
	index uint64
	id    uint64
	vote  scope.Vote
}

// spoken returns what was proposed and voted in a home's log, up to an index.
func spoken(log *Log, upTo uint64) (wanted []*scope.Proposal, cast []ballot) {
	for i := range log.Entries {
		e := &log.Entries[i]
		if e.Index > upTo {
			break
		}
		if len(e.Payloads) == 0 || len(e.Payloads[0]) == 0 {
			continue
		}
		switch body := e.Payloads[0][1:]; keyspace.Op(e.Payloads[0][0]) {
		case machine.OpPropose:
			if p, err := scope.DecodeWanted(body); err == nil {
				p.Index, p.Term = e.Index, e.Term
				wanted = append(wanted, &p)
			}
		case machine.OpVote:
			if id, vote, err := scope.DecodeVote(body); err == nil {
				cast = append(cast, ballot{e.Index, id, vote})
			}
		}
	}
	return wanted, cast
}

// wrong says what is wrong with a decision.
func (b *box) wrong(e *lineage.Entry, held *inForce, now *trust.Ledger) string {
	p := b.proposal
	switch {
	case p == nil:
		return b.why
	case p.ID != e.Evidence.Numbers[0] || p.Operator != e.Evidence.Operator:
		return fmt.Sprintf("it names proposal %d of %q, and the votes are on %d of %q", e.Evidence.Numbers[0], e.Evidence.Operator, p.ID, p.Operator)
	case p.Kind != scope.Recover && (!bytes.Equal(p.Subject, e.Rule.Scope) || p.Version != e.Rule.Version || scope.PolicyHash(p.Policy) != e.Rule.Policy):
		return "it is not what was proposed"
	case p.Base != held.version:
		return fmt.Sprintf("it was proposed against version %d, and %d was in force", p.Base, held.version)
	}
	electorate := trust.Elect(now.Of(held.voters), thresholds(held.policy)...)
	approved := uint64(0)
	for node, yes := range b.approve {
		if yes {
			approved += uint64(electorate.Weight(node))
		}
	}
	need := uint64(electorate.Need(amend(held.policy)))
	switch {
	case approved != e.Evidence.Numbers[1] || uint64(electorate.Sum()) != e.Evidence.Numbers[2]:
		return fmt.Sprintf("the tally is %d of %d, and the votes make %d of %d", e.Evidence.Numbers[1], e.Evidence.Numbers[2], approved, electorate.Sum())
	case approved < need:
		return fmt.Sprintf("%d of %d were for it, and the version in force asks for %d", approved, electorate.Sum(), need)
	}
	return ""
}

func amend(p *policy.Policy) trust.Threshold {
	if p == nil {
		return trust.Threshold{}
	}
	return p.Amend.Threshold
}
