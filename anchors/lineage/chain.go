package lineage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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
// once made: what appends returns another one.
//
// Thousands of segments at rest have one each, and nobody looks into it: it is kept as
// its encoding, and entries are decoded when they are asked for.
type Chain struct {
	segment anchormesh.SegmentID
	head    anchormesh.Hash
	encoded []byte // see Encode; it has at least one entry
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

// Last returns the newest entry.
func (c *Chain) Last() *Entry {
	kept := c.kept()
	return decoded(kept[len(kept)-1])
}

// Entries returns what is kept, oldest first.
func (c *Chain) Entries() []*Entry {
	var out []*Entry
	for _, b := range c.kept() {
		out = append(out, decoded(b))
	}
	return out
}

// Whole reports whether the chain begins with genesis itself. The chain of a
// right child never does; Survey follows it through its parent's.
func (c *Chain) Whole() bool { return decoded(c.kept()[0]).Kind == Genesis }

// kept returns the encodings of the entries, oldest first.
func (c *Chain) kept() [][]byte {
	r := reader{fields.Reader{Rest: c.encoded}}
	r.version()
	r.Fixed()
	out := make([][]byte, r.Number())
	for i := range out {
		out[i] = r.Bytes()
	}
	return out
}

// decoded reads an entry that was verified when it came into the chain.
func decoded(b []byte) *Entry {
	e, err := parse(b)
	if err != nil {
		panic("lineage: an entry of a verified chain cannot be read: " + err.Error())
	}
	return e
}

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
	return chainOf(c.segment, append(c.kept(), e.Append(nil)), e.Hash()), nil
}

// chainOf makes a chain of encoded entries, the newest of which has the hash head. It
// forgets the oldest beyond the limits.
func chainOf(segment anchormesh.SegmentID, kept [][]byte, head anchormesh.Hash) *Chain {
	sum, first := 0, len(kept)
	for first > 0 && len(kept)-first < EntriesMax {
		if sum += len(kept[first-1]); first < len(kept) && sum > BytesMax {
			break
		}
		first--
	}
	kept = kept[first:]
	b := binary.BigEndian.AppendUint64([]byte{version}, uint64(segment))
	b = binary.AppendUvarint(b, uint64(len(kept)))
	for _, e := range kept {
		b = fields.AppendBytes(b, e)
	}
	return &Chain{segment: segment, head: head, encoded: slices.Clip(b)}
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

// Encode returns the stored form. It must not be modified.
func (c *Chain) Encode() []byte { return c.encoded }

// In returns the chain, kept in b: a copy of its encoding that is there anyway.
func (c *Chain) In(b []byte) *Chain {
	if !bytes.Equal(b, c.encoded) {
		panic("lineage: a chain was stored as something else")
	}
	return &Chain{segment: c.segment, head: c.head, encoded: slices.Clip(b)}
}

// DecodeChain reads what Encode wrote, and verifies it. The chain keeps b.
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
	if !bytes.Equal(c.encoded, b) {
		return nil, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	c.encoded = slices.Clip(b)
	return c, nil
}

// verified makes a chain of entries that pass Verify.
func verified(segment anchormesh.SegmentID, entries []*Entry) (*Chain, error) {
	if err := Verify(segment, entries); err != nil {
		return nil, err
	}
	kept := make([][]byte, len(entries))
	for i, e := range entries {
		kept[i] = e.Append(nil)
	}
	return chainOf(segment, kept, entries[len(entries)-1].Hash()), nil
}
