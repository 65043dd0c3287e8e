package governor

import (
	"context"
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/anchors/scope"
)

var (
	// ErrNoScope: there is no scope of that prefix.
	ErrNoScope = errors.New("there is no such scope")
	// ErrUnavailable: the scope's home has no leader that this node can reach; or it
	// changed meanwhile. What was asked may be asked again.
	ErrUnavailable = errors.New("the scope's home cannot be reached")
	// ErrRefused is wrapped by whatever would be refused again.
	ErrRefused = errors.New("refused")
	// ErrNotNow is wrapped by what is refused for a reason that passes: a group that
	// changes, another change that is being carried out. Nothing has happened.
	ErrNotNow = errors.New("not now")
	// ErrUnknown: the proposal may or may not stand in the log: look at the scope.
	ErrUnknown = errors.New("the outcome is not known: look at the scope")
)

// Scopes is what operators use, through any node.
type Scopes interface {
	// Propose puts a change to the vote and returns where. The errors are ErrNoScope,
	// ErrRefused, ErrNotNow, ErrUnavailable, ErrUnknown and the context's.
	Propose(ctx context.Context, c Change) (Receipt, error)
	// Await returns when the proposal has ended and, if it was decided, has been carried
	// out: in force in all segments. The errors are Propose's.
	Await(ctx context.Context, r Receipt) (scope.Closed, error)
	// Vote gives the vote of a node that votes in the home's group, where operators vote.
	Vote(ctx context.Context, r Receipt, node anchormesh.NodeID, approve bool, why string) error
	// Withdraw ends an open proposal, or gives up a recovery that is being carried out.
	Withdraw(ctx context.Context, r Receipt, operator string) error
	// Show returns a scope with its history and what is open.
	Show(ctx context.Context, prefix []byte) (*View, error)
	// List returns the prefixes of the scopes that this node knows of, ascending.
	List() [][]byte
	// Fit says why no scope can be made of a prefix now; nil: it can. The errors are
	// ErrNotNow, ErrUnavailable and the context's.
	Fit(ctx context.Context, prefix []byte) error
	// RecoverHere lets a segment begin anew on this node's replica; see Governor.
	RecoverHere(ctx context.Context, segment anchormesh.SegmentID, operator string) (*anchormesh.Descriptor, error)
	// Around returns the prefix of the innermost scope that holds a key.
	Around(key []byte) ([]byte, bool)
}

// Change is what an operator asks for.
type Change struct {
	Kind   scope.Kind
	Prefix []byte // of the scope; of a Recover: any, the segment decides
	// Policy is the new one (Amend, Create).
	Policy *policy.Policy
	// Expect is the version that an amendment follows; AnyVersion: the newest one.
	Expect     uint64
	AnyVersion bool
	// Segment and Survivor say what is recovered, and on whose replica (Recover).
	Segment  anchormesh.SegmentID
	Survivor anchormesh.NodeID
	// Key is where Segment is cut, or where the neighbour begins that it takes in (Split,
	// Merge); From and To are the nodes between which its replica moves (Move). Only where
	// operators vote are these proposals; elsewhere they are ordered of its leader.
	Key      []byte
	From, To anchormesh.NodeID
	Operator string
}

// Receipt names a proposal: the scope in whose home it is decided, and its number there.
type Receipt struct {
	Scope []byte
	ID    uint64
	Kind  scope.Kind
}

// Adoption is how far one segment of a scope is.
type Adoption struct {
	Segment anchormesh.SegmentID
	Range   anchormesh.KeyRange
	Version uint64 // that it has adopted
	Entered bool   // it belongs to the scope; else it is still in the one around it
}

// Standing is how an open proposal stands.
type Standing struct {
	ID    uint64
	Tally scope.Tally
	// Waiting for these voters.
	Waiting []anchormesh.NodeID
}

// View is a scope as its home's leader shows it.
type View struct {
	Prefix   []byte
	Home     anchormesh.SegmentID
	Leader   anchormesh.NodeID
	Voters   []anchormesh.NodeID // of the home's group
	Weights  []uint64            // of these, as votes on changes count them now
	Needed   uint64              // the least sum that decides
	Anchors  int                 // that its segments have
	Record   *scope.Record
	Open     []Standing
	Segments []Adoption // as far as that node knows; those of scopes inside are left out
}

// Policy returns the newest version's policy; nil: the mesh's default.
func (v *View) Policy() *policy.Policy { return v.Record.Newest().Policy }

// Partial reports whether some segment has not adopted the newest version yet, as far as
// the home knows.
func (v *View) Partial() bool { return v.Record.InForce < v.Record.Newest().Number }
