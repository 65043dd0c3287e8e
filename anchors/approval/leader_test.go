package approval

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/trust"
)

// TestLeader runs one leader per script. It takes two requests of 10 bytes a batch.
//
//	lead term=N [trust=N] [generation=N] [weights=10,10,10]   voters a, b, c; a threshold of half
//	depose
//	submit X Y Z        requests, by name
//	vote N SEQUENCE [refuse=0,1]; abstain N SEQUENCE
//	ended SEQUENCE ok|failed
//	wait MS
func TestLeader(t *testing.T) {
	datadriven.Walk(t, "testdata/leader", func(t *testing.T, path string) {
		l := NewLeader[string](Config{BatchRequests: 2, BatchBytes: 20, WaitingBytes: 40, Patience: time.Second})
		now := time.Unix(0, 0)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			var out strings.Builder
			number := func(i int) uint64 {
				n, err := strconv.ParseUint(d.CmdArgs[i].Key, 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			switch d.Cmd {
			case "lead":
				l.Lead(seat(t, d))
			case "depose":
				l.Deposed()
			case "submit":
				for _, arg := range d.CmdArgs {
					name := fmt.Sprintf("%-10s", arg.Key)
					if err := l.Submit(Request[string]{Command: []byte(name), Tag: arg.Key}); err != nil {
						fmt.Fprintf(&out, "%s: %v\n", arg.Key, err)
					}
				}
			case "vote":
				v := &Vote{Node: anchormesh.NodeID(d.CmdArgs[0].Key)}
				var list string
				if d.HasArg("refuse") {
					d.ScanArgs(t, "refuse", &list)
					for _, s := range strings.Split(list, "+") {
						n, _ := strconv.Atoi(s)
						v.Refusals = append(v.Refusals, Refusal{Request: n, Rule: "rule of " + string(v.Node)})
					}
				}
				l.Voted(number(1), v.Node, v)
			case "abstain":
				l.Voted(number(1), anchormesh.NodeID(d.CmdArgs[0].Key), nil)
			case "ended":
				l.Ended(number(0), d.CmdArgs[1].Key == "ok")
			case "wait":
				now = now.Add(time.Duration(number(0)) * time.Millisecond)
				l.Tick(now)
			default:
				t.Fatalf("unknown command %s", d.Cmd)
			}
			fx := l.Take(now)
			tell(&out, &fx)
			return out.String()
		})
	})
}

func seat(t *testing.T, d *datadriven.TestData) Seat {
	s := Seat{Mesh: 7, Segment: 9, Generation: 1, Policy: 1, Threshold: policy.Fraction{Num: 1, Den: 2}}
	weights := []trust.Weight{{Node: "a", Weight: 10}, {Node: "b", Weight: 10}, {Node: "c", Weight: 10}}
	for _, arg := range d.CmdArgs {
		n, _ := strconv.ParseUint(arg.Vals[0], 10, 64)
		switch arg.Key {
		case "term":
			s.Term = n
		case "trust":
			s.Trust = n
		case "generation":
			s.Generation = anchormesh.Generation(n)
		default:
			t.Fatalf("no field %s", arg.Key)
		}
	}
	s.Voters = trust.Elect(weights, s.Threshold)
	return s
}

func tell(out *strings.Builder, fx *Effects[string]) {
	for _, r := range fx.Ready {
		fmt.Fprintf(out, "propose batch %d of term %d:", r.Question.Sequence, r.Question.Term)
		for i, q := range r.Requests {
			fmt.Fprintf(out, " %s%s", q.Tag, said(r.Verdicts[i]))
		}
		out.WriteString("; votes of")
		for _, v := range r.Votes {
			fmt.Fprintf(out, " %s", v.Node)
		}
		out.WriteString("\n")
	}
	for _, r := range fx.Refused {
		fmt.Fprintf(out, "answer %s%s\n", r.Tag, said(r.Verdict))
	}
	for _, tag := range fx.Back {
		fmt.Fprintf(out, "give back %s: %v\n", tag, fx.BackErr)
	}
	if s := fx.Show; s != nil {
		fmt.Fprintf(out, "show batch %d of term %d behind %d:", s.Question.Sequence, s.Question.Term, s.Behind)
		for _, r := range s.Requests {
			fmt.Fprintf(out, " %s", strings.TrimSpace(string(r)))
		}
		out.WriteString("\n")
	}
}

func said(v Verdict) string {
	if v.Admitted {
		return ""
	}
	return fmt.Sprintf(" (refused by %s: %s)", v.By, v.Refusal.Rule)
}

// A voter signs one batch for each place, and none for a place it is past.
func TestAVoterSignsOneBatchForEachPlace(t *testing.T) {
	var a Approver
	ask := func(term, sequence uint64, digest byte) error {
		return a.May(&Question{Term: term, Sequence: sequence, Digest: anchormesh.Hash{digest}})
	}
	for _, c := range []struct {
		term, sequence uint64
		digest         byte
		may            bool
	}{
		{2, 1, 1, true}, {2, 1, 1, true}, {2, 1, 2, false}, {2, 3, 2, true}, {2, 2, 2, false}, {1, 9, 9, false}, {3, 1, 1, true}, {2, 4, 1, false},
	} {
		if err := ask(c.term, c.sequence, c.digest); (err == nil) != c.may {
			t.Errorf("term %d, sequence %d, batch %d: %v", c.term, c.sequence, c.digest, err)
		}
	}
}

func sample() *Batch {
	b := &Batch{
		Question: Question{Mesh: 7, Segment: 9, Generation: 3, Configuration: 40, Term: 5, Sequence: 6, Policy: 2, Trust: 1, Index: 99, Requests: 2},
		Slots:    []Slot{{Bytes: []byte("xxput"), Prefix: 2}, {Sum: Sum([]byte("no"))}},
		Votes: []Vote{
			{Node: "a", Refusals: []Refusal{{Request: 1, Rule: "short", Denied: true}}, Signature: []byte("a's")},
			{Node: "b", Signature: []byte("b's")},
		},
	}
	b.Question.Digest = Digest([]anchormesh.Hash{Sum([]byte("put")), b.Slots[1].Sum})
	return b
}

// Every field of the question, and every word of the vote, is signed.
func TestEverythingIsSigned(t *testing.T) {
	base := sample()
	statement := func(change func(q *Question, v *Vote)) string {
		q, v := base.Question, base.Votes[0]
		v.Refusals = append([]Refusal{}, v.Refusals...)
		change(&q, &v)
		return string(q.Statement(&v))
	}
	seen := map[string]int{statement(func(*Question, *Vote) {}): -1}
	for i, change := range []func(q *Question, v *Vote){
		func(q *Question, _ *Vote) { q.Mesh++ }, func(q *Question, _ *Vote) { q.Segment++ }, func(q *Question, _ *Vote) { q.Generation++ },
		func(q *Question, _ *Vote) { q.Configuration++ }, func(q *Question, _ *Vote) { q.Term++ }, func(q *Question, _ *Vote) { q.Sequence++ },
		func(q *Question, _ *Vote) { q.Policy++ }, func(q *Question, _ *Vote) { q.Trust++ }, func(q *Question, _ *Vote) { q.Index++ },
		func(q *Question, _ *Vote) { q.Requests++ }, func(q *Question, _ *Vote) { q.Digest[5]++ },
		func(_ *Question, v *Vote) { v.Node = "z" }, func(_ *Question, v *Vote) { v.Refusals = nil },
		func(_ *Question, v *Vote) { v.Refusals[0].Request = 0 }, func(_ *Question, v *Vote) { v.Refusals[0].Rule = "long" },
		func(_ *Question, v *Vote) { v.Refusals[0].Denied = false },
	} {
		s := statement(change)
		if other, known := seen[s]; known {
			t.Errorf("change %d signs the same as change %d", i, other)
		}
		seen[s] = i
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample().Append(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := Parse(data)
		if err != nil {
			return
		}
		if again := b.Append(nil); string(again) != string(data) {
			t.Fatalf("%x came back as %x", data, again)
		}
		in := InForce{Mesh: 7, Segment: 9, Generation: 3, Configuration: 40, Term: 5, Policy: 2, Trust: 1, Index: 100, Voters: trust.Elect([]trust.Weight{{Node: "a", Weight: 9}, {Node: "b", Weight: 9}})}
		_, _ = b.Judge(&in, func(anchormesh.NodeID, []byte, []byte) bool { return true })
	})
}

func FuzzParseQuestion(f *testing.F) {
	b := sample()
	f.Add(AppendQuestion(nil, &b.Question, [][]byte{[]byte("put"), []byte("no")}))
	f.Add(AppendVote(nil, &b.Votes[0]))
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, requests, err := ParseQuestion(data); err == nil {
			if again := AppendQuestion(nil, q, requests); string(again) != string(data) {
				t.Fatalf("%x came back as %x", data, again)
			}
		}
		if v, err := ParseVote(data); err == nil {
			if again := AppendVote(nil, v); string(again) != string(data) {
				t.Fatalf("%x came back as %x", data, again)
			}
		}
	})
}
