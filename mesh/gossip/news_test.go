package gossip

import (
	"bytes"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/view"
)

// News of one node wait once, however often they are told; each packet has room for
// records first; what the handler does not call newer ends there.
func TestNewsArePassedOnOncePerNode(t *testing.T) {
	a := start(t, testConfig("a"))
	b := start(t, testConfig("b", a.Addr()))
	c := start(t, testConfig("c", b.Addr()))
	var newest, heard atomic.Int64
	judge := func(n []byte) (anchormesh.NodeID, bool) {
		heard.Add(1)
		for {
			old := newest.Load()
			if int64(n[0]) <= old {
				return "", false
			}
			if newest.CompareAndSwap(old, int64(n[0])) {
				return a.id, true
			}
		}
	}
	c.HandleNews(judge)
	sees(t, a, view.Alive, b, c) // what is told before is carried to whom a knows then
	for issue := byte(1); issue <= 50; issue++ {
		if err := a.Tell(bytes.Repeat([]byte{issue}, NewsBytesMax)); err != nil {
			t.Fatal(err)
		}
		if n := a.news.waiting(); n != 1 {
			t.Fatalf("%d pieces wait, all of one node", n)
		}
	}
	testkit.Eventually(t, "the newest issue", func() bool { return newest.Load() == 50 })
	sees(t, c, view.Alive, a, b) // records still get through
	if err := a.Tell(make([]byte, NewsBytesMax+1)); !errors.Is(err, ErrNewsTooLarge) {
		t.Error(err)
	}
	if s := b.Stats(); s.Malformed+s.Unsigned+s.Misnamed > 0 {
		t.Errorf("news were taken for records: %+v", s)
	}
}

// What no member would send is dropped before the handler sees it.
func TestOverlongNewsAreDropped(t *testing.T) {
	a := start(t, testConfig("a"))
	called := false
	a.HandleNews(func([]byte) (anchormesh.NodeID, bool) { called = true; return "", true })
	delegate{a.Gossip}.NotifyMsg(append([]byte{newsKind}, make([]byte, NewsBytesMax+1)...))
	if called || a.news.waiting() != 0 {
		t.Error("overlong news were taken")
	}
	delegate{a.Gossip}.NotifyMsg([]byte{newsKind, 1})
	if !called || a.news.waiting() != 1 {
		t.Error("news were not taken")
	}
}

func (n *news) waiting() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.pieces)
}

// Pieces of equal length do not displace each other when one is replaced, each is
// carried as often as it should be, and a packet is never overfull.
func TestNewsQueue(t *testing.T) {
	var q news
	carried := map[string]int{}
	for i := range byte(20) {
		q.put(anchormesh.NodeID(rune('a'+i)), []byte{i, 0})
		q.put(anchormesh.NodeID(rune('a'+i)), []byte{i, 1})
	}
	for packets := 0; q.waiting() > 0; packets++ {
		out := q.packet(3, 52, 4)
		if len(out) > 10 || packets > 8 {
			t.Fatalf("packet %d holds %d pieces, 10 fit", packets, len(out))
		}
		for _, p := range out {
			carried[string(p)]++
		}
	}
	for i := range byte(20) {
		if carried[string([]byte{i, 0})] != 0 || carried[string([]byte{i, 1})] != 4 {
			t.Errorf("node %d: %d packets carried the old piece, %d the new one, want 0 and 4",
				i, carried[string([]byte{i, 0})], carried[string([]byte{i, 1})])
		}
	}
}
