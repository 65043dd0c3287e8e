package audit

import (
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

const (
	mesh    = anchormesh.MeshID(7)
	segment = anchormesh.SegmentID(1)
	term    = 3
)

var nodes = []anchormesh.NodeID{"a", "b", "c"}

// sign stands for a signature: only who knows the node's name and the statement has it,
// which is enough for a test of who counts what.
func sign(node anchormesh.NodeID, statement []byte) []byte {
	sum := sha256.Sum256(append([]byte(node), statement...))
	return sum[:]
}

func signed(node anchormesh.NodeID, statement, signature []byte) bool {
	return string(sign(node, statement)) == string(signature)
}

// world is a mesh of one segment whose root scope got two policies: the first by the
// votes of a and b, the second, which wants approvals, by those of a, b and c.
type world struct {
	chain      *lineage.Chain
	generation anchormesh.Generation
	ledger     *trust.Ledger
	record     scope.Record
	entries    []Entry
	asked      []Asked
	puts       []Put
	// What a test may spoil while the world is made.
	tally   func(version uint64, numbers []uint64)
	ballots func(version uint64, votes []scope.Vote) []scope.Vote
	reports func(p *trust.Poll, reports []trust.Report)
	batch   func(b *approval.Batch)
	number  func(version uint64) uint64
	act     func(b *approval.Batch, command []byte) []byte
}

func (w *world) next() uint64 { return uint64(len(w.entries)) + 2 } // genesis stands at 1

func (w *world) log(command []byte) uint64 {
	i := w.next()
	w.entries = append(w.entries, Entry{Index: i, Term: term, Generation: w.generation, Payloads: [][]byte{command}})
	return i
}

func policies() (one, two *policy.Policy) {
	one, two = policy.Standard(), policy.Standard()
	one.Amend.Threshold = policy.Fraction{Num: 3, Den: 5}
	two.Class, two.Approvals.Threshold = anchormesh.Strong, policy.Fraction{Num: 1, Den: 2}
	return one, two
}

// amend proposes a version, has it voted on by the first voters, and enters the decision.
func (w *world) amend(version uint64, p *policy.Policy, voters int, sum, total uint64) {
	operator := "operator " + string(rune('0'+version))
	wanted := &scope.Proposal{Kind: scope.Amend, Base: version - 1, Version: version, Policy: p, Operator: operator}
	wanted.Index, wanted.Term, wanted.ID = w.log(machine.Propose(wanted)), term, version
	var votes []scope.Vote
	for _, n := range nodes[:voters] {
		votes = append(votes, scope.Vote{Node: n, Approve: true, Signature: sign(n, wanted.Statement(mesh, segment, true))})
	}
	if w.ballots != nil {
		votes = w.ballots(version, votes)
	}
	at := uint64(0)
	for i := range votes {
		at = w.log(machine.CastVote(wanted.ID, &votes[i]))
	}
	numbers := []uint64{version, sum, total, 0}
	if w.tally != nil {
		w.tally(version, numbers)
	}
	number := version
	if w.number != nil {
		number = w.number(version)
	}
	why := lineage.Evidence{Reason: lineage.Operator, Operator: operator, Numbers: numbers}
	chain, err := w.chain.Policy(lineage.Place{Index: at, Term: term}, lineage.Rule{Version: number, Policy: p.Hash()}, false, why)
	if err != nil {
		panic(err)
	}
	w.chain = chain
	w.record.Versions = append(w.record.Versions, scope.Version{Number: number, Policy: p, Operator: operator, Proposal: version, Index: at, Term: term})
	w.record.InForce = number
	w.asked = append(w.asked, Asked{Operator: operator, Policy: p.Hash(), Told: version})
}

// trusts has a and b report that all do well.
func (w *world) trusts() {
	p := &trust.Poll{Mesh: mesh, Segment: segment, Generation: w.generation, Term: term, Version: w.ledger.Version(), Ledger: w.ledger.Digest(), Voters: nodes}
	var reports []trust.Report
	for _, n := range nodes[:2] {
		r := trust.Report{By: n, Measures: []trust.Measure{{Answered: 30}, {Answered: 30}, {Answered: 30}}}
		r.Signature = sign(n, p.Statement(&r))
		reports = append(reports, r)
	}
	_, held, err := trust.ParseEntry(p.AppendEntry(nil, reports)) // a copy: what is planted is in the log alone
	if err != nil {
		panic(err)
	}
	next, err := w.ledger.Next(p, held, w.next(), term)
	if err != nil {
		panic(err)
	}
	if w.reports != nil {
		w.reports(p, reports)
	}
	w.log(machine.Trusted(p, reports, next.Of(nodes)))
	w.ledger = next
}

// writes has a put approved by the first two.
func (w *world) writes(key string, sequence uint64) {
	request, err := proto.Marshal(&etcdserverpb.PutRequest{Key: []byte(key), Value: []byte("v")})
	if err != nil {
		panic(err)
	}
	request = append([]byte{byte(keyspace.OpPut)}, request...)
	b := &approval.Batch{Slots: []approval.Slot{{Bytes: request}}, Question: approval.Question{
		Mesh: mesh, Segment: segment, Generation: w.generation, Term: term, Sequence: sequence, Policy: 2, Trust: w.ledger.Version(),
		Index: w.next() - 1, Requests: 1, Digest: approval.Digest([]anchormesh.Hash{approval.Sum(request)}),
	}}
	for _, n := range nodes[:2] {
		b.Votes = append(b.Votes, approval.Vote{Node: n})
	}
	vote := func() {
		for i := range b.Votes {
			b.Votes[i].Signature = sign(b.Votes[i].Node, b.Question.Statement(&b.Votes[i]))
		}
	}
	vote()
	if w.batch != nil {
		question := b.Question
		if w.batch(b); b.Question != question {
			vote() // voters that lie together
		}
	}
	w.log(b.Append([]byte{byte(machine.OpApproved)}))
	w.puts = append(w.puts, Put{Key: key, Value: "v", Revision: int64(w.next())})
}

// cuts has the segment cut in two, by the votes of a and b.
func (w *world) cuts(at string) {
	split := &machine.Split{At: []byte(at), Right: segment + 1}
	q := approval.NewAct(approval.Question{Mesh: mesh, Segment: segment, Generation: w.generation, Term: term, Policy: 1, Index: w.next() - 1}, split.Command())
	b := &approval.Batch{Question: q, Slots: []approval.Slot{{Bytes: split.Command()}}}
	for _, n := range nodes[:2] {
		vote := approval.Vote{Node: n}
		vote.Signature = sign(n, q.Statement(&vote))
		b.Votes = append(b.Votes, vote)
	}
	command := machine.Agreed(b)
	if w.act != nil {
		command = w.act(b, split.Command())
	}
	left, _, err := w.chain.Split(lineage.Place{Index: w.log(command), Term: term}, split.At, split.Right, split.Evidence)
	if err != nil {
		panic(err)
	}
	w.chain = left
	w.generation++
}

// made lets the world happen.
func made(spoil func(*world)) *Case {
	w := &world{generation: 1}
	if spoil != nil {
		spoil(w)
	}
	var err error
	voters := lineage.Voters{Incoming: nodes}
	w.chain, err = lineage.Begin(mesh, segment, lineage.Extent{Generation: 1}, lineage.Place{Index: 1, Term: 1}, voters, lineage.Evidence{})
	if err != nil {
		panic(err)
	}
	one, two := policies()
	w.amend(1, one, 2, 20, 30)
	w.cuts("m")
	w.trusts()
	w.amend(2, two, 3, 39, 39)
	w.writes("k1", 1)
	w.writes("k2", 2)
	state := &machine.State{
		Descriptor: &anchormesh.Descriptor{Mesh: mesh, Segment: segment, Generation: w.generation, Policy: 2}, Chain: w.chain,
		Policy: two, Scope: &w.record, Trust: w.ledger,
	}
	return &Case{
		Books: &Books{Logs: map[anchormesh.SegmentID]*Log{segment: {Entries: w.entries, Whole: true}}, States: []*machine.State{state}},
		Puts:  w.puts, Asked: w.asked, Verify: signed,
	}
}

// broken runs the auditors and returns the names of those that found something, and what.
func broken(c *Case) (names []string, text string, unknown int) {
	for _, v := range Judge(c) {
		unknown += v.Unknown
		if v.Err != nil {
			name, _, _ := strings.Cut(v.Name, ":")
			names = append(names, name)
			text += v.Err.Error() + "\n"
			if !errors.Is(v.Err, ErrGovernance) {
				panic(v.Err)
			}
		}
	}
	return names, text, unknown
}

func TestWhatIsInOrderHolds(t *testing.T) {
	c := made(nil)
	if names, text, unknown := broken(c); len(names) > 0 || unknown > 0 {
		t.Fatalf("%v, %d unknown\n%s", names, unknown, text)
	}
	for _, v := range Judge(c) {
		if v.Judged == 0 {
			t.Errorf("%s: nothing was judged", v.Name)
		}
	}
}

// What is not kept is counted, not judged.
func TestWhatIsNotKeptIsNotJudged(t *testing.T) {
	c := made(nil)
	log := c.Books.Logs[segment]
	log.Whole, log.Entries = false, log.Entries[len(log.Entries)-1:]
	names, text, unknown := broken(c)
	if len(names) > 0 || unknown < 4 {
		t.Errorf("%v, %d unknown\n%s", names, unknown, text)
	}
}

// Each auditor finds what is planted for it, and says what it is.
func TestPlantedFaultsAreFound(t *testing.T) {
	for _, p := range []struct {
		name, finds, says string
		spoil             func(*world)
		after             func(*Case)
	}{
		{"two entries at one place", "logs", "index 4", nil, func(c *Case) { c.Books.Forks = []string{"segment 1, index 4: terms 1 and 2"} }},

		{"one vote of three", "approvals", "13 of 20", func(w *world) { w.batch = func(b *approval.Batch) { b.Votes = b.Votes[:1] } }, nil},
		{"a vote that nobody signed", "approvals", "did not sign", func(w *world) {
			w.batch = func(b *approval.Batch) { b.Votes[0].Signature = []byte("x") }
		}, nil},
		{"one who votes twice", "approvals", "twice", func(w *world) { w.batch = func(b *approval.Batch) { b.Votes[1] = b.Votes[0] } }, nil},
		{"a vote of nobody's", "approvals", "no vote", func(w *world) {
			w.batch = func(b *approval.Batch) {
				b.Votes[1].Node = "d"
				b.Votes[1].Signature = sign("d", b.Question.Statement(&b.Votes[1]))
			}
		}, nil},
		{"other requests than were voted on", "approvals", "other requests", func(w *world) {
			w.batch = func(b *approval.Batch) { b.Slots[0].Bytes = append(b.Slots[0].Bytes, 0x40, 0x01) }
		}, nil},
		{"votes under the policy before", "approvals", "version 1 of the policy", func(w *world) {
			w.batch = func(b *approval.Batch) { b.Question.Policy = 1 }
		}, nil},
		{"votes under other weights", "approvals", "version 0 of the weights", func(w *world) {
			w.batch = func(b *approval.Batch) { b.Question.Trust = 0 }
		}, nil},
		{"a batch that comes twice", "approvals", "admitted before", func(w *world) {
			w.batch = func(b *approval.Batch) { b.Question.Sequence = 1 }
		}, nil},
		{"votes of another term", "approvals", "term", func(w *world) { w.batch = func(b *approval.Batch) { b.Question.Term-- } }, nil},
		{"a refusal that was passed over", "approvals", "13 of 20", func(w *world) {
			w.batch = func(b *approval.Batch) {
				b.Votes[0].Refusals = []approval.Refusal{{Request: 0, Rule: "no"}}
				b.Votes[0].Signature = sign("a", b.Question.Statement(&b.Votes[0]))
			}
		}, nil},
		{"a write past the voters", "approvals", "no log has votes", nil, func(c *Case) { c.Puts = append(c.Puts, Put{Key: "k3", Value: "v"}) }},
		{"another value than was voted on", "approvals", "no log has votes", nil, func(c *Case) { c.Puts[0].Value = "w" }},

		{"a tally that the votes do not make", "decisions", "the tally is 30 of 30", func(w *world) {
			w.tally = func(_ uint64, n []uint64) { n[1] = n[2] }
		}, nil},
		{"a decision below the threshold", "decisions", "asks for 16", func(w *world) {
			w.ballots = func(version uint64, votes []scope.Vote) []scope.Vote {
				if version == 1 {
					return votes[:1]
				}
				return votes
			}
			w.tally = func(version uint64, n []uint64) {
				if version == 1 {
					n[1] = 10
				}
			}
		}, nil},
		{"a decision by the threshold of the policy it brings", "decisions", "asks for 24", func(w *world) {
			w.ballots = func(version uint64, votes []scope.Vote) []scope.Vote {
				if version == 2 {
					return votes[1:2]
				}
				return votes
			}
			w.tally = func(version uint64, n []uint64) {
				if version == 2 {
					n[1] = 13
				}
			}
		}, nil},
		{"a vote on a change that nobody signed", "decisions", "is not signed", func(w *world) {
			w.ballots = func(_ uint64, votes []scope.Vote) []scope.Vote {
				votes[len(votes)-1].Signature = []byte("x")
				return votes
			}
		}, nil},
		{"one who votes twice on a change", "decisions", "the votes make", func(w *world) {
			w.ballots = func(_ uint64, votes []scope.Vote) []scope.Vote { votes[1] = votes[0]; return votes }
		}, nil},

		{"a cut that nobody voted on", "structure", "without votes", func(w *world) {
			w.act = func(_ *approval.Batch, command []byte) []byte { return command }
		}, nil},
		{"one vote of three on a cut", "structure", "10 of 18", func(w *world) {
			w.act = func(b *approval.Batch, _ []byte) []byte { b.Votes = b.Votes[:1]; return machine.Agreed(b) }
		}, nil},
		{"a vote on a cut that nobody signed", "structure", "did not sign", func(w *world) {
			w.act = func(b *approval.Batch, _ []byte) []byte {
				b.Votes[0].Signature = []byte("x")
				return machine.Agreed(b)
			}
		}, nil},
		{"votes on another cut", "structure", "other requests", func(w *world) {
			w.act = func(b *approval.Batch, _ []byte) []byte {
				b.Slots[0].Bytes = (&machine.Split{At: []byte("m"), Right: segment + 2}).Command()
				return machine.Agreed(b)
			}
		}, nil},
		{"votes on a cut of another term", "structure", "another generation, term", func(w *world) {
			w.act = func(b *approval.Batch, _ []byte) []byte { b.Question.Term--; return machine.Agreed(b) }
		}, nil},

		{"a version left out", "versions", "from version 1 to 3", func(w *world) {
			w.number = func(version uint64) uint64 { return 2*version - 1 }
		}, nil},
		{"a version again", "versions", "backwards", func(w *world) { w.number = func(uint64) uint64 { return 1 } }, nil},
		{"an adoption of another decision", "versions", "by a decision about version 2", nil, func(c *Case) {
			e := *c.Books.States[0].Chain.Last()
			e.Rule.Decision, e.Rule.Version, e.Evidence.Numbers = e.Hash(), 3, nil
			e.Previous, e.Height, e.Index = []anchormesh.Hash{c.Books.States[0].Chain.Head()}, e.Height+1, e.Index+1
			chain, err := c.Books.States[0].Chain.Append(&e)
			if err != nil {
				panic(err)
			}
			c.Books.States[0].Chain = chain
		}},
		{"in force before it was decided", "versions", "is said to be in force", nil, func(c *Case) { c.Books.States[0].Scope.InForce = 9 }},

		{"weights that no report makes", "trust", "does not follow", func(w *world) {
			w.reports = func(_ *trust.Poll, reports []trust.Report) { reports[0].Measures[1].Missed = 30 }
		}, nil},
		{"a report that nobody signed", "trust", "does not follow", func(w *world) {
			w.reports = func(_ *trust.Poll, reports []trust.Report) { reports[0].Signature = []byte("x") }
		}, nil},

		{"a change that nobody asked for", "changes", "asked for nothing", nil, func(c *Case) { c.Asked = c.Asked[:1] }},
		{"another policy than was asked for", "changes", "is not the policy", nil, func(c *Case) { c.Asked[0].Policy[0]++ }},
		{"a change in force that is not there", "changes", "newest one in the record is 2", nil, func(c *Case) {
			c.Asked = append(c.Asked, Asked{Operator: "x", Told: 3})
		}},
	} {
		t.Run(p.name, func(t *testing.T) {
			c := made(p.spoil)
			if p.after != nil {
				p.after(c)
			}
			names, text, _ := broken(c)
			if !strings.Contains(strings.Join(names, " "), p.finds) || !strings.Contains(text, p.says) {
				t.Errorf("found by %v, want %s and %q:\n%s", names, p.finds, p.says, text)
			}
		})
	}
}
