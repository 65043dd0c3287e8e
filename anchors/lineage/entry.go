package lineage

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/anchormesh/anchormesh"
)

// Limits of one entry.
const (
	// VotersMax is twice the largest group, for spares.
	VotersMax = 16
	// NodeIDBytesMax is far above the 52 characters of an ed25519 peer ID.
	NodeIDBytesMax = 128
	// KeyBytesMax bounds each end of a range. Boundaries are chosen, and no
	// useful one is longer.
	KeyBytesMax = 4096
	// NumbersMax and OperatorBytesMax bound the evidence.
	NumbersMax       = 8
	OperatorBytesMax = 64
)

// ErrInvalid is returned for an entry that breaks one of its own rules.
var ErrInvalid = errors.New("lineage: invalid entry")

// Kind is what was decided.
type Kind uint8

// The kinds of decisions. 6 is reserved for trust.
const (
	Genesis Kind = iota + 1
	Split
	Merge
	Anchors
	Policy
	_ // trust
	// Line: its revisions come from another line.
	Line
	// Recovered: it begins anew on a survivor.
	Recovered
)

// String is the word used in tables and logs.
func (k Kind) String() string {
	switch k {
	case Genesis:
		return "genesis"
	case Split:
		return "split"
	case Merge:
		return "merge"
	case Anchors:
		return "anchors"
	case Policy:
		return "policy"
	case Line:
		return "line"
	case Recovered:
		return "recovery"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Extent is what a segment governs at a time.
type Extent struct {
	Generation anchormesh.Generation
	Range      anchormesh.KeyRange
}

// Equal reports whether both are the same.
func (x Extent) Equal(o Extent) bool { return x.Generation == o.Generation && x.Range.Equal(o.Range) }

// Neighbour is the other segment of a split or a merge.
type Neighbour struct {
	Segment anchormesh.SegmentID
	Extent
}

// Voters are the nodes whose votes count: the incoming ones, and while a
// configuration is joint the outgoing ones beside them. Each set ascends.
type Voters struct {
	Incoming, Outgoing []anchormesh.NodeID
}

// VotersOf returns the voters of a descriptor, whose configuration is not joint.
func VotersOf(d *anchormesh.Descriptor) Voters {
	var v Voters
	for _, a := range d.Voters() {
		v.Incoming = append(v.Incoming, a.Node)
	}
	slices.Sort(v.Incoming)
	return v
}

// Equal reports whether both name the same nodes in the same sets.
func (v Voters) Equal(o Voters) bool {
	return slices.Equal(v.Incoming, o.Incoming) && slices.Equal(v.Outgoing, o.Outgoing)
}

// Reason says in a word why something was decided. Numbers above the known ones
// are kept as they are.
type Reason uint16

// The reasons known to this version.
const (
	Unstated  Reason = iota
	Operator         // somebody asked for it by hand
	Load             // pressure over the threshold, spread over the keys
	Dormancy         // pressure low for the whole window
	Missing          // fewer anchors than the scope asks for
	Dead             // an anchor's node stayed away
	Placement        // zones, room, balance
	Recovery         // the majority was lost for good
	Boundary         // a scope begins or ends there
)

// Evidence is what spoke for a decision, copied into it.
type Evidence struct {
	Reason   Reason
	Pressure uint64   // in thousandths of the scope's threshold
	Spread   uint64   // in thousandths: 0 one key, 1000 evenly over the range
	Numbers  []uint64 // at most NumbersMax; what they mean goes with Reason
	Operator string   // who asked, for Reason Operator
}

// Rule says what policy was decided or adopted.
//
// A decision stands in the log of a scope's home. It concerns the scope itself (From and
// Scope are its prefix), a new scope inside it (Scope is that one's), or gives the scope
// back to the one around it (Scope is that one's). An adoption names a decision, or an
// adoption that does, and says what holds for the segment behind it.
type Rule struct {
	From, Scope []byte
	Version     uint64          // of the policy, in Scope; 0: the mesh's default
	Policy      anchormesh.Hash // of its canonical form; zero: the mesh's default
	// Decision is the hash of the entry that is adopted; zero: this one decides.
	Decision anchormesh.Hash
}

// Equal reports whether both say the same.
func (r *Rule) Equal(o *Rule) bool {
	return bytes.Equal(r.From, o.From) && bytes.Equal(r.Scope, o.Scope) && r.Version == o.Version &&
		r.Policy == o.Policy && r.Decision == o.Decision
}

// Entry is one structural decision. It is not modified once made.
type Entry struct {
	Mesh          anchormesh.MeshID
	Kind          Kind
	Segment       anchormesh.SegmentID // whose log it stands in
	Height        uint64               // entries before it
	Before, After Extent               // of Segment; Before is zero at genesis
	Other         Neighbour            // the right child after a split, the absorbed before a merge
	Index, Term   uint64               // place in the log
	Voters        Voters               // who votes behind it
	Evidence      Evidence
	Rule          Rule              // of a Policy, zero else
	Previous      []anchormesh.Hash // none at genesis, own and absorbed at a merge, else one
}

// Hash is the entry's name.
func (e *Entry) Hash() anchormesh.Hash {
	return sha256.Sum256(e.Append([]byte("anchormesh lineage entry v1\n")))
}

// Leaves returns what segment governs behind the entry, and false if the entry
// does not leave it anything.
func (e *Entry) Leaves(segment anchormesh.SegmentID) (Extent, bool) {
	switch {
	case e.Segment == segment:
		return e.After, true
	case e.Kind == Split && e.Other.Segment == segment:
		return e.Other.Extent, true
	}
	return Extent{}, false
}

// Describes reports whether d is what the entry left behind: its lineage ends
// with the entry, its range and generation are those decided, its voters those
// named. So a proof of the entry proves the descriptor, but for zones, learners
// and replica IDs.
func (e *Entry) Describes(d *anchormesh.Descriptor) bool {
	left, ok := e.Leaves(d.Segment)
	return ok && d.Mesh == e.Mesh && d.Lineage == e.Hash() &&
		left.Equal(Extent{Generation: d.Generation, Range: d.Range}) && slices.Equal(VotersOf(d).Incoming, e.Voters.Incoming)
}

// Validate checks the rules that an entry keeps by itself and returns ErrInvalid
// with the first one broken.
func (e *Entry) Validate() error {
	if e.Mesh == 0 || e.Segment == 0 || e.After.Generation == 0 || e.Index == 0 || e.Term == 0 {
		return fmt.Errorf("%w: mesh, segment, generation, index and term must be named", ErrInvalid)
	}
	if want := map[Kind]int{Split: 1, Merge: 2, Anchors: 1, Policy: 1, Line: 1, Recovered: 1}[e.Kind]; len(e.Previous) != want {
		return fmt.Errorf("%w: a %s has %d predecessors, not %d", ErrInvalid, e.Kind, want, len(e.Previous))
	}
	if slices.ContainsFunc(e.Previous, anchormesh.Hash.IsZero) {
		return fmt.Errorf("%w: a predecessor is zero", ErrInvalid)
	}
	for _, check := range []error{e.validateExtents(), e.Voters.validate(), e.Evidence.validate(), e.validateRule()} {
		if check != nil {
			return check
		}
	}
	return nil
}

func (e *Entry) validateExtents() error {
	for _, r := range []anchormesh.KeyRange{e.Before.Range, e.After.Range, e.Other.Range} {
		if r.Empty() || len(r.Start) > KeyBytesMax || len(r.End) > KeyBytesMax {
			return fmt.Errorf("%w: a range is empty, or an end has more than %d bytes", ErrInvalid, KeyBytesMax)
		}
	}
	ok := false
	switch e.Kind {
	case Genesis:
		ok = e.Height == 0 && e.Before.Equal(Extent{}) && e.alone()
	case Anchors:
		ok = e.Height > 0 && e.After.Equal(e.Before) && e.alone()
	case Policy: // a new scope, or one that is no more, is a new generation
		ok = e.Height > 0 && e.alone() && e.After.Range.Equal(e.Before.Range) &&
			(e.After.Generation == e.Before.Generation || e.After.Generation == e.Before.Generation+1)
	case Line:
		ok = e.Height > 0 && e.alone() && e.After.Generation == e.Before.Generation+1 && e.After.Range.Equal(e.Before.Range)
	case Recovered: // above whatever those lost can have decided
		ok = e.Height > 0 && e.alone() && e.After.Range.Equal(e.Before.Range) && e.After.Generation > e.Before.Generation+1 &&
			len(e.Voters.Incoming) == 1 && len(e.Voters.Outgoing) == 0
	case Split:
		ok = e.Height > 0 && e.neighbours() && joined(e.After.Range, e.Other.Range, e.Before.Range) &&
			e.After.Generation == e.Before.Generation+1 && e.Other.Generation == e.After.Generation
	case Merge:
		ok = e.Height > 0 && e.neighbours() && joined(e.Before.Range, e.Other.Range, e.After.Range) &&
			e.After.Generation == max(e.Before.Generation, e.Other.Generation)+1
	default:
		return fmt.Errorf("%w: %s is not known here", ErrInvalid, e.Kind)
	}
	if !ok {
		return fmt.Errorf("%w: %s from %v to %v beside %v", ErrInvalid, e.Kind, e.Before, e.After, e.Other)
	}
	return nil
}

func (e *Entry) validateRule() error {
	r := &e.Rule
	if !e.ruled() {
		if !r.Equal(&Rule{}) {
			return fmt.Errorf("%w: a %s has no rule", ErrInvalid, e.Kind)
		}
		return nil
	}
	related := bytes.HasPrefix(r.From, r.Scope) || bytes.HasPrefix(r.Scope, r.From)
	if !related || len(r.From) > KeyBytesMax || len(r.Scope) > KeyBytesMax || (r.Version == 0) != r.Policy.IsZero() {
		return fmt.Errorf("%w: policy of scope %q from %q, version %d", ErrInvalid, r.Scope, r.From, r.Version)
	}
	return nil
}

func (e *Entry) alone() bool { return e.Other.Segment == 0 && e.Other.Extent.Equal(Extent{}) }

// neighbours: a pair has no change of voters under way.
func (e *Entry) neighbours() bool {
	return e.Other.Segment != 0 && e.Other.Segment != e.Segment && len(e.Voters.Outgoing) == 0
}

// joined reports whether left and right are neighbours that make up whole.
func joined(left, right, whole anchormesh.KeyRange) bool {
	return len(left.End) > 0 && bytes.Equal(left.End, right.Start) &&
		bytes.Equal(left.Start, whole.Start) && bytes.Equal(right.End, whole.End)
}

func (v Voters) validate() error {
	if len(v.Incoming) == 0 {
		return fmt.Errorf("%w: nobody votes", ErrInvalid)
	}
	for _, set := range [][]anchormesh.NodeID{v.Incoming, v.Outgoing} {
		if len(set) > VotersMax {
			return fmt.Errorf("%w: %d voters, at most %d", ErrInvalid, len(set), VotersMax)
		}
		for i, id := range set {
			if id == "" || len(id) > NodeIDBytesMax || !utf8.ValidString(string(id)) || i > 0 && cmp.Compare(set[i-1], id) >= 0 {
				return fmt.Errorf("%w: voters must be ascending node IDs", ErrInvalid)
			}
		}
	}
	return nil
}

func (v Evidence) validate() error {
	if len(v.Numbers) > NumbersMax || len(v.Operator) > OperatorBytesMax || !utf8.ValidString(v.Operator) {
		return fmt.Errorf("%w: evidence has at most %d numbers and an operator's name of %d bytes", ErrInvalid, NumbersMax, OperatorBytesMax)
	}
	return nil
}
