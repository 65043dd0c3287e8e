package trust

import (
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// What an anchor gains and loses by one entry, in weight.
const (
	Recovery = 3
	// Slow is lost for missing a tenth of the acknowledgements, for being late a tenth of
	// the time, or for messages that had to be refused.
	Slow = -5
	// Lost is lost for missing half of them.
	Lost = -10
	// Differs is lost for a state other than the reporter's at the same place.
	Differs = -20
	StepMax = 20
)

// Shares of the acknowledgements, in thousandths.
const (
	slowPermille = 100
	lostPermille = 500
)

// Measure is what one anchor saw of another over the last while.
type Measure struct {
	Answered uint32 // acknowledgements that came in time
	Missed   uint32 // those that did not
	Late     uint32 // of Answered: those that showed it behind
	Invalid  uint32 // messages of it that had to be refused
	Differs  uint32 // times its state was another than the reporter's at the same place
}

// Points is the step that a measure asks for. ok is false if nothing was seen.
func (m Measure) Points() (points int, ok bool) {
	all := uint64(m.Answered) + uint64(m.Missed)
	switch {
	case m.Differs > 0:
		return Differs, true
	case all == 0 && m.Invalid > 0:
		return Slow, true
	case all == 0:
		return 0, false
	case uint64(m.Missed)*1000 >= lostPermille*all:
		return Lost, true
	case uint64(m.Missed)*1000 >= slowPermille*all, uint64(m.Late)*1000 >= slowPermille*all, m.Invalid > 0:
		return Slow, true
	}
	return Recovery, true
}

// Report is what one voter measured of the others, signed by it.
type Report struct {
	By anchormesh.NodeID
	// Measures has one element for each voter of the poll, in its order; the reporter's
	// own counts for nothing.
	Measures  []Measure
	Signature []byte
}

// Poll is what the reports of one entry have in common.
type Poll struct {
	Mesh       anchormesh.MeshID
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	Term       uint64          // of the leader that asks
	Version    uint64          // of the ledger that the entry follows on
	Ledger     anchormesh.Hash // its digest
	Voters     []anchormesh.NodeID
}

var (
	// ErrReports says that an entry's reports are not those of a majority of the voters,
	// each once, about the voters.
	ErrReports = errors.New("the reports are not those of a majority of the anchors")
	// ErrSignature says that a report is not signed by who it names.
	ErrSignature = errors.New("a report is not signed by the anchor that it names")
	// ErrUnchanged says that reports move nobody's weight: no entry is made of them.
	ErrUnchanged = errors.New("the reports change no weight")
	// ErrVersion says that reports are about another version of the ledger.
	ErrVersion = errors.New("the reports are about another version of the ledger")
)

// Verify checks the signatures. verify checks one.
func (p *Poll) Verify(reports []Report, verify func(node anchormesh.NodeID, statement, signature []byte) bool) error {
	for i := range reports {
		if !verify(reports[i].By, p.Statement(&reports[i]), reports[i].Signature) {
			return fmt.Errorf("%w: %s", ErrSignature, reports[i].By.Short())
		}
	}
	return nil
}

// check checks that reports are what an entry may hold.
func (p *Poll) check(reports []Report) error {
	if !slices.IsSorted(p.Voters) || len(p.Voters) == 0 || len(p.Voters) > VotersMax {
		return fmt.Errorf("%w: %d voters", ErrReports, len(p.Voters))
	}
	if len(reports) <= len(p.Voters)/2 {
		return fmt.Errorf("%w: %d of %d", ErrReports, len(reports), len(p.Voters))
	}
	for i := range reports {
		r := &reports[i]
		if _, votes := slices.BinarySearch(p.Voters, r.By); !votes || len(r.Measures) != len(p.Voters) {
			return fmt.Errorf("%w: %s has no say, or measured others", ErrReports, r.By.Short())
		}
		if i > 0 && reports[i-1].By >= r.By {
			return fmt.Errorf("%w: one reports twice, or they are out of order", ErrReports)
		}
	}
	return nil
}

// opinions returns the median of what the others think of each voter.
func (p *Poll) opinions(reports []Report) []Opinion {
	out := make([]Opinion, len(p.Voters))
	for i, v := range p.Voters {
		var points []int
		for j := range reports {
			if n, ok := reports[j].Measures[i].Points(); ok && reports[j].By != v {
				points = append(points, n)
			}
		}
		o := Opinion{Node: v, Points: median(points), Of: len(points)}
		if majority := len(p.Voters)/2 + 1; o.Points < 0 && o.Of < majority && len(p.Voters) > 2 {
			o.Points = 0 // too few have seen anything of it for that
		}
		out[i] = o
	}
	return out
}

// median of two in the middle is the one nearer to zero, and zero if they differ in
// sign: who is disputed stays what it is.
func median(points []int) int {
	if len(points) == 0 {
		return 0
	}
	slices.Sort(points)
	low, high := points[(len(points)-1)/2], points[len(points)/2]
	switch {
	case low > 0:
		return low
	case high < 0:
		return high
	}
	if low == high {
		return low
	}
	return 0
}
