package lineage

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// Verify reports whether entries are the lineage of segment, or its newer part:
// each is valid and follows from the one before, and the first concerns the
// segment.
func Verify(segment anchormesh.SegmentID, entries []*Entry) error {
	if len(entries) == 0 {
		return fmt.Errorf("%w: no entries", ErrBroken)
	}
	for i, e := range entries {
		if err := e.Validate(); err != nil {
			return err
		}
		if i == 0 {
			if _, ok := e.Leaves(segment); !ok {
				return fmt.Errorf("%w: its first entry is not about segment %s", ErrBroken, segment)
			}
			continue
		}
		if err := follows(segment, entries[i-1], entries[i-1].Hash(), e); err != nil {
			return err
		}
	}
	return nil
}

// follows reports whether e can stand behind last, whose hash is head, in the
// lineage of segment.
func follows(segment anchormesh.SegmentID, last *Entry, head anchormesh.Hash, e *Entry) error {
	at, _ := last.Leaves(segment)
	wrong := ""
	switch {
	case e.Segment != segment:
		wrong = "is of another segment"
	case e.Mesh != last.Mesh:
		wrong = "is of another mesh"
	case len(e.Previous) == 0 || e.Previous[0] != head:
		wrong = "names another predecessor"
	case e.Height != last.Height+1:
		wrong = "has the wrong height"
	case !e.Before.Equal(at):
		wrong = "begins where the last did not end"
	case last.Segment == segment && (e.Index <= last.Index || e.Term < last.Term):
		wrong = "goes back in the log"
	case e.Kind != Anchors && e.Kind != Recovered && !e.Voters.Equal(last.Voters):
		wrong = "changes the voters by the way"
	default:
		return nil
	}
	return fmt.Errorf("%w: segment %s: %s at height %d %s", ErrBroken, segment, e.Kind, e.Height, wrong)
}

// Gap is a chain that cannot be followed to genesis with what was given.
type Gap struct {
	Segment anchormesh.SegmentID
	Missing anchormesh.Hash // the entry that nobody has
	Below   uint64          // how many entries lie there
}

// Fork is two different entries of one segment behind one predecessor (two
// genesis entries count, too). At most one of them was committed.
type Fork struct{ One, Other *Entry }

// Survey follows all chains to genesis, through each other, and returns in fixed
// order what is missing and where histories fork.
func Survey(chains []*Chain) ([]Gap, []Fork) {
	type place struct {
		segment  anchormesh.SegmentID
		previous anchormesh.Hash
	}
	var forks []Fork
	byHash, byPlace := make(map[anchormesh.Hash]*Entry), make(map[place]*Entry)
	for _, c := range chains {
		for _, e := range c.Entries() {
			h := e.Hash()
			if byHash[h] != nil {
				continue
			}
			byHash[h] = e
			at := place{}
			if e.Kind != Genesis {
				at = place{e.Segment, e.Previous[0]}
			}
			if first := byPlace[at]; first != nil {
				forks = append(forks, Fork{first, e})
			} else {
				byPlace[at] = e
			}
		}
	}
	var gaps []Gap
	for _, c := range chains {
		e := decoded(c.kept()[0])
		for e.Kind != Genesis {
			before := byHash[e.Previous[0]]
			if before == nil {
				gaps = append(gaps, Gap{Segment: c.segment, Missing: e.Previous[0], Below: e.Height})
				break
			}
			e = before
		}
	}
	slices.SortFunc(gaps, func(a, b Gap) int { return cmp.Compare(a.Segment, b.Segment) })
	return gaps, forks
}
