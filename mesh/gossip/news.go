package gossip

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
)

// NewsBytesMax bounds what a node may tell of itself besides its record.
const NewsBytesMax = 256

// newsKind is the first byte of news. A record, which travels the same way when
// its node leaves, begins with its version; versions stay below.
const newsKind = 0x80

// ErrNewsTooLarge is returned for news of more than NewsBytesMax bytes.
var ErrNewsTooLarge = errors.New("news are too large for gossip")

// NewsHandler judges news: whose they are, and whether they are newer than what was
// known of that node. Only then are they passed on, so it must know the node as a
// member and must bound how often it says so. It must be quick and may hear this
// node's own news. b belongs to it.
type NewsHandler func(b []byte) (of anchormesh.NodeID, newer bool)

// newsRepeats is how many packets of each node carry a piece of news, as
// memberlist reckons for records.
func newsRepeats(nodes int) (n int) {
	for reach := 1; reach < nodes+1; reach *= 10 {
		n += 4
	}
	return n
}

// news are what members tell of themselves now and then: of each the newest piece
// waits to be passed on, so there are as many as members. Records go first:
// memberlist gives news what room they leave in a packet. memberlist's own queue
// is not used: it loses one of two pieces of equal length when one of them was
// replaced (both get the same number in its tree).
type news struct {
	judge atomic.Pointer[NewsHandler]

	mu     sync.Mutex
	pieces map[anchormesh.NodeID]*piece
	queued uint64
}

// piece is a node's news on their way.
type piece struct {
	of    anchormesh.NodeID
	frame []byte
	sent  int    // packets that carried it
	order uint64 // later ones are higher
}

// put takes a node's news in place of its older ones.
func (n *news) put(of anchormesh.NodeID, frame []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pieces == nil {
		n.pieces = make(map[anchormesh.NodeID]*piece)
	}
	n.queued++
	n.pieces[of] = &piece{of: of, frame: frame, order: n.queued}
}

// packet returns what goes into the next packet: what was sent least, and of that
// the latest, as much as fits. What was sent often enough is forgotten.
func (n *news) packet(overhead, limit, repeats int) (out [][]byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	waiting := slices.SortedFunc(maps.Values(n.pieces), func(a, b *piece) int {
		return cmp.Or(cmp.Compare(a.sent, b.sent), cmp.Compare(b.order, a.order))
	})
	for _, p := range waiting {
		if size := overhead + len(p.frame); size <= limit {
			limit -= size
			out = append(out, p.frame)
			p.sent++
		}
		if p.sent >= repeats {
			delete(n.pieces, p.of)
		}
	}
	return out
}

// HandleNews sets who judges news; what came before is dropped.
func (g *Gossip) HandleNews(h NewsHandler) { g.news.judge.Store(&h) }

// Tell spreads news of this node, in place of those it told before. How often it
// may do so is the caller's to know: see the limits of the package.
func (g *Gossip) Tell(b []byte) error {
	if len(b) > NewsBytesMax {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrNewsTooLarge, len(b), NewsBytesMax)
	}
	g.news.put(g.cfg.Identity.NodeID(), append([]byte{newsKind}, b...))
	return nil
}

// hear takes news from a packet.
func (g *Gossip) hear(frame []byte) {
	h := g.news.judge.Load()
	if h == nil || len(frame) > 1+NewsBytesMax {
		return
	}
	if of, newer := (*h)(bytes.Clone(frame[1:])); newer {
		g.news.put(of, bytes.Clone(frame))
	}
}
