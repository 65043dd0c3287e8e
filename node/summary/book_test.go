package summary

import (
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// The newest epoch counts, however late an older one comes; a node that speaks too
// often is not passed on.
func TestBookKeepsTheNewest(t *testing.T) {
	var b Book
	take := func(at time.Duration, epoch uint64) bool {
		s := Summary{Epoch: epoch, Replicas: epoch * 10}
		return b.Take(noon.Add(at), "a", s.Seal(meshID, key(), sign), s)
	}
	for _, c := range []struct {
		at    time.Duration
		epoch uint64
		want  bool
	}{{0, 5, true}, {2 * time.Second, 5, false}, {3 * time.Second, 4, false}, {500 * time.Millisecond, 6, false}, {5 * time.Second, 7, true}} {
		if got := take(c.at, c.epoch); got != c.want {
			t.Errorf("epoch %d at %v taken: %v", c.epoch, c.at, got)
		}
	}
	got := b.Read()["a"]
	if got.Replicas != 70 || !got.At.Equal(noon.Add(5*time.Second)) {
		t.Errorf("%+v", got)
	}
	same := Summary{Epoch: 7, Replicas: 70}.Seal(meshID, key(), sign)
	if !b.Knows(same) || b.Knows(Summary{Epoch: 8}.Seal(meshID, key(), sign)) || b.Knows(nil) {
		t.Error("the book does not know what it holds, or knows what it does not")
	}
	b.Keep(func(id anchormesh.NodeID) bool { return id != "a" })
	if len(b.Read()) != 0 {
		t.Error("who left is still in the book")
	}
}

// TestPace: never more often than Every; a change, a newcomer and a long silence are
// worth a word.
func TestPace(t *testing.T) {
	var p Pace
	s := Summary{Replicas: 80, Leaders: 40}
	if !p.Due(noon, 3, s) {
		t.Fatal("a node that has said nothing is silent")
	}
	p.Told(noon, 3, s)
	changed := s
	changed.Replicas = 40
	for _, c := range []struct {
		after time.Duration
		nodes int
		s     Summary
		want  bool
	}{
		{4 * time.Second, 3, changed, false},
		{5 * time.Second, 3, changed, true},
		{6 * time.Second, 3, s, false},
		{6 * time.Second, 4, s, true},
		{29 * time.Second, 3, s, false},
		{30 * time.Second, 3, s, true},
		{31 * time.Second, 1000, changed, false},
	} {
		if got := p.Due(noon.Add(c.after), c.nodes, c.s); got != c.want {
			t.Errorf("after %v in a mesh of %d: %v", c.after, c.nodes, got)
		}
	}
	if Stale(3) != 90*time.Second || Stale(1000) <= 3*Every(1000)-1 {
		t.Errorf("stale after %v and %v", Stale(3), Stale(1000))
	}
}
