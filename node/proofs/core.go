package proofs

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
)

const (
	// followerWait is how much later than the leader others begin to gather.
	followerWait = 3 * time.Second
	// retryMin and retryMax bound the time between questions for one proof.
	retryMin = time.Second
	retryMax = time.Minute
	// asksMax bounds the questions of one step; the rest is asked in the next one.
	asksMax = 64

	requestBytes = 1 + 8 + 32
	version      = 1
)

var (
	// ErrMalformed is returned for a request that cannot be read.
	ErrMalformed = errors.New("malformed request for a proof")
	// ErrUnknown is returned for an entry that no replica here has applied.
	ErrUnknown = errors.New("no replica here has applied this entry")
)

// Key makes and checks signatures.
type Key struct {
	Self   anchormesh.NodeID
	Sign   func(statement []byte) ([]byte, error)
	Verify func(node anchormesh.NodeID, statement, signature []byte) bool
}

// Replica is what a node has applied of a segment.
type Replica struct {
	Chain *lineage.Chain
	Since uint64 // see host.Replica
	Leads bool
}

// applied reports whether the node applied an entry of the chain itself. The first
// entry of a right child stands in its parent's log: who saw the child being born
// applied it.
func (r *Replica) applied(e *lineage.Entry) bool {
	if e.Segment != r.Chain.Segment() {
		return r.Since == 0
	}
	return e.Index > r.Since
}

// Voters returns whose signatures prove an entry: the voters behind it. Where a simple
// change adds or removes one, a majority of those before it has to agree, too: else a
// forged entry could name its own witnesses. A joint configuration names both sets
// itself, and the entry that ends it names one that the joint one vouched for.
func Voters(before, e *lineage.Entry) lineage.Voters {
	switch {
	case before == nil, e.Kind != lineage.Anchors, len(e.Voters.Outgoing) > 0, len(before.Voters.Outgoing) > 0,
		slices.Equal(before.Voters.Incoming, e.Voters.Incoming):
		return e.Voters
	}
	return lineage.Voters{Incoming: e.Voters.Incoming, Outgoing: before.Voters.Incoming}
}

// Check reports whether a proof holds for an entry behind another one, which is nil if
// nothing is known of it.
func (k *Key) Check(before *lineage.Entry, p *lineage.Proof) error {
	return p.Verify(Voters(before, p.Entry), k.Verify)
}

// Core decides what to sign, to ask and to keep. One goroutine at a time uses it.
type Core struct {
	key   Key
	noted map[anchormesh.SegmentID]*noted
	holds map[anchormesh.Hash]int    // in how many lineages
	kept  map[anchormesh.Hash][]byte // complete proofs, encoded: there are thousands, and they are only handed on
	wants map[anchormesh.Hash]*want
	// changes counts what was kept or dropped.
	changes uint64
}

// noted is a lineage as it was last seen.
type noted struct {
	head   anchormesh.Hash
	since  uint64
	hashes []anchormesh.Hash
}

// want is a proof that is not complete.
type want struct {
	segment anchormesh.SegmentID
	voters  lineage.Voters
	ask     []anchormesh.NodeID
	proof   *lineage.Proof
	due     time.Time
	wait    time.Duration
}

// Ask is a question to put to a node.
type Ask struct {
	Hash    anchormesh.Hash
	To      anchormesh.NodeID
	Request []byte
}

// NewCore returns a core that keeps nothing yet.
func NewCore(key Key) *Core {
	return &Core{
		key: key, noted: make(map[anchormesh.SegmentID]*noted), holds: make(map[anchormesh.Hash]int),
		kept: make(map[anchormesh.Hash][]byte), wants: make(map[anchormesh.Hash]*want),
	}
}

// Note takes the lineage of a replica in; it costs nothing if it is as before.
func (c *Core) Note(now time.Time, r Replica) {
	segment := r.Chain.Segment()
	old := c.noted[segment]
	if old != nil && old.head == r.Chain.Head() && old.since == r.Since {
		return
	}
	next := &noted{head: r.Chain.Head(), since: r.Since}
	var before *lineage.Entry
	for _, e := range r.Chain.Entries() {
		h := e.Hash()
		next.hashes = append(next.hashes, h)
		c.holds[h]++
		c.wish(now, r, before, e, h)
		before = e
	}
	c.noted[segment] = next
	c.release(old)
}

// wish begins to gather the proof of an entry.
func (c *Core) wish(now time.Time, r Replica, before, e *lineage.Entry, h anchormesh.Hash) {
	if c.kept[h] != nil {
		return
	}
	w := c.wants[h]
	if w == nil {
		w = &want{segment: r.Chain.Segment(), voters: Voters(before, e), proof: &lineage.Proof{Entry: e}, due: now, wait: retryMin}
		if !r.Leads {
			w.due = now.Add(followerWait)
		}
		c.wants[h] = w
	}
	if r.applied(e) {
		w.segment = r.Chain.Segment()
		if s, err := c.key.Sign(lineage.Statement(h)); err == nil {
			w.proof.Add(c.key.Self, s)
		}
	}
	// Who votes for the segment now may keep the proof, even if it was not there then.
	w.ask = union(w.voters.Incoming, w.voters.Outgoing, r.Chain.Last().Voters.Incoming)
	w.ask = slices.DeleteFunc(w.ask, func(n anchormesh.NodeID) bool { return n == c.key.Self })
	c.settle(h, w)
}

func union(sets ...[]anchormesh.NodeID) []anchormesh.NodeID {
	all := slices.Concat(sets...)
	slices.Sort(all)
	return slices.Compact(all)
}

// settle keeps a proof that is complete.
func (c *Core) settle(h anchormesh.Hash, w *want) bool {
	if w.proof.Verify(w.voters, c.key.Verify) != nil {
		return false
	}
	delete(c.wants, h)
	c.kept[h] = bytes.Clone(w.proof.Encode()) // without room to grow
	c.changes++
	return true
}

// Drop forgets the lineage of a replica that is here no more.
func (c *Core) Drop(segment anchormesh.SegmentID) {
	old := c.noted[segment]
	delete(c.noted, segment)
	c.release(old)
}

func (c *Core) release(old *noted) {
	if old == nil {
		return
	}
	for _, h := range old.hashes {
		if c.holds[h]--; c.holds[h] > 0 {
			continue
		}
		delete(c.holds, h)
		delete(c.wants, h)
		if c.kept[h] != nil {
			delete(c.kept, h)
			c.changes++
		}
	}
}

// Segments returns whose lineages were noted.
func (c *Core) Segments() []anchormesh.SegmentID {
	out := make([]anchormesh.SegmentID, 0, len(c.noted))
	for id := range c.noted {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// Due returns what to ask now.
func (c *Core) Due(now time.Time) []Ask {
	var due []anchormesh.Hash
	for h, w := range c.wants {
		if !now.Before(w.due) {
			due = append(due, h)
		}
	}
	slices.SortFunc(due, func(a, b anchormesh.Hash) int {
		return cmp.Or(c.wants[a].due.Compare(c.wants[b].due), bytes.Compare(a[:], b[:]))
	})
	var out []Ask
	for _, h := range due {
		w := c.wants[h]
		if len(out)+len(w.ask) > asksMax && len(out) > 0 {
			break // these stay due
		}
		w.due = now.Add(w.wait)
		w.wait = min(2*w.wait, retryMax)
		for _, n := range w.ask {
			out = append(out, Ask{Hash: h, To: n, Request: Request(w.segment, h, w.own(c.key.Self))})
		}
	}
	return out
}

// own returns the node's own signature, nil if it did not apply the entry.
func (w *want) own(self anchormesh.NodeID) []byte {
	for _, s := range w.proof.Signatures {
		if s.Node == self {
			return s.Bytes
		}
	}
	return nil
}

// Request encodes a question.
func Request(segment anchormesh.SegmentID, entry anchormesh.Hash, own []byte) []byte {
	return append(append(segment.AppendKey([]byte{version}), entry[:]...), own...)
}

// ParseRequest reads what Request wrote.
func ParseRequest(b []byte) (segment anchormesh.SegmentID, entry anchormesh.Hash, own []byte, err error) {
	if len(b) < requestBytes || len(b) > requestBytes+lineage.SignatureBytesMax || b[0] != version {
		return 0, entry, nil, ErrMalformed
	}
	copy(entry[:], b[9:])
	return anchormesh.SegmentID(binary.BigEndian.Uint64(b[1:])), entry, b[requestBytes:], nil
}

// Offer takes the signature that came with a question.
func (c *Core) Offer(from anchormesh.NodeID, entry anchormesh.Hash, own []byte) {
	if w := c.wants[entry]; w != nil && len(own) > 0 {
		p := &lineage.Proof{Entry: w.proof.Entry}
		p.Add(from, own)
		c.merge(entry, w, p)
	}
}

// Answer returns the proof of an entry as far as it is known here.
func (c *Core) Answer(entry anchormesh.Hash) ([]byte, error) {
	if p := c.kept[entry]; p != nil {
		return p, nil
	}
	if w := c.wants[entry]; w != nil {
		return w.proof.Encode(), nil
	}
	return nil, ErrUnknown
}

// Take takes an answer in. Signatures that do not hold, and those of strangers, are
// passed over.
func (c *Core) Take(entry anchormesh.Hash, answer []byte) error {
	w := c.wants[entry]
	if w == nil {
		return nil // complete by now, or not needed any more
	}
	p, err := lineage.DecodeProof(answer)
	if err != nil {
		return err
	}
	c.merge(entry, w, p)
	return nil
}

func (c *Core) merge(entry anchormesh.Hash, w *want, p *lineage.Proof) {
	if p.Entry.Hash() != entry {
		return
	}
	statement := lineage.Statement(entry)
	for _, s := range p.Signatures {
		votes := slices.Contains(w.voters.Incoming, s.Node) || slices.Contains(w.voters.Outgoing, s.Node)
		if votes && c.key.Verify(s.Node, statement, s.Bytes) {
			w.proof.Add(s.Node, s.Bytes)
		}
	}
	c.settle(entry, w)
}

// Known takes in a proof that was kept before, if it is wanted.
func (c *Core) Known(p *lineage.Proof) {
	h := p.Entry.Hash()
	if w := c.wants[h]; w != nil {
		c.merge(h, w, p)
	}
}

// Of returns the encoded proofs kept for the entries of a segment's lineage, oldest
// first. They must not be modified.
func (c *Core) Of(segment anchormesh.SegmentID) (out [][]byte) {
	n := c.noted[segment]
	if n == nil {
		return nil
	}
	for _, h := range n.hashes {
		if p := c.kept[h]; p != nil {
			out = append(out, p)
		}
	}
	return out
}
