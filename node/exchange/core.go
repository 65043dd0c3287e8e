package exchange

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/node/route"
)

// fewMax is how many versions are named at once rather than compared by sums.
const fewMax = 64

// UrgentMax bounds the segments that wait to be pushed.
const UrgentMax = 1024

// Core is one node's side of the exchange: what it has heard of whom, and what
// to say next. It holds no descriptors; the table does.
type Core struct {
	boot   uint64
	table  *route.Table
	peers  map[anchormesh.NodeID]*peer
	turns  []anchormesh.NodeID // who is still to be asked in this cycle
	urgent []anchormesh.SegmentID
}

// peer is what is known about a peer's journal.
type peer struct {
	boot  uint64 // of the peer that since counts for
	since uint64
	// confirmed is up to where the peer heard this node's journal.
	confirmed uint64
	// While bodies are wanted, or buckets compared, upTo is what since will be
	// afterwards, at boot.
	wants   []anchormesh.SegmentID
	upTo    uint64
	compare bool
	bucket  int // the first one that was not compared yet
	more    bool
}

// NewCore returns the core of a process that has drawn boot at random.
func NewCore(boot uint64, table *route.Table) *Core {
	return &Core{boot: boot, table: table, peers: make(map[anchormesh.NodeID]*peer)}
}

func (c *Core) peer(id anchormesh.NodeID) *peer {
	p := c.peers[id]
	if p == nil {
		p = &peer{}
		c.peers[id] = p
	}
	return p
}

// Next returns whom to ask next: the others in random order, each once, then
// anew. pick returns a number below n.
func (c *Core) Next(alive []anchormesh.NodeID, pick func(n int) int) (anchormesh.NodeID, bool) {
	for range 2 {
		for len(c.turns) > 0 {
			next := c.turns[len(c.turns)-1]
			c.turns = c.turns[:len(c.turns)-1]
			if slices.Contains(alive, next) {
				return next, true
			}
		}
		c.turns = slices.Clone(alive)
		for i := len(c.turns) - 1; i > 0; i-- {
			j := pick(i + 1)
			c.turns[i], c.turns[j] = c.turns[j], c.turns[i]
		}
	}
	return "", false
}

// Settle forgets peers that are no members any more and drops the tombstones
// that all members have confirmed.
func (c *Core) Settle(members []anchormesh.NodeID) {
	confirmed, known := uint64(math.MaxUint64), make(map[anchormesh.NodeID]bool, len(members))
	for _, id := range members {
		known[id] = true
		if p := c.peers[id]; p != nil {
			confirmed = min(confirmed, p.confirmed)
		} else {
			confirmed = 0
		}
	}
	for id := range c.peers {
		if !known[id] {
			delete(c.peers, id)
		}
	}
	c.table.Release(confirmed)
}

// Question returns what to ask a peer now.
func (c *Core) Question(to anchormesh.NodeID) []byte {
	p := c.peer(to)
	switch {
	case len(p.wants) > 0:
		b := []byte{kindWant}
		for _, id := range p.wants[:min(len(p.wants), wantsMax)] {
			b = appendFixed(b, uint64(id))
		}
		return b
	case p.compare:
		b := binary.AppendUvarint([]byte{kindSums}, uint64(p.bucket))
		sums := c.table.Sums()
		for _, s := range sums[p.bucket:] {
			b = appendFixed(b, s)
		}
		return b
	}
	_, sum := c.table.Position()
	return appendFixed(binary.AppendUvarint(appendFixed([]byte{kindAsk}, p.boot), p.since), sum)
}

// Answer answers a peer's question.
func (c *Core) Answer(from anchormesh.NodeID, question []byte) ([]byte, error) {
	r := reader{fields.Reader{Rest: question}}
	switch r.Byte() {
	case kindAsk:
		boot, since, sum := r.Fixed(), r.Number(), r.Fixed()
		if err := r.end(); err != nil {
			return nil, err
		}
		return c.answerAsk(from, boot, since, sum), nil
	case kindSums:
		from, sums := r.AtMost(route.Buckets-1), [route.Buckets]uint64{}
		for i := from; i < route.Buckets; i++ {
			sums[i] = r.Fixed()
		}
		if err := r.end(); err != nil {
			return nil, err
		}
		return c.answerSums(int(from), sums), nil
	case kindWant:
		var ids []anchormesh.SegmentID
		for len(r.Rest) > 0 && !r.Bad && len(ids) < wantsMax {
			ids = append(ids, r.segment())
		}
		if err := r.end(); err != nil {
			return nil, err
		}
		return c.answerWant(ids), nil
	}
	return nil, ErrMalformed
}

func (c *Core) answerAsk(from anchormesh.NodeID, boot, since, sum uint64) []byte {
	seq, own := c.table.Position()
	known := boot == c.boot && since <= seq
	if known {
		p := c.peer(from)
		p.confirmed = max(p.confirmed, since)
	}
	switch {
	case sum == own:
		return c.header(kindSame, seq)
	case !known && len(c.table.Since(0, fewMax+1)) > fewMax:
		return c.header(kindCompare, seq)
	case !known:
		since = 0
	}
	noted, more := c.table.Since(since, versionsMax), byte(0)
	if len(noted) == versionsMax {
		more, seq = 1, noted[len(noted)-1].Seq
	}
	// What was noted since Position was asked is told now and again later.
	b := append(c.header(kindVersions, seq), more)
	for _, n := range noted {
		b = appendVersion(b, n.Version)
	}
	return b
}

// answerSums names what is in the buckets that differ, from one on. upTo in it is
// for the first answer of a comparison; the asker keeps the one it has.
func (c *Core) answerSums(from int, sums [route.Buckets]uint64) []byte {
	seq, _ := c.table.Position()
	own, next := c.table.Sums(), from
	var list []byte
	for ; next < route.Buckets && len(list) < AnswerBytesMax; next++ {
		if own[next] != sums[next] {
			for _, v := range c.table.Bucket(next) {
				list = appendVersion(list, v)
			}
		}
	}
	b := binary.AppendUvarint(c.header(kindSums, seq), uint64(next))
	return append(b, list...)
}

func (c *Core) answerWant(ids []anchormesh.SegmentID) []byte {
	var list []byte
	done := 0
	for ; done < len(ids) && len(list) < AnswerBytesMax; done++ {
		if i, ok := c.item(ids[done]); ok {
			list = appendItem(list, i)
		}
	}
	seq, _ := c.table.Position()
	return append(binary.AppendUvarint(c.header(kindBodies, seq), uint64(done)), list...)
}

func (c *Core) header(kind byte, seq uint64) []byte {
	return binary.AppendUvarint(appendFixed([]byte{kind}, c.boot), seq)
}

// item returns what the table would tell of a segment.
func (c *Core) item(id anchormesh.SegmentID) (Item, bool) {
	if t, ok := c.table.Tombstone(id); ok {
		return Item{Tombstone: t}, true
	}
	d, ok := c.table.Segment(id)
	return Item{Descriptor: d}, ok
}

// Take takes a peer's answer. It returns what is to be learnt, which may hold
// less than was told if err names what was wrong with the rest, and whether there
// is more to ask that peer.
func (c *Core) Take(from anchormesh.NodeID, answer []byte) (items []Item, again bool, err error) {
	r, p := reader{fields.Reader{Rest: answer}}, c.peer(from)
	kind, boot, seq := r.Byte(), r.Fixed(), r.Number()
	if r.Bad || boot != p.boot && (kind == kindSums || kind == kindBodies) {
		p.restart(0) // another process answers now
		return nil, false, nil
	}
	switch kind {
	case kindSame:
		if err := r.end(); err != nil {
			return nil, false, err
		}
		p.restart(boot)
		p.since = seq
		return nil, false, nil
	case kindCompare:
		p.restart(boot)
		p.compare, p.upTo = true, seq
		return nil, true, r.end()
	case kindSums:
		p.bucket = int(r.AtMost(route.Buckets))
		p.compare = p.bucket < route.Buckets
		return nil, c.lacking(p, &r), r.end()
	case kindVersions:
		if boot != p.boot { // it knows no number of ours, so these are all it has
			p.restart(boot)
		}
		p.more, p.upTo = r.Byte() == 1, seq
		return nil, c.lacking(p, &r), r.end()
	case kindBodies:
		done := int(r.AtMost(wantsMax))
		items, err = r.items()
		p.wants = p.wants[min(done, len(p.wants)):]
		return items, c.heard(p), err
	}
	return nil, false, ErrMalformed
}

// restart forgets what was heard of a peer but what it confirmed.
func (p *peer) restart(boot uint64) { *p = peer{boot: boot, confirmed: p.confirmed} }

// lacking notes which of the versions are to be asked for, and reports whether
// there is more to ask.
func (c *Core) lacking(p *peer, r *reader) bool {
	for len(r.Rest) > 0 && !r.Bad {
		if v := r.version(); !r.Bad && c.table.Lacks(v) {
			p.wants = append(p.wants, v.Segment)
		}
	}
	if r.Bad {
		p.restart(0)
		return false
	}
	return c.heard(p)
}

// heard counts what was told as heard once nothing of it is wanted any more, and
// reports whether there is more to ask.
func (c *Core) heard(p *peer) bool {
	if len(p.wants) > 0 || p.compare {
		return true
	}
	p.since, p.bucket = p.upTo, 0
	more := p.more
	p.more = false
	return more
}

// Announce queues segments to be pushed. Those beyond UrgentMax are left to the
// questions of others.
func (c *Core) Announce(ids ...anchormesh.SegmentID) {
	for _, id := range ids {
		if len(c.urgent) < UrgentMax && !slices.Contains(c.urgent, id) {
			c.urgent = append(c.urgent, id)
		}
	}
}

// Push returns the next push, nil if nothing is urgent.
func (c *Core) Push() []byte {
	b, n := []byte{kindPush}, 0
	for ; n < len(c.urgent) && len(b) < PushBytesMax; n++ {
		if i, ok := c.item(c.urgent[n]); ok {
			b = appendItem(b, i)
		}
	}
	c.urgent = slices.Delete(c.urgent, 0, n)
	if len(b) == 1 {
		return nil
	}
	return b
}

// Pushed takes a push apart.
func (c *Core) Pushed(push []byte) ([]Item, error) {
	r := reader{fields.Reader{Rest: push}}
	if r.Byte() != kindPush {
		return nil, ErrMalformed
	}
	return r.items()
}
