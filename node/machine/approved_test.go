package machine

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// signed is a signature that everybody can check, and who signs honestly makes.
func signed(node anchormesh.NodeID, statement []byte) []byte {
	sum := approval.Sum(append([]byte(node), statement...))
	return sum[:]
}

func (b *bench) verify(node anchormesh.NodeID, statement, signature []byte) bool {
	return string(signature) == string(signed(node, statement))
}

// strong is the policy of a scope whose writes need half of the trust.
func strong() *policy.Policy {
	return &policy.Policy{
		Class: anchormesh.Strong, Anchors: policy.Anchors{Count: 3},
		Approvals: policy.Approvals{Threshold: policy.Fraction{Num: 1, Den: 2}},
	}
}

// newStrongBench is a bench of three voters under a policy; nil: etcd's contract.
func newStrongBench(t testing.TB, p *policy.Policy) *bench {
	store, err := mvcc.Open(bolt.NewMemory(), mvcc.DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Founding(&anchormesh.Descriptor{
		Mesh: 7, Segment: 9, Generation: 1, NextReplica: 4, Anchors: voters("a", "b", "c"), Policy: 4,
	}, 3, lineage.Place{Index: 5, Term: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Policy = p
	seg, err := store.Create(9, anchormesh.KeyRange{}, mvcc.Meta{Applied: 5, Term: 1, State: s.Encode()})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: store, index: 5}
	b.m = b.machine(seg)
	return b
}

// refusals are what voters refuse: by node, then by request, a rule.
type refusals map[anchormesh.NodeID]map[int]string

// show has a batch judged by voters, as the leader of term 2 shows it.
func (b *bench) show(sequence uint64, who []anchormesh.NodeID, no refusals, requests ...[]byte) *approval.Batch {
	in := b.m.InForce(b.index+1, 2)
	out := &approval.Batch{Question: approval.Question{
		Mesh: in.Mesh, Segment: in.Segment, Generation: in.Generation, Configuration: in.Configuration, Term: 2, Sequence: sequence,
		Policy: in.Policy, Trust: in.Trust, Index: b.index, Requests: len(requests),
	}}
	var sums []anchormesh.Hash
	for _, r := range requests {
		sums = append(sums, approval.Sum(r))
		out.Slots = append(out.Slots, approval.Slot{Bytes: r})
	}
	out.Question.Digest = approval.Digest(sums)
	for _, n := range who {
		v := approval.Vote{Node: n}
		for i := range requests {
			if rule, refused := no[n][i]; refused {
				v.Refusals = append(v.Refusals, approval.Refusal{Request: i, Rule: rule})
			}
		}
		v.Signature = signed(n, out.Question.Statement(&v))
		out.Votes = append(out.Votes, v)
	}
	return out
}

func entry(batch *approval.Batch) []byte { return batch.Append([]byte{byte(OpApproved)}) }

// in applies an entry in a term.
func (b *bench) in(term uint64, payload []byte) consensus.Outcome {
	b.index++
	return b.m.Apply(&consensus.Entry{Index: b.index, Term: term, Generation: b.m.Descriptor().Generation, Payloads: [][]byte{payload}}, true)[0]
}

func (b *bench) revision() int64 {
	rev, _ := b.m.Segment().Revision()
	return rev
}

var two = []anchormesh.NodeID{"a", "b"}

func TestAnApprovedBatchIsOneEntry(t *testing.T) {
	b := newStrongBench(t, strong())
	out := b.in(2, entry(b.show(1, two, nil, put("k", "1"), put("l", "2"))))
	if out.Err != nil || len(out.Parts) != 2 || out.Parts[0].Err != nil || len(out.Parts[1].Response) == 0 {
		t.Fatalf("%+v", out)
	}
	if b.revision() != 3 {
		t.Errorf("two puts brought the revision to %d", b.revision())
	}
}

// The stamp goes on after the votes: nobody voted on it, and it counts.
func TestStampsAreNotVotedOn(t *testing.T) {
	b := newStrongBench(t, strong())
	batch := b.show(1, two, nil, put("k", "1"), put("l", "2"))
	for i := range batch.Slots {
		batch.Slots[i] = approval.Slot{Bytes: stamped(int64(100+10*i), batch.Slots[i].Bytes), Prefix: keyspace.StampBytes}
	}
	if out := b.in(2, entry(batch)); out.Err != nil || b.revision() != 110 {
		t.Fatalf("%+v, revision %d", out, b.revision())
	}
}

// Counterexample 8: an approval serves once.
func TestCounterexample8Replay(t *testing.T) {
	for name, c := range map[string]struct {
		between func(b *bench)
		term    uint64
	}{
		"in the same term":         {between: func(*bench) {}, term: 2},
		"behind a later batch":     {between: func(b *bench) { b.in(2, entry(b.show(2, two, nil, put("k", "2")))) }, term: 2},
		"in a later term":          {between: func(*bench) {}, term: 3},
		"after a restart":          {between: func(b *bench) { b.m = b.machine(b.m.Segment()) }, term: 2},
		"after a change of voters": {between: (*bench).replaceC, term: 2},
		"after a change of policy": {between: func(b *bench) { b.amend(5) }, term: 2},
		"after a change of trust":  {between: func(b *bench) { b.judgeWell() }, term: 2},
		"after a split": {between: func(b *bench) {
			if out := b.apply(1, (&Split{At: []byte("x"), Right: 11}).Command()); out.Err != nil {
				b.t.Fatal(out.Err)
			}
		}, term: 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStrongBench(t, strong())
			first := entry(b.show(1, two, nil, put("k", "1")))
			if out := b.in(2, first); out.Err != nil {
				t.Fatal(out.Err)
			}
			c.between(b)
			before, refused := b.revision(), b.m.Refused()
			if out := b.in(c.term, first); !errors.Is(out.Err, approval.ErrStale) {
				t.Errorf("the same entry again: %+v", out)
			}
			if b.revision() != before || b.m.Refused() != refused+1 {
				t.Errorf("it took effect: revision %d, before %d", b.revision(), before)
			}
		})
	}
}

// A batch that was approved before a change and comes behind it is a known no-op too:
// it is shown again.
func TestCounterexample8ApprovedBeforeAChange(t *testing.T) {
	for name, change := range map[string]func(b *bench){
		"of voters": (*bench).replaceC,
		"of policy": func(b *bench) { b.amend(5) },
		"of trust":  (*bench).judgeWell,
	} {
		t.Run(name, func(t *testing.T) {
			b := newStrongBench(t, strong())
			batch := entry(b.show(1, two, nil, put("k", "1")))
			change(b)
			if out := b.in(2, batch); !errors.Is(out.Err, approval.ErrStale) || b.revision() != 1 {
				t.Fatalf("%+v, revision %d", out, b.revision())
			}
			if out := b.in(2, entry(b.show(2, two, nil, put("k", "1")))); out.Err != nil || b.revision() != 2 {
				t.Errorf("shown again: %+v, revision %d", out, b.revision())
			}
		})
	}
}

func TestCounterexample8OneVeto(t *testing.T) {
	b := newStrongBench(t, strong())
	all := []anchormesh.NodeID{"a", "b", "c"}
	if out := b.in(2, entry(b.show(1, all, refusals{"c": {0: "out of order"}}, put("k", "1")))); out.Parts[0].Err != nil || b.revision() != 2 {
		t.Errorf("one refusal of three blocks: %+v", out)
	}
	out := b.in(2, entry(b.show(2, all, refusals{"b": {0: "rule x refuses"}, "c": {0: "rule x refuses"}}, put("k", "2"))))
	var refused *RefusedError
	if !errors.As(out.Parts[0].Err, &refused) || refused.By != "b" || !strings.Contains(refused.Error(), "rule x refuses (refused by anchor b)") || b.revision() != 2 {
		t.Errorf("two refusals of three: %+v, revision %d", out.Parts[0], b.revision())
	}
}

func TestCounterexample8OneBadWriteOf64(t *testing.T) {
	b := newStrongBench(t, strong())
	var requests [][]byte
	for i := range 64 {
		requests = append(requests, put(fmt.Sprintf("k%02d", i), "v"))
	}
	no := refusals{"a": {17: "rule create_only"}, "b": {17: "rule create_only"}}
	batch := b.show(1, two, no, requests...)
	batch.Slots[17] = approval.Slot{Sum: approval.Sum(requests[17])} // the leader leaves it out
	out := b.in(2, entry(batch))
	if out.Err != nil || len(out.Parts) != 64 || b.revision() != 64 {
		t.Fatalf("%v, %d parts, revision %d", out.Err, len(out.Parts), b.revision())
	}
	for i, p := range out.Parts {
		if bad := i == 17; (p.Err != nil) != bad {
			t.Errorf("request %d: %v", i, p.Err)
		}
	}
}

// A leader that skips or forges approvals gets nothing past any replica.
func TestADoctoredLeadersEntriesAreRejected(t *testing.T) {
	honest := func(b *bench) *approval.Batch { return b.show(1, two, nil, put("k", "1")) }
	prepare := keyspace.AppendCommand(nil, keyspace.OpPrepare, nil)
	for name, c := range map[string]struct {
		payload func(b *bench) []byte
		is      error
	}{
		"skips them":          {func(*bench) []byte { return put("k", "1") }, ErrUnapproved},
		"hides behind stamps": {func(*bench) []byte { return stamped(50, put("k", "1")) }, ErrUnapproved},
		"skips them for a transaction over segments": {func(*bench) []byte { return stamped(50, prepare) }, ErrUnapproved},
		"signs for another": {func(b *bench) []byte {
			batch := honest(b)
			batch.Votes[1].Signature = signed("a", batch.Question.Statement(&batch.Votes[1]))
			return entry(batch)
		}, approval.ErrForged},
		"counts one twice": {func(b *bench) []byte {
			batch := honest(b)
			batch.Votes[1] = batch.Votes[0]
			return entry(batch)
		}, approval.ErrForged},
		"counts a stranger": {func(b *bench) []byte { return entry(b.show(1, []anchormesh.NodeID{"a", "z"}, nil, put("k", "1"))) }, approval.ErrForged},
		"exchanges the request": {func(b *bench) []byte {
			batch := honest(b)
			batch.Slots[0].Bytes = put("k", "another")
			return entry(batch)
		}, approval.ErrForged},
		"drops a refusal": {func(b *bench) []byte {
			batch := b.show(1, two, refusals{"b": {0: "no"}}, put("k", "1"))
			batch.Votes[1].Refusals = nil
			return entry(batch)
		}, approval.ErrForged},
		"raises the sequence": {func(b *bench) []byte {
			batch := honest(b)
			batch.Question.Sequence++
			return entry(batch)
		}, approval.ErrForged},
		"has something else voted on": {func(b *bench) []byte {
			return entry(b.show(1, two, nil, keyspace.AppendCommand(nil, keyspace.OpLeaseRevoke, nil)))
		}, approval.ErrForged},
		"has a stamp voted on": {func(b *bench) []byte { return entry(b.show(1, two, nil, stamped(50, put("k", "1")))) }, approval.ErrForged},
		"judged in the future": {func(b *bench) []byte {
			b.index += 10
			batch := honest(b)
			b.index -= 10
			return entry(batch)
		}, approval.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStrongBench(t, strong())
			told := 0
			b.m.OnForged(func(uint64, error) { told++ })
			if out := b.in(2, c.payload(b)); !errors.Is(out.Err, c.is) || b.revision() != 1 {
				t.Errorf("%+v, revision %d", out, b.revision())
			}
			if want := c.is == approval.ErrForged; (told == 1) != want {
				t.Errorf("told %d times of a forgery", told)
			}
		})
	}
}

// Too few votes admit nothing, although every one of them is good.
func TestVotesBelowTheThresholdAdmitNothing(t *testing.T) {
	b := newStrongBench(t, strong())
	out := b.in(2, entry(b.show(1, two[:1], nil, put("k", "1"))))
	var refused *RefusedError
	if !errors.As(out.Parts[0].Err, &refused) || b.revision() != 1 {
		t.Errorf("%+v, revision %d", out, b.revision())
	}
}

// What is no ordinary write needs no approvals, and shares entries with nobody's harm.
func TestWhatNeedsNoApprovals(t *testing.T) {
	b := newStrongBench(t, strong())
	compact := stamped(40, keyspace.AppendCommand(nil, keyspace.OpCompact, nil))
	b.index++
	out := b.m.Apply(&consensus.Entry{Index: b.index, Term: 2, Generation: 1, Payloads: [][]byte{put("k", "1"), compact}}, true)
	if !errors.Is(out[0].Err, ErrUnapproved) || errors.Is(out[1].Err, ErrUnapproved) {
		t.Errorf("%+v", out)
	}
	plain := newStrongBench(t, nil)
	if out := plain.apply(1, put("k", "1")); out.Err != nil {
		t.Errorf("a scope without approvals: %v", out.Err)
	}
	if out := plain.in(2, entry(plain.show(1, two, nil, put("k", "2")))); !errors.Is(out.Err, approval.ErrStale) {
		t.Errorf("and a batch that had some: %+v", out)
	}
}

func TestWhoWaitsForABatchIsTold(t *testing.T) {
	b := newStrongBench(t, strong())
	done, cancel := b.m.Admitted(2, 2)
	defer cancel()
	for sequence := range uint64(2) {
		select {
		case <-done:
			t.Fatal("told before the batch was admitted")
		default:
		}
		b.in(2, entry(b.show(sequence+1, two, nil, put("k", "1"))))
	}
	<-done
	again, _ := b.m.Admitted(1, 100)
	<-again
}

// replaceC puts voter d in c's place.
func (b *bench) replaceC() {
	next := b.m.Descriptor().Clone()
	next.Anchors = voters("a", "b", "d")
	next.Anchors[2].Replica, next.NextReplica = 4, 5
	b.index++
	b.m.Apply(&consensus.Entry{Index: b.index, Term: 2, Generation: 1, Conf: &consensus.ConfChange{
		Context: meshpb.EncodeDescriptor(next), State: &raftpb.ConfState{Voters: []uint64{1, 2, 4}},
	}}, true)
}

// amend puts another version of the policy in force.
func (b *bench) amend(version uint64) {
	s := *b.m.State()
	d := s.Descriptor.Clone()
	d.Policy = version
	s.Descriptor = d
	b.m.state.Store(&s)
}

// judgeWell applies a trust entry of three content voters.
func (b *bench) judgeWell() {
	if out := b.in(2, b.judged(2, trust.Measure{Answered: 9})); out.Err != nil {
		b.t.Fatal(out.Err)
	}
}

// judged is a trust entry in which all voters say the same of c, and well of the others.
func (b *bench) judged(term uint64, ofC trust.Measure) []byte {
	s := b.m.State()
	p, reports := b.reports(term, ofC)
	next, err := s.Weighs(p, reports, b.index+1, term)
	if err != nil {
		b.t.Fatal(err)
	}
	return Trusted(p, reports, next.Of(p.Voters))
}

func (b *bench) reports(term uint64, ofC trust.Measure) (*trust.Poll, []trust.Report) {
	s := b.m.State()
	p := &trust.Poll{Mesh: 7, Segment: 9, Generation: s.Descriptor.Generation, Term: term, Version: s.Trust.Version(), Ledger: s.Trust.Digest(), Voters: s.VoterNodes()}
	var reports []trust.Report
	for _, n := range p.Voters {
		r := trust.Report{By: n, Measures: slices.Repeat([]trust.Measure{{Answered: 9}}, len(p.Voters))}
		if i, found := slices.BinarySearch(p.Voters, "c"); found && n != "c" {
			r.Measures[i] = ofC
		}
		r.Signature = signed(n, p.Statement(&r))
		reports = append(reports, r)
	}
	return p, reports
}

func TestTrustEntries(t *testing.T) {
	b := newStrongBench(t, strong())
	b.judgeWell()
	if out := b.in(2, b.judged(2, trust.Measure{Missed: 9})); out.Err != nil {
		t.Fatal(out.Err)
	}
	s := b.m.State()
	if s.Trust.Version() != 2 || s.Trust.Weight("a") != 16 || s.Trust.Weight("c") != 3 {
		t.Errorf("version %d, weights %v", s.Trust.Version(), s.Trust.Weights())
	}
	again, err := DecodeState(s.Encode())
	if err != nil || again.Trust.Weight("c") != 3 || again.Trust.Replay() != nil {
		t.Errorf("read back: %v", err)
	}
	if out := b.apply(1, (&Split{At: []byte("x"), Right: 11}).Command()); out.Err != nil {
		t.Fatal(out.Err)
	}
	born := b.changes[len(b.changes)-1].Born
	if born.Trust.Version() != 2 || b.m.State().Trust.Version() != 2 {
		t.Error("a split forgot the ledger")
	}
}

func TestTrustEntriesThatAreRefused(t *testing.T) {
	for name, doctor := range map[string]func(b *bench) []byte{
		"of another term": func(b *bench) []byte { return b.judged(1, trust.Measure{}) },
		"without a majority": func(b *bench) []byte {
			p, reports := b.reports(2, trust.Measure{})
			return Trusted(p, reports[:1], nil)
		},
		"with a report nobody signed": func(b *bench) []byte {
			p, reports := b.reports(2, trust.Measure{})
			next, err := b.m.State().Weighs(p, reports, b.index+1, 2)
			if err != nil {
				b.t.Fatal(err)
			}
			reports[1].Signature = []byte("nobody")
			return Trusted(p, reports, next.Of(p.Voters))
		},
		"with other weights": func(b *bench) []byte {
			p, reports := b.reports(2, trust.Measure{})
			return Trusted(p, reports, []trust.Weight{{Node: "a", Weight: 100}, {Node: "b", Weight: 1}, {Node: "c", Weight: 1}})
		},
		"of another version": func(b *bench) []byte {
			old := b.judged(2, trust.Measure{Answered: 1})
			b.judgeWell()
			return old
		},
		"that changes nothing": func(b *bench) []byte {
			p, reports := b.reports(2, trust.Measure{})
			for i := range reports {
				clear(reports[i].Measures)
				reports[i].Signature = signed(reports[i].By, p.Statement(&reports[i]))
			}
			return Trusted(p, reports, []trust.Weight{{Node: "a", Weight: 10}, {Node: "b", Weight: 10}, {Node: "c", Weight: 10}})
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newStrongBench(t, strong())
			payload := doctor(b)
			before := b.m.State().Trust.Version()
			if out := b.in(2, payload); !errors.Is(out.Err, ErrRefused) || b.m.State().Trust.Version() != before {
				t.Errorf("%+v, version %d", out, b.m.State().Trust.Version())
			}
		})
	}
}

// BenchmarkApply64 compares what applying 64 puts costs a replica without and with the
// votes of two anchors, whose signatures are real.
func BenchmarkApply64(b *testing.B) {
	keys := map[anchormesh.NodeID]ed25519.PrivateKey{}
	for i, n := range two {
		keys[n] = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, 32))
	}
	var requests [][]byte
	for i := range 64 {
		requests = append(requests, put(fmt.Sprintf("key-%02d", i), strings.Repeat("v", 100)))
	}
	for _, approved := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "approved"}[approved], func(b *testing.B) {
			p := strong()
			if !approved {
				p = nil
			}
			m := newStrongBench(b, p)
			m.m.approvals.verify = func(n anchormesh.NodeID, statement, signature []byte) bool {
				return ed25519.Verify(keys[n].Public().(ed25519.PublicKey), statement, signature)
			}
			for i := range b.N {
				m.index++
				e := &consensus.Entry{Index: m.index, Term: 2, Generation: 1, Payloads: requests}
				if approved {
					b.StopTimer()
					batch := m.show(uint64(i+1), two, nil, requests...)
					batch.Question.Index = m.index - 1
					for i := range batch.Votes {
						v := &batch.Votes[i]
						v.Signature = ed25519.Sign(keys[v.Node], batch.Question.Statement(v))
					}
					e.Payloads = [][]byte{entry(batch)}
					b.StartTimer()
				}
				if out := m.m.Apply(e, false); len(out) > 0 && out[0].Err != nil {
					b.Fatal(out[0].Err)
				}
			}
		})
	}
}
