package keeper

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// Limits of a record.
const (
	CasesMax   = 256
	FloorsMax  = 1024
	ReportsMax = 16 // of a case: no group has so many voters
	ConfsMax   = 16 // that one report names
	VotersMax  = 16 // of a configuration, and holders that a report names
)

// What refuses an entry: it takes effect nowhere.
var (
	// ErrReport: the report makes no sense.
	ErrReport = errors.New("the report is not valid")
	// ErrKnown: it was reported before, or is decided already.
	ErrKnown = errors.New("the loss is known")
	// ErrFull: too many segments are waited for or remembered.
	ErrFull = errors.New("too many segments have lost replicas")
	// ErrNoCase: nothing is decided about that segment.
	ErrNoCase = errors.New("no loss of that segment is decided")
	// ErrBehind: whoever is to begin anew has less than one of the reporters.
	ErrBehind = errors.New("the replica has less than a reporter has")
)

// Position is where a log, or what was applied of it, ends.
type Position struct{ Term, Index uint64 }

// Less orders logs as Raft's elections do.
func (p Position) Less(o Position) bool {
	return p.Term < o.Term || p.Term == o.Term && p.Index < o.Index
}

// Conf names the replicas of which a majority has to agree, ascending.
type Conf []anchormesh.ReplicaID

// Holder is a replica and the node that has it.
type Holder struct {
	Replica anchormesh.ReplicaID
	Node    anchormesh.NodeID
}

// Report says of a replica that it may have forgotten what it acknowledged, and takes no
// part any more.
type Report struct {
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	Holder
	// Left is where what is left of it ends.
	Left Position
	// Confs are all configurations that its state and its log name; a joint one is two.
	Confs []Conf
	// Holders are the anchors that it knows, ascending by replica.
	Holders []Holder
}

// Case is what is known of the losses of one segment.
type Case struct {
	Segment anchormesh.SegmentID
	Reports []Report // ascending by replica
	// Entry is the lineage's entry about the decision; zero: there is none yet.
	Entry anchormesh.Hash
	// Chosen begins anew; zero: nobody is chosen yet.
	Chosen Holder
}

// Floor is the lowest generation of a segment of which anything is heard.
type Floor struct {
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
}

// Record is all of it. Its zero value knows of no loss. It is not modified once made.
type Record struct {
	Cases  []Case  // ascending by segment
	Floors []Floor // ascending by segment
}

func bySegment(c Case, id anchormesh.SegmentID) int       { return cmp.Compare(c.Segment, id) }
func floorBySegment(f Floor, id anchormesh.SegmentID) int { return cmp.Compare(f.Segment, id) }

// Case returns what is known of a segment's losses.
func (r *Record) Case(id anchormesh.SegmentID) (*Case, bool) {
	if r == nil {
		return nil, false
	}
	i, ok := slices.BinarySearchFunc(r.Cases, id, bySegment)
	if !ok {
		return nil, false
	}
	return &r.Cases[i], true
}

// Busy reports whether a segment is to begin anew and has not yet.
func (r *Record) Busy() bool {
	return r != nil && slices.ContainsFunc(r.Cases, func(c Case) bool { return c.Decided() })
}

// Floor returns the lowest generation of a segment that is heard; zero: any.
func (r *Record) Floor(id anchormesh.SegmentID) anchormesh.Generation {
	if r == nil {
		return 0
	}
	if i, ok := slices.BinarySearchFunc(r.Floors, id, floorBySegment); ok {
		return r.Floors[i].Generation
	}
	return 0
}

// Decided reports whether the segment is to begin anew.
func (c *Case) Decided() bool { return !c.Entry.IsZero() }

// Generation is the newest that a reporter knows.
func (c *Case) Generation() (newest anchormesh.Generation) {
	for i := range c.Reports {
		newest = max(newest, c.Reports[i].Generation)
	}
	return newest
}

// Best is the report with the most in its log.
func (c *Case) Best() *Report {
	best := &c.Reports[0]
	for i := range c.Reports {
		if best.Left.Less(c.Reports[i].Left) {
			best = &c.Reports[i]
		}
	}
	return best
}

// Holders are all anchors that some reporter knows, ascending by replica.
func (c *Case) Holders() (out []Holder) {
	for i := range c.Reports {
		for _, h := range c.Reports[i].Holders {
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	slices.SortFunc(out, compareHolders)
	return out
}

func compareHolders(a, b Holder) int {
	return cmp.Or(cmp.Compare(a.Replica, b.Replica), cmp.Compare(a.Node, b.Node))
}

// Lost reports whether those who reported are a majority of every configuration named.
func (c *Case) Lost() bool {
	for i := range c.Reports {
		for _, conf := range c.Reports[i].Confs {
			dead := 0
			for _, id := range conf {
				if c.reported(id) {
					dead++
				}
			}
			if dead <= len(conf)/2 {
				return false
			}
		}
	}
	return len(c.Reports) > 0
}

// Knows reports whether a report of a replica needs no repetition.
func (c *Case) Knows(id anchormesh.ReplicaID) bool { return c.Decided() || c.reported(id) }

func (c *Case) reported(id anchormesh.ReplicaID) bool {
	return slices.ContainsFunc(c.Reports, func(rep Report) bool { return rep.Replica == id })
}

// Report takes a report in, and says whether the segment is lost with it. The errors are
// ErrReport, ErrKnown and ErrFull.
func (r *Record) Report(rep Report) (next *Record, lost bool, err error) {
	if err := rep.validate(); err != nil {
		return nil, false, err
	}
	if r == nil {
		r = &Record{}
	}
	floor := r.Floor(rep.Segment)
	i, is := slices.BinarySearchFunc(r.Cases, rep.Segment, bySegment)
	switch {
	case rep.Generation < floor:
		return nil, false, fmt.Errorf("%w: segment %s went on at generation %d or above", ErrKnown, rep.Segment, floor)
	case is && (r.Cases[i].Decided() || r.Cases[i].reported(rep.Replica)):
		return nil, false, fmt.Errorf("%w: replica %d of segment %s", ErrKnown, rep.Replica, rep.Segment)
	case !is && len(r.Cases) >= CasesMax, floor == 0 && len(r.Floors)+len(r.Cases) >= FloorsMax, is && len(r.Cases[i].Reports) >= ReportsMax:
		return nil, false, fmt.Errorf("%w: %d are waited for, %d have begun anew", ErrFull, len(r.Cases), len(r.Floors))
	}
	next = &Record{Cases: slices.Clone(r.Cases), Floors: r.Floors}
	if !is {
		next.Cases = slices.Insert(next.Cases, i, Case{Segment: rep.Segment})
	}
	c := &next.Cases[i]
	at, _ := slices.BinarySearchFunc(c.Reports, rep.Replica, func(a Report, id anchormesh.ReplicaID) int { return cmp.Compare(a.Replica, id) })
	c.Reports = slices.Insert(slices.Clone(c.Reports), at, rep)
	return next, c.Lost(), nil
}

// Decide names the lineage's entry about a segment that is lost.
func (r *Record) Decide(id anchormesh.SegmentID, entry anchormesh.Hash) *Record {
	return r.with(id, func(c *Case) { c.Entry = entry })
}

// Choose says who begins anew. The first one chosen stands. The errors are ErrNoCase,
// ErrKnown and ErrBehind.
func (r *Record) Choose(id anchormesh.SegmentID, h Holder, has Position) (*Record, error) {
	c, is := r.Case(id)
	switch {
	case !is || !c.Decided():
		return nil, fmt.Errorf("%w: %s", ErrNoCase, id)
	case c.Chosen != Holder{}:
		return nil, fmt.Errorf("%w: replica %d of segment %s is chosen", ErrKnown, c.Chosen.Replica, id)
	case has.Less(c.Best().Left) || !slices.Contains(c.Holders(), h):
		return nil, fmt.Errorf("%w: replica %d of segment %s", ErrBehind, h.Replica, id)
	}
	return r.with(id, func(c *Case) { c.Chosen = h }), nil
}

func (r *Record) with(id anchormesh.SegmentID, f func(*Case)) *Record {
	next := &Record{Cases: slices.Clone(r.Cases), Floors: r.Floors}
	if c, is := next.Case(id); is {
		f(c)
	}
	return next
}

// End forgets the case of a segment, if there is one: of generations below this one
// nothing is heard any more. The error is ErrFull.
func (r *Record) End(id anchormesh.SegmentID, lowest anchormesh.Generation) (*Record, error) {
	if r == nil {
		r = &Record{}
	}
	next := &Record{
		Cases:  slices.DeleteFunc(slices.Clone(r.Cases), func(c Case) bool { return c.Segment == id }),
		Floors: slices.Clone(r.Floors),
	}
	i, is := slices.BinarySearchFunc(next.Floors, id, floorBySegment)
	switch {
	case is:
		next.Floors[i].Generation = max(next.Floors[i].Generation, lowest)
	case len(next.Floors) >= FloorsMax:
		return nil, fmt.Errorf("%w: %d have begun anew", ErrFull, len(next.Floors))
	default:
		next.Floors = slices.Insert(next.Floors, i, Floor{id, lowest})
	}
	return next, nil
}

// Drop forgets reports that did not come to a decision: the segment goes on without
// the replicas, or is no more.
func (r *Record) Drop(id anchormesh.SegmentID) (*Record, error) {
	if c, is := r.Case(id); !is || c.Decided() {
		return nil, fmt.Errorf("%w: %s", ErrNoCase, id)
	}
	return &Record{
		Cases:  slices.DeleteFunc(slices.Clone(r.Cases), func(c Case) bool { return c.Segment == id }),
		Floors: r.Floors,
	}, nil
}
