package scope

import (
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
)

// Limits of a record.
const (
	VersionsMax      = 64
	OpenMax          = 8
	ClosedMax        = 32
	CountsMax        = 64
	PrefixBytesMax   = policy.PrefixBytesMax // of a scope
	OperatorBytesMax = 64
	KeyBytesMax      = 4096 // of a boundary, as in package lineage
	NoteBytesMax     = 256
	// historyBytesMax bounds the policies of all versions kept, but for the newest.
	historyBytesMax = 64 << 10
)

// What refuses an entry: it takes effect nowhere.
var (
	// ErrVersion: the proposal follows another version than the newest one.
	ErrVersion = errors.New("the policy has changed meanwhile")
	// ErrBusy: another change is being carried out, or too many proposals are open.
	ErrBusy = errors.New("the scope is busy")
	// ErrNoProposal: no such proposal is open.
	ErrNoProposal = errors.New("no such proposal is open")
	// ErrVote: the vote does not count.
	ErrVote = errors.New("the vote does not count")
	// ErrProposal: the proposal makes no sense here.
	ErrProposal = errors.New("the proposal is not valid")
)

// Kind is what a proposal wants.
type Kind uint8

// The kinds of proposals.
const (
	Amend Kind = iota + 1
	Create
	Delete
	Recover
	// Split, Merge and Move are orders of operators: they change a segment's structure.
	Split
	Merge
	Move
)

// String is the word used in commands, tables and metrics.
func (k Kind) String() string {
	switch k {
	case Amend:
		return "amend"
	case Create:
		return "create"
	case Delete:
		return "delete"
	case Recover:
		return "recover"
	case Split:
		return "split"
	case Merge:
		return "merge"
	case Move:
		return "move"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Order reports whether a proposal of that kind changes a segment's structure.
func (k Kind) Order() bool { return k == Split || k == Merge || k == Move }

// Proposal is a change that somebody wants.
type Proposal struct {
	Kind Kind
	// Subject is the prefix of the scope whose policy Policy is: this one's (Amend), the
	// new one's (Create), that of the scope around it (Delete), the segment's (Recover, Split, Merge, Move).
	Subject []byte
	Base    uint64 // version of this scope's policy that was in force for the proposer
	Version uint64 // of Policy, in Subject
	Policy  *policy.Policy
	// Anchors is how many a segment has where Policy is nil: under the mesh's default.
	Anchors int
	// Segment and Survivor say what is recovered, and on whose replica (Recover).
	Segment  anchormesh.SegmentID
	Survivor anchormesh.NodeID
	// Generation is that of Segment, and Key where it is cut, or where its right
	// neighbour begins that it takes in (Split, Merge).
	Generation anchormesh.Generation
	Key        []byte
	// From and To are the nodes between which a replica of Segment moves (Move).
	From, To anchormesh.NodeID
	Operator string
	AtMillis int64 // since 1970, by the proposer's clock

	ID    uint64 // given by the record
	Index uint64 // of its entry
	Term  uint64
	Votes []Vote // ascending by node
	// Entry is the lineage's entry about the decision, of what is being carried out.
	Entry anchormesh.Hash
}

// Vote is what one voter says.
type Vote struct {
	Node      anchormesh.NodeID
	Approve   bool
	Why       string // for a refusal, one sentence
	Signature []byte
}

// Outcome is how a proposal ended.
type Outcome uint8

// Outcomes.
const (
	Decided Outcome = iota + 1
	Refused
	Expired
	Outdated
	Withdrawn
	Abandoned // decided, and it could not be carried out
)

// String is the word used in tables and metrics.
func (o Outcome) String() string {
	if o == 0 || int(o) >= len(outcomes) {
		return "open"
	}
	return outcomes[o]
}

var outcomes = []string{"open", "decided", "refused", "expired", "outdated", "withdrawn", "abandoned"}

// Closed is the end of a proposal.
type Closed struct {
	ID       uint64
	Kind     Kind
	Subject  []byte
	Version  uint64
	Operator string
	AtMillis int64
	Outcome  Outcome
	Note     string // why, one sentence
	Index    uint64 // of the entry that ended it
}

// Version is a policy that was decided.
type Version struct {
	Number   uint64
	Policy   *policy.Policy
	Operator string
	AtMillis int64
	Proposal uint64
	// Index and Term are where it was decided, Entry the lineage's entry about it.
	Index, Term uint64
	Entry       anchormesh.Hash
	// Approved of Total weight were for it.
	Approved, Total uint64
}

// Record is all of it. It is not modified once made.
type Record struct {
	Versions []Version // oldest first; none: the mesh's default, version 0
	// InForce is the newest version that all segments of the scope had adopted.
	InForce uint64
	// Doing was decided and is being carried out: anything but Amend and Recover. nil:
	// nothing.
	Doing *Proposal
	// Recovering is a Recover that was decided and is being carried out. It has a place of
	// its own: what is in Doing may wait for the very segment that it recovers.
	Recovering *Proposal
	// Recoveries counts the Recovers that were decided: each skips more than the one
	// before, which may have been carried out in part and given up.
	Recoveries uint64
	Open       []*Proposal // ascending by ID
	Closed     []Closed    // oldest first
	Counts     []Count     // oldest first: the last decisions, either way
	Next       uint64      // the last ID given
}

// Newest returns the newest version; zero if there is none.
func (r *Record) Newest() Version {
	if len(r.Versions) == 0 {
		return Version{}
	}
	return r.Versions[len(r.Versions)-1]
}

// Find returns a version that is kept.
func (r *Record) Find(number uint64) (Version, bool) {
	i := slices.IndexFunc(r.Versions, func(v Version) bool { return v.Number == number })
	if i < 0 {
		return Version{}, false
	}
	return r.Versions[i], true
}

// Deleting reports whether the scope is being given back.
func (r *Record) Deleting() bool { return r.Doing != nil && r.Doing.Kind == Delete }

// Carried returns a proposal that is being carried out.
func (r *Record) Carried(id uint64) (*Proposal, bool) {
	for _, p := range []*Proposal{r.Doing, r.Recovering} {
		if p != nil && p.ID == id {
			return p, true
		}
	}
	return nil, false
}

// place returns where proposals of a kind stand while they are carried out.
func (r *Record) place(k Kind) **Proposal {
	if k == Recover {
		return &r.Recovering
	}
	return &r.Doing
}

// Proposal returns an open proposal, or one being carried out.
func (r *Record) Proposal(id uint64) (*Proposal, bool) {
	if p, carried := r.Carried(id); carried {
		return p, true
	}
	i := r.find(id)
	if i < 0 {
		return nil, false
	}
	return r.Open[i], true
}

func (r *Record) find(id uint64) int {
	return slices.IndexFunc(r.Open, func(p *Proposal) bool { return p.ID == id })
}

// Ended returns how a proposal ended; ok is false if it has not, or is forgotten.
func (r *Record) Ended(id uint64) (Closed, bool) {
	i := slices.IndexFunc(r.Closed, func(c Closed) bool { return c.ID == id })
	if i < 0 {
		return Closed{}, false
	}
	return r.Closed[i], true
}

// EncodePolicy returns a policy's canonical form; nil for none, which is the mesh's
// default.
func EncodePolicy(p *policy.Policy) []byte {
	if p == nil {
		return nil
	}
	return p.Encode()
}

// DecodePolicy reads what EncodePolicy wrote, and nothing else.
func DecodePolicy(b []byte) (*policy.Policy, error) {
	if len(b) == 0 {
		return nil, nil
	}
	return policy.Decode(b)
}

// PolicyHash names a policy; zero for none.
func PolicyHash(p *policy.Policy) anchormesh.Hash {
	if p == nil {
		return anchormesh.Hash{}
	}
	return p.Hash()
}
