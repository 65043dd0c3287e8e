package scope

import (
	"bytes"
	"errors"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/trust"
)

func three() *policy.Policy { return &policy.Policy{Anchors: policy.Anchors{Count: 3}} }

func full(t testing.TB) *Record {
	t.Helper()
	e := trust.Elect([]trust.Weight{{Node: "a", Weight: 1}, {Node: "b", Weight: 1}, {Node: "c", Weight: 1}})
	r := &Record{}
	step := func(next *Record, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		r = next
	}
	step(r.Propose(nil, Proposal{Kind: Amend, Version: 1, Policy: three(), Operator: "me", AtMillis: 5}, Place{5, 1}))
	for i, n := range []anchormesh.NodeID{"c", "a"} {
		next, _, err := r.Vote(1, Vote{Node: n, Approve: true, Signature: []byte("s")}, e, Place{6 + uint64(i), 1})
		step(next, err)
	}
	step(r.Propose(nil, Proposal{Kind: Create, Base: 1, Subject: []byte("/a"), Version: 1, Policy: three()}, Place{9, 2}))
	step(r.Propose(nil, Proposal{Kind: Recover, Base: 1, Segment: 4, Survivor: "b"}, Place{10, 2}))
	step(r.Propose(nil, Proposal{Kind: Split, Base: 1, Segment: 4, Generation: 2, Key: []byte("k")}, Place{10, 2}))
	step(r.Propose(nil, Proposal{Kind: Move, Base: 1, Segment: 4, Generation: 2, From: "a", To: "b"}, Place{10, 2}))
	for i, n := range []anchormesh.NodeID{"a", "b"} {
		next, _, err := r.Vote(2, Vote{Node: n, Approve: true}, e, Place{11 + uint64(i), 2})
		step(next, err)
	}
	for i, n := range []anchormesh.NodeID{"b", "c"} {
		next, _, err := r.Vote(3, Vote{Node: n, Approve: true}, e, Place{14 + uint64(i), 2})
		step(next, err)
	}
	next, _, err := r.Vote(4, Vote{Node: "a", Why: "no"}, e, Place{16, 2})
	step(next, err)
	return r
}

// Whatever a home carries out may wait for a segment that has lost its majority: its
// recovery goes beside it, one at a time, and a deletion ends behind it.
func TestARecoveryWaitsForNothing(t *testing.T) {
	e := trust.Elect([]trust.Weight{{Node: "a", Weight: 1}})
	decide := func(r *Record, p Proposal) *Record {
		t.Helper()
		next, err := r.Propose([]byte("/s"), p, Place{1, 1})
		if err == nil {
			next, _, err = next.Vote(next.Next, Vote{Node: "a", Approve: true}, e, Place{2, 1})
		}
		if err != nil {
			t.Fatalf("%s: %v", p.Kind, err)
		}
		return next
	}
	lost := Proposal{Kind: Recover, Subject: []byte("/s/x"), Segment: 4, Survivor: "a"}
	for _, doing := range []Proposal{
		{Kind: Create, Subject: []byte("/s/x"), Version: 1, Policy: three()},
		{Kind: Delete, Anchors: 3},
		{Kind: Split, Subject: []byte("/s"), Segment: 4, Generation: 2, Key: []byte("/s/k")},
	} {
		r := decide(decide(&Record{}, doing), lost)
		if r.Doing.Kind != doing.Kind || r.Recovering.Segment != 4 || r.Recoveries != 1 {
			t.Fatalf("%s: %+v beside %+v", doing.Kind, r.Recovering, r.Doing)
		}
		if _, err := r.Propose([]byte("/s"), lost, Place{3, 1}); !errors.Is(err, ErrBusy) {
			t.Errorf("%s: another recovery: %v", doing.Kind, err)
		}
		_, err := r.Finish(r.Doing.ID, Decided, "", Place{4, 1})
		if waits := doing.Kind == Delete; waits != errors.Is(err, ErrBusy) || !waits && err != nil {
			t.Errorf("%s: ended during a recovery: %v", doing.Kind, err)
		}
		for _, id := range []uint64{r.Recovering.ID, r.Doing.ID} {
			if r, err = r.Finish(id, Decided, "", Place{5, 1}); err != nil {
				t.Fatalf("%s: %v", doing.Kind, err)
			}
		}
		if r.Doing != nil || r.Recovering != nil {
			t.Errorf("%s: %+v, %+v", doing.Kind, r.Doing, r.Recovering)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(full(f).Encode())
	f.Add((&Record{}).Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err == nil && !bytes.Equal(r.Encode(), data) {
			t.Fatalf("%+v is encoded in two ways", r)
		}
	})
}

func FuzzDecodeWanted(f *testing.F) {
	f.Add(full(f).Doing.EncodeWanted())
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodeWanted(data)
		if err == nil && !bytes.Equal(p.EncodeWanted(), data) {
			t.Fatalf("%+v is encoded in two ways", p)
		}
	})
}

func FuzzDecodeVote(f *testing.F) {
	f.Add(EncodeVote(7, &Vote{Node: "a", Approve: true, Why: "w", Signature: []byte("s")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		id, v, err := DecodeVote(data)
		if err != nil {
			return
		}
		again, w, err := DecodeVote(EncodeVote(id, &v))
		if err != nil || again != id || w.Node != v.Node || w.Approve != v.Approve || w.Why != v.Why {
			t.Fatalf("%+v came back as %+v, %v", v, w, err)
		}
	})
}

func TestRecordIsReadBack(t *testing.T) {
	r := full(t)
	got, err := Decode(r.Encode())
	if err != nil || !bytes.Equal(got.Encode(), r.Encode()) || got.Doing == nil || got.Recovering == nil || got.Recoveries != 1 || len(got.Open) != 2 || len(got.Versions) != 1 {
		t.Fatalf("%+v came back as %+v, %v", r, got, err)
	}
	for cut := range len(r.Encode()) {
		if _, err := Decode(r.Encode()[:cut]); err == nil {
			t.Fatalf("cut to %d bytes it is read", cut)
		}
	}
}

// What a vote needs follows from the voters' effective weights, of which no minority that
// Raft tolerates to be missing decides or blocks: not from the threshold alone.
func TestNeedIsCapped(t *testing.T) {
	weights := []trust.Weight{{Node: "a", Weight: 100}, {Node: "b", Weight: 30}, {Node: "c", Weight: 20}}
	for _, c := range []struct {
		threshold policy.Fraction
		approve   []anchormesh.NodeID
		decided   bool
	}{
		{policy.Fraction{}, []anchormesh.NodeID{"a"}, false},
		{policy.Fraction{}, []anchormesh.NodeID{"b", "c"}, true},
		{policy.Fraction{}, []anchormesh.NodeID{"a", "c"}, true},
		{policy.Fraction{Num: 2, Den: 3}, []anchormesh.NodeID{"b", "c"}, true},
		{policy.Fraction{Num: 2, Den: 3}, []anchormesh.NodeID{"a"}, false},
	} {
		e := trust.Elect(weights, c.threshold)
		p := &policy.Policy{Anchors: policy.Anchors{Count: 3}, Amend: policy.Amend{Threshold: c.threshold}}
		r, err := (&Record{Versions: []Version{{Number: 1, Policy: p}}}).Propose(nil, Proposal{Kind: Amend, Base: 1, Version: 2, Policy: three()}, Place{1, 1})
		for _, n := range c.approve {
			if err == nil {
				r, _, err = r.Vote(1, Vote{Node: n, Approve: true}, e, Place{2, 1})
			}
		}
		if err != nil || len(r.Open) == 0 != c.decided {
			t.Errorf("%v by %v of %v: %d open, %v", c.threshold, c.approve, weights, len(r.Open), err)
		}
	}
}
