package summary

import (
	"maps"
	"time"

	"github.com/anchormesh/anchormesh"
)

const (
	// remind is the longest a node says nothing, unless Every is longer: who joined
	// meanwhile has heard nothing yet.
	remind = 30 * time.Second
	// gap is the least time between two summaries of a node that are taken.
	gap = time.Second
)

// Stale is the age from which on a summary counts for nothing in a mesh of so many
// nodes: three were missed.
func Stale(nodes int) time.Duration { return 3 * max(remind, Every(nodes)) }

// Heard is a summary and when it came, by the local clock.
type Heard struct {
	Summary
	At time.Time
}

// Book keeps the newest summary of each node. The zero value is empty.
type Book struct {
	pages map[[keyBytes]byte]page
}

type page struct {
	Heard
	node   anchormesh.NodeID
	sealed string
}

// Knows reports whether these very bytes are in the book: to hear them again costs
// no check of their signature.
func (b *Book) Knows(sealed []byte) bool {
	if len(sealed) < 1+keyBytes {
		return false
	}
	p, ok := b.pages[[keyBytes]byte(sealed[1:])]
	return ok && p.sealed == string(sealed)
}

// Take enters a summary that Open accepted, and reports whether it is newer than
// what the book had and not too soon after it.
func (b *Book) Take(now time.Time, node anchormesh.NodeID, sealed []byte, s Summary) bool {
	key := [keyBytes]byte(sealed[1:])
	old, ok := b.pages[key]
	if ok && (s.Epoch <= old.Epoch || now.Sub(old.At) < gap) {
		return false
	}
	if b.pages == nil {
		b.pages = make(map[[keyBytes]byte]page)
	}
	b.pages[key] = page{Heard{s, now}, node, string(sealed)}
	return true
}

// Read returns the newest summary of every node.
func (b *Book) Read() map[anchormesh.NodeID]Heard {
	out := make(map[anchormesh.NodeID]Heard, len(b.pages))
	for _, p := range b.pages {
		out[p.node] = p.Heard
	}
	return out
}

// Keep forgets the nodes that are not members any more.
func (b *Book) Keep(member func(anchormesh.NodeID) bool) {
	maps.DeleteFunc(b.pages, func(_ [keyBytes]byte, p page) bool { return !member(p.node) })
}

// Pace is when a node tells its summary. The zero value has told nothing.
type Pace struct {
	told  Summary
	at    time.Time
	nodes int
}

// Ready reports whether the node may speak again: until then there is no use in
// adding the figures up.
func (p *Pace) Ready(now time.Time, nodes int) bool {
	return p.at.IsZero() || now.Sub(p.at) >= Every(nodes)
}

// Due reports whether it should: figures have changed, there are newcomers, or
// nothing was said for long.
func (p *Pace) Due(now time.Time, nodes int, s Summary) bool {
	return p.Ready(now, nodes) && (p.at.IsZero() || s.Worth(p.told) || nodes > p.nodes || now.Sub(p.at) >= remind)
}

// Told notes what was said.
func (p *Pace) Told(now time.Time, nodes int, s Summary) { p.told, p.at, p.nodes = s, now, nodes }
