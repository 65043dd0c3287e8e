package governor

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

func aQuestion() *question {
	return &question{kind: askSign, segment: 4, generation: 7, id: 9, flag: true, text: []byte("why"), body: []byte("body")}
}

func aChange() *Change {
	return &Change{
		Kind: scope.Move, Prefix: []byte("/s/"), Policy: policy.Standard(), Expect: 3, AnyVersion: true, Segment: 4, Survivor: "a",
		Key: []byte("/s/m"), From: "a", To: "b", Operator: "anna",
	}
}

func aView() *View {
	return &View{
		Prefix: []byte("/s/"), Home: 4, Leader: "a", Voters: []anchormesh.NodeID{"a", "b"}, Weights: []uint64{10, 50}, Needed: 11, Anchors: 3,
		Record:   &scope.Record{InForce: 2, Next: 5},
		Open:     []Standing{{ID: 3, Tally: scope.Tally{Approved: 10, Refused: 20, Total: 60, Needed: 31}, Waiting: []anchormesh.NodeID{"b"}}},
		Segments: []Adoption{{Segment: 4, Range: anchormesh.KeyRange{Start: []byte("a"), End: []byte("b")}, Version: 2, Entered: true}},
	}
}

// What one node asks another is read as it was meant, and not when a byte is missing or
// too many.
func TestMessagesAreReadBack(t *testing.T) {
	if q, err := parseQuestion(aQuestion().encode()); err != nil || !reflect.DeepEqual(q, aQuestion()) {
		t.Errorf("question: %+v, %v", q, err)
	}
	c, err := parseChange(aChange().encode())
	if err != nil || !bytes.Equal(c.encode(), aChange().encode()) || c.To != "b" || string(c.Key) != "/s/m" || c.Operator != "anna" {
		t.Errorf("change: %+v, %v", c, err)
	}
	if v, err := parseView(aView().encode()); err != nil || !bytes.Equal(v.encode(), aView().encode()) || len(v.Open) != 1 || v.Open[0].Tally.Needed != 31 {
		t.Errorf("view: %+v, %v", v, err)
	}
	for name, m := range map[string]struct {
		bytes []byte
		read  func([]byte) error
	}{
		"question": {aQuestion().encode(), func(b []byte) error { _, err := parseQuestion(b); return err }},
		"change":   {aChange().encode(), func(b []byte) error { _, err := parseChange(b); return err }},
		"view":     {aView().encode(), func(b []byte) error { _, err := parseView(b); return err }},
	} {
		for cut := range m.bytes {
			if m.read(m.bytes[:cut]) == nil {
				t.Errorf("%s cut to %d bytes is read", name, cut)
			}
		}
		if m.read(append(bytes.Clone(m.bytes), 0)) == nil {
			t.Errorf("%s with a byte too many is read", name)
		}
	}
}

// FuzzMessages: whatever another node sends, it is read or refused, and what is read says
// the same when it is written again.
func FuzzMessages(f *testing.F) {
	f.Add(aQuestion().encode())
	f.Add(aChange().encode())
	f.Add(aView().encode())
	f.Add(orderBody(nil, &scope.Proposal{Kind: scope.Split, Segment: 4, Generation: 7, Key: []byte("k")}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := parseQuestion(data); err == nil {
			again, err := parseQuestion(q.encode())
			if err != nil || !reflect.DeepEqual(q, again) {
				t.Fatalf("question %+v came back as %+v, %v", q, again, err)
			}
		}
		if c, err := parseChange(data); err == nil {
			if again, err := parseChange(c.encode()); err != nil || !bytes.Equal(again.encode(), c.encode()) {
				t.Fatalf("change %+v came back as %+v, %v", c, again, err)
			}
		}
		if v, err := parseView(data); err == nil {
			if again, err := parseView(v.encode()); err != nil || !bytes.Equal(again.encode(), v.encode()) {
				t.Fatalf("view %+v came back as %+v, %v", v, again, err)
			}
		}
		if proof, p, err := parseOrderBody(data); err == nil && !bytes.Equal(orderBody(proof, &p), data) && proof == nil {
			t.Fatalf("order %+v is encoded in two ways", p)
		}
	})
}
