package scope

import (
	"bytes"
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
	next, _, err := r.Vote(3, Vote{Node: "a", Why: "no"}, e, Place{14, 2})
	step(next, err)
	return r
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
	if err != nil || !bytes.Equal(got.Encode(), r.Encode()) || got.Doing == nil || len(got.Open) != 3 || len(got.Versions) != 1 {
		t.Fatalf("%+v came back as %+v, %v", r, got, err)
	}
	for cut := range len(r.Encode()) {
		if _, err := Decode(r.Encode()[:cut]); err == nil {
			t.Fatalf("cut to %d bytes it is read", cut)
		}
	}
}
