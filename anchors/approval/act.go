package approval

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
)

// An act is a change of a segment's structure that nobody needs to stay alive. It is
// voted on like a write, as the only request of a batch whose sequence is zero: acts are
// not counted within a term, for each makes the generation, or the attempt, another one,
// and so serves once.

// Act reports whether a question is about an act.
func (q *Question) Act() bool { return q.Sequence == 0 && q.Requests == 1 }

// NewAct returns a question about one act; what it is judged against is the caller's.
func NewAct(q Question, command []byte) Question {
	q.Sequence, q.Requests, q.Digest = 0, 1, Digest([]anchormesh.Hash{Sum(command)})
	return q
}

// JudgeAct counts the votes on an act whose entry is applied. The errors are Judge's.
func (b *Batch) JudgeAct(in *InForce, verify func(node anchormesh.NodeID, statement, signature []byte) bool) (Verdict, error) {
	if err := b.fits(in); err != nil {
		return Verdict{}, err
	}
	if !b.Question.Act() || b.Slots[0].Prefix != 0 {
		return Verdict{}, fmt.Errorf("%w: it is no act", ErrForged)
	}
	verdicts, err := b.tally(in, verify)
	if err != nil {
		return Verdict{}, err
	}
	return verdicts[0], nil
}

// Poll counts the votes on an act as they come in.
type Poll struct {
	in    *InForce
	votes []Vote
}

// NewPoll returns a poll among the voters in force.
func NewPoll(in *InForce) *Poll { return &Poll{in: in} }

// Count takes a verified vote of another node than before and says how the poll stands:
// admitted, or lost with the heaviest refusal; neither: more votes are needed.
func (p *Poll) Count(v *Vote) (verdict Verdict, lost bool) {
	i := 0
	for i < len(p.votes) && p.votes[i].Node < v.Node {
		i++
	}
	p.votes = append(p.votes[:i], append([]Vote{*v}, p.votes[i:]...)...)
	c := count(p.votes, 0, p.in.Voters)
	verdict = Verdict{Admitted: p.in.Voters.Reached(p.in.Threshold, c.approve), Refusal: c.first, By: c.by}
	return verdict, !verdict.Admitted && p.in.Voters.Lost(p.in.Threshold, c.refuse)
}

// Batch returns the act with the votes so far, as its entry carries it.
func (p *Poll) Batch(q Question, command []byte) *Batch {
	return &Batch{Question: q, Slots: []Slot{{Bytes: command}}, Votes: p.votes}
}

// Holds reports whether a question is about the state in force.
func (in *InForce) Holds(q *Question) bool {
	return in.Mesh == q.Mesh && in.Segment == q.Segment && in.Generation == q.Generation && in.Configuration == q.Configuration &&
		in.Policy == q.Policy && in.Trust == q.Trust
}
