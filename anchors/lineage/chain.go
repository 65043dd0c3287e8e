package lineage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// Limits of what a chain keeps; see the package comment.
const (
	EntriesMax = 64
	BytesMax   = 16 << 10
)

// entryBytesMax is above the largest valid entry: eight keys, two sets of voters.
const entryBytesMax = 48 << 10

// ErrBroken is returned for entries that do not follow from each other.
var ErrBroken = errors.New("lineage: the chain is broken")

// Chain is the lineage of one segment, as far as it is kept. It is not modified
// once made: what appends returns another one, which shares the entries.
type Chain struct {
	segment anchormesh.SegmentID
	entries []*Entry // never empty; the last one is the newest
	sizes   []int    // encoded bytes of each
	head    anchormesh.Hash
}

// Place is where in the segment's log a decision stands.
type Place struct{ Index, Term uint64 }

// Begin starts the chain of a mesh's first segment.
func Begin(mesh anchormesh.MeshID, segment anchormesh.SegmentID, first Extent, at Place, voters Voters, why Evidence) (*Chain, error) {
	return verified(segment, []*Entry{{
		Mesh: mesh, Kind: Genesis, Segment: segment, After: first,
		Index: at.Index, Term: at.Term, Voters: voters, Evidence: why,
	}})
}

// Segment returns whose lineage it is.
func (c *Chain) Segment() anchormesh.SegmentID { return c.segment }

// Head returns the hash of the newest entry.
func (c *Chain) Head() anchormesh.Hash { return c.head }

// Last returns the newest entry. It must not be modified.
func (c *Chain) Last() *Entry { return c.entries[len(c.entries)-1] }

// Entries returns what is kept, oldest first. It must not be modified.
func (c *Chain) Entries() []*Entry { return c.entries }

// Whole reports whether the chain begins with genesis itself. The chain of a
// right child never does; Survey follows it through its parent's.
func (c *Chain) Whole() bool { return c.entries[0].Kind == Genesis }

// Now returns what the segment governs.
func (c *Chain) Now() Extent {
	x, _ := c.Last().Leaves(c.segment)
	return x
}

// Append returns the chain with one more entry, which must follow from it.
func (c *Chain) Append(e *Entry) (*Chain, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	if err := follows(c.segment, c.Last(), c.head, e); err != nil {
		return nil, err
	}
	n := len(c.entries)
	out := &Chain{
		segment: c.segment, head: e.Hash(),
		entries: append(c.entries[:n:n], e),
		sizes:   append(c.sizes[:n:n], len(e.Append(nil))),
	}
	out.trim()
	return out, nil
}

// trim forgets the oldest entries beyond the limits.
func (c *Chain) trim() {
	sum, keep := 0, 0
	for i := len(c.sizes) - 1; i >= 0; i-- {
		if sum += c.sizes[i]; keep > 0 && (sum > BytesMax || keep == EntriesMax) {
			break
		}
		keep++
	}
	// The old array would keep what was cut.
	if cut := len(c.entries) - keep; cut > 0 {
		c.entries = append([]*Entry(nil), c.entries[cut:]...)
		c.sizes = append([]int(nil), c.sizes[cut:]...)
	}
}

// next returns an entry that follows the chain and changes nothing yet.
func (c *Chain) next(kind Kind, at Place, why Evidence) *Entry {
	last := c.Last()
	return &Entry{
		Mesh: last.Mesh, Kind: kind, Segment: c.segment, Height: last.Height + 1,
		Before: c.Now(), After: c.Now(), Index: at.Index, Term: at.Term,
		Voters: last.Voters, Evidence: why, Previous: []anchormesh.Hash{c.head},
	}
}

// Change records a change of anchors: who votes behind it.
func (c *Chain) Change(at Place, voters Voters, why Evidence) (*Chain, error) {
	e := c.next(Anchors, at, why)
	e.Voters = voters
	return c.Append(e)
}

// Policy records a policy that was decided or adopted. anew begins a generation: the
// segment changes its scope by it.
func (c *Chain) Policy(at Place, rule Rule, anew bool, why Evidence) (*Chain, error) {
	e := c.next(Policy, at, why)
	e.Rule = rule
	if anew {
		e.After.Generation++
	}
	return c.Append(e)
}

// Recovered records that a segment whose majority was lost for good begins anew on one
// survivor, so many generations later. What the others had committed and the survivor
// did not have is lost, if there was any. decision is the entry of the scope that decided
// it, zero if an operator did by himself.
func (c *Chain) Recovered(at Place, survivor anchormesh.NodeID, generations uint64, rule Rule, why Evidence) (*Chain, error) {
	e := c.next(Recovered, at, why)
	e.Rule, e.Voters = rule, Voters{Incoming: []anchormesh.NodeID{survivor}}
	e.After.Generation += anchormesh.Generation(generations)
	return c.Append(e)
}

// Split records a cut at boundary and returns the left child's chain, which goes
// on with this one, and the right child's, which begins with the same entry.
func (c *Chain) Split(at Place, boundary []byte, child anchormesh.SegmentID, why Evidence) (left, right *Chain, err error) {
	e := c.next(Split, at, why)
	e.After.Generation++
	e.After.Range.End = boundary
	e.Other = Neighbour{Segment: child, Extent: Extent{
		Generation: e.After.Generation,
		Range:      anchormesh.KeyRange{Start: boundary, End: e.Before.Range.End},
	}}
	if left, err = c.Append(e); err != nil {
		return nil, nil, err
	}
	right, err = verified(child, []*Entry{e})
	return left, right, err
}

// Merge records that the right neighbour, whose whole chain ends here, was
// absorbed.
func (c *Chain) Merge(at Place, absorbed *Chain, why Evidence) (*Chain, error) {
	e := c.next(Merge, at, why)
	e.Other = Neighbour{Segment: absorbed.segment, Extent: absorbed.Now()}
	e.After.Generation = max(e.Before.Generation, e.Other.Generation) + 1
	e.After.Range.End = e.Other.Range.End
	e.Previous = append(e.Previous, absorbed.head)
	return c.Append(e)
}

// Turn records that the segment's revisions come from another line: it is of another
// generation.
func (c *Chain) Turn(at Place, why Evidence) (*Chain, error) {
	e := c.next(Line, at, why)
	e.After.Generation++
	return c.Append(e)
}

// Encode returns the stored form.
func (c *Chain) Encode() []byte {
	b := binary.BigEndian.AppendUint64([]byte{version}, uint64(c.segment))
	b = binary.AppendUvarint(b, uint64(len(c.entries)))
	for _, e := range c.entries {
		b = fields.AppendBytes(b, e.Append(nil))
	}
	return b
}

// DecodeChain reads what Encode wrote, and verifies it.
func DecodeChain(b []byte) (*Chain, error) {
	r := reader{fields.Reader{Rest: b}}
	r.version()
	segment := anchormesh.SegmentID(r.Fixed())
	var entries []*Entry
	for range r.count(r.Number(), EntriesMax) {
		e, err := DecodeEntry(r.bytes(entryBytesMax))
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	c, err := verified(segment, entries)
	if err != nil {
		return nil, err
	}
	// A minimal count and lengths have one form only, and so has the cut.
	if len(c.Encode()) != len(b) {
		return nil, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	return c, nil
}

// verified makes a chain of entries that pass Verify.
func verified(segment anchormesh.SegmentID, entries []*Entry) (*Chain, error) {
	if err := Verify(segment, entries); err != nil {
		return nil, err
	}
	c := &Chain{segment: segment, entries: entries, head: entries[len(entries)-1].Hash()}
	for _, e := range entries {
		c.sizes = append(c.sizes, len(e.Append(nil)))
	}
	c.trim()
	return c, nil
}
