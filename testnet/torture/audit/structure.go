package audit

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

// structure makes sure that every cut, and every merge when it was opened, had the votes
// of the segment's anchors, or a decision of its scope's home.
func structure(c *Case, p *past, l *ledgers) Verdict {
	v := Verdict{Name: "structure: nothing was cut or merged without its anchors' votes, or a decision"}
	for _, e := range p.all() {
		if e.Kind != lineage.Split && e.Kind != lineage.Merge {
			continue
		}
		log := c.Books.Logs[e.Segment]
		if log == nil || !log.Whole {
			v.Unknown++
			continue
		}
		why, known := log.agreed(c, p, l, e)
		switch {
		case !known:
			v.Unknown++
		case why != "":
			v.broken("segment %s, index %d: a %s: %s", e.Segment, e.Index, e.Kind, why)
		default:
			v.Judged++
		}
	}
	return v
}

// agreed says what a change of structure lacks. Of the entries that open one attempt a
// log may hold several that were refused: one has to do.
func (log *Log) agreed(c *Case, p *past, l *ledgers, e *lineage.Entry) (why string, known bool) {
	why = "nothing in the log makes it"
	for _, at := range log.began(e) {
		held, known := p.at(e.Segment, at.Index)
		if !known || !l.of(e.Segment).whole {
			return "", false
		}
		if why = agreed(c, p, e.Segment, at, &held, l.of(e.Segment).at(at.Index)); why == "" {
			break
		}
	}
	return why, true
}

// began finds the entry that made a split, or those that open the attempt that a merge
// ended.
func (log *Log) began(e *lineage.Entry) (found []*Entry) {
	var absorbs []byte
	for i := range slices.Backward(log.Entries) {
		at := &log.Entries[i]
		switch {
		case at.Index > e.Index || len(at.Payloads) == 0:
		case at.Index == e.Index && e.Kind == lineage.Split:
			return []*Entry{at}
		case at.Index == e.Index:
			absorbs = attempt(at.Payloads[0], machine.OpAbsorb)
		case absorbs != nil && bytes.Equal(attempt(inner(at.Payloads[0]), machine.OpOpen), absorbs):
			found = append(found, at)
		}
	}
	return found
}

// inner is the command that an entry carries.
func inner(payload []byte) []byte {
	if len(payload) > 0 && keyspace.Op(payload[0]) == machine.OpAgreed {
		a, _ := machine.ParseAgreed(payload[1:])
		return a.Command
	}
	return payload
}

// attempt is the number that a command of one kind begins with, as it stands there.
func attempt(command []byte, op keyspace.Op) []byte {
	if len(command) == 0 || keyspace.Op(command[0]) != op {
		return nil
	}
	r := fields.Reader{Rest: command[1:]}
	r.Number()
	r.Number()
	if r.Bad {
		return nil
	}
	return command[1 : len(command)-len(r.Rest)]
}

// agreed says what the entry of a change of structure lacks.
func agreed(c *Case, p *past, segment anchormesh.SegmentID, e *Entry, held *inForce, now *trust.Ledger) string {
	payload := e.Payloads[0]
	if keyspace.Op(payload[0]) != machine.OpAgreed {
		return "it came without votes or a decision"
	}
	a, err := machine.ParseAgreed(payload[1:])
	switch {
	case err != nil:
		return err.Error()
	case a.By != nil:
		return decidedBy(c, p, segment, &a, held)
	case held.policy != nil && held.policy.Amend.Manual:
		return "operators vote there, not anchors"
	}
	q := &a.Votes.Question
	switch {
	case !q.Act() || q.Generation != e.Generation || q.Term != e.Term || q.Index >= e.Index:
		return "the votes are about another generation, term or place"
	case q.Policy != held.version:
		return fmt.Sprintf("the votes are about version %d of the policy, and %d is in force", q.Policy, held.version)
	case q.Trust != now.Version():
		return fmt.Sprintf("the votes are about version %d of the weights, and %d is in force", q.Trust, now.Version())
	}
	voters := trust.Elect(now.Of(held.voters), thresholds(held.policy)...)
	if why := forged(a.Votes, voters, c.Verify); why != "" {
		return why
	}
	if sum, need := approving(a.Votes, 0, voters), voters.Need(amend(held.policy)); sum < need {
		return fmt.Sprintf("%d of %d", sum, need)
	}
	return ""
}

// decidedBy says what is wrong with a decision that allowed a change of structure; that
// the decision itself had its votes is judged with all others.
func decidedBy(c *Case, p *past, segment anchormesh.SegmentID, a *machine.Agreement, held *inForce) string {
	e, o := a.By.Proof.Entry, a.By.Order
	switch {
	case p.entries[e.Hash()] == nil:
		return "nobody decided that"
	case len(held.scope) > 0 && !bytes.HasPrefix(held.scope, e.Rule.From):
		return fmt.Sprintf("scope %q decided that, and the segment was in %q", e.Rule.From, held.scope)
	case o != nil && (o.Segment != segment || o.Generation != held.generation):
		return "it was ordered for another segment or generation"
	}
	if err := a.By.Proof.Verify(e.Voters, c.Verify); err != nil {
		return err.Error()
	}
	return ""
}
