package trust

import (
	"cmp"
	"errors"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// Weights. They are part of what every replica computes: see the package comment.
const (
	Least    = 1
	Newcomer = 10
	Floor    = 20
	Cap      = 100
)

// Limits of a ledger.
const (
	// HistoryMax is how many entries are kept for replay.
	HistoryMax = 64
	// AbsentMax is how many nodes are remembered that are no voters.
	AbsentMax = 16
	// VotersMax is how many voters a group may have, with room for a joint
	// configuration's.
	VotersMax = 16
)

// ErrReplay says that a ledger's weights do not follow from its history.
var ErrReplay = errors.New("the trust ledger's weights do not follow from its history")

// Weight is how much one node weighs.
type Weight struct {
	Node   anchormesh.NodeID
	Weight uint32
}

func byNode(w Weight, node anchormesh.NodeID) int { return cmp.Compare(w.Node, node) }

// Ledger is a segment's trust in its anchors. It is not modified once made. The nil
// Ledger is that of a segment whose anchors were never judged: all weigh Newcomer.
type Ledger struct {
	// version counts the entries that made it.
	version uint64
	weights []Weight // by node
	digest  anchormesh.Hash
	made    *past // nil: encoded has it
	encoded []byte
}

// past is how the weights came to be. Thousands of segments at rest have one each that
// nobody asks for: what was decoded is kept as its encoding.
type past struct {
	base []Weight // before the first of history
	// before stands for all that made base; with base it is the checkpoint from which
	// the history is replayed.
	before  anchormesh.Hash
	history []Step   // oldest first, up to the ledger's version
	poll    *Poll    // of the newest of history
	last    []Report // to that poll, by reporter
}

func (l *Ledger) past() *past {
	switch {
	case l == nil:
		return &past{}
	case l.made != nil:
		return l.made
	}
	_, p, err := parse(l.encoded)
	if err != nil {
		panic("trust: a ledger that was decoded cannot be read: " + err.Error())
	}
	return p
}

// Step is one entry of a ledger.
type Step struct {
	Version     uint64
	Index, Term uint64 // of the entry in the segment's log
	// Opinions has one element for each voter then in force, by node.
	Opinions []Opinion
	// Evidence is the hash of the entry's reports.
	Evidence anchormesh.Hash
}

// Opinion is the median of what the others think of a voter.
type Opinion struct {
	Node anchormesh.NodeID
	// Points is the step that the evidence asks for: see Measure.Points.
	Points int
	// Of is how many others had seen anything of it.
	Of int
}

// Version counts the entries that made the ledger. Votes name it.
func (l *Ledger) Version() uint64 {
	if l == nil {
		return 0
	}
	return l.version
}

// Weight returns what a node weighs.
func (l *Ledger) Weight(node anchormesh.NodeID) uint32 {
	if l == nil {
		return Newcomer
	}
	return weightIn(l.weights, node)
}

// Known reports whether the ledger has anything on a node.
func (l *Ledger) Known(node anchormesh.NodeID) bool {
	if l == nil {
		return false
	}
	_, found := slices.BinarySearchFunc(l.weights, node, byNode)
	return found
}

// Weights returns what is known, by node: anchors, and those that were.
func (l *Ledger) Weights() []Weight {
	if l == nil {
		return nil
	}
	return slices.Clone(l.weights)
}

// History returns the entries that are kept, oldest first. It is not to be modified.
func (l *Ledger) History() []Step {
	return l.past().history
}

// Last returns the signed reports of the newest entry. It is not to be modified.
func (l *Ledger) Last() []Report {
	return l.past().last
}

// Of returns what the voters weigh, by node.
func (l *Ledger) Of(voters []anchormesh.NodeID) []Weight {
	if l == nil {
		return weigh(nil, voters)
	}
	return weigh(l.weights, voters)
}

// BelowFloor counts the voters that weigh less than Floor.
func (l *Ledger) BelowFloor(voters []anchormesh.NodeID) (n int) {
	for _, v := range voters {
		if l.Weight(v) < Floor {
			n++
		}
	}
	return n
}

func weightIn(weights []Weight, node anchormesh.NodeID) uint32 {
	if i, found := slices.BinarySearchFunc(weights, node, byNode); found {
		return weights[i].Weight
	}
	return Newcomer
}

func weigh(weights []Weight, voters []anchormesh.NodeID) []Weight {
	out := make([]Weight, 0, len(voters))
	for _, v := range voters {
		out = append(out, Weight{v, weightIn(weights, v)})
	}
	slices.SortFunc(out, func(a, b Weight) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// At returns the weights that held at a version: nodes that are not in it weighed
// Newcomer. ok is false if the version is older than the history, or is to come.
func (l *Ledger) At(version uint64) (weights []Weight, ok bool) {
	if l == nil {
		return nil, version == 0
	}
	p := l.past()
	if version > l.version || version+uint64(len(p.history)) < l.version {
		return nil, false
	}
	weights = p.base
	for i := range p.history {
		if p.history[i].Version > version {
			break
		}
		weights = advance(weights, p.history[i].Opinions)
	}
	return weights, true
}

// ElectorateAt returns the electorate of voters at a version: what a vote that names
// the version is counted with.
func (l *Ledger) ElectorateAt(version uint64, voters []anchormesh.NodeID, thresholds ...Threshold) (*Electorate, bool) {
	weights, ok := l.At(version)
	if !ok {
		return nil, false
	}
	return Elect(weigh(weights, voters), thresholds...), true
}
