package audit

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/machine"
)

// ledgers makes each segment's ledger again, from the reports in the logs.
type ledgers struct {
	books  *Books
	past   *past
	verify machine.Verify
	// steps says where in its own log a segment's ledger took which step, by those that
	// still remember.
	steps map[anchormesh.SegmentID]map[uint64]trust.Step
	done  map[anchormesh.SegmentID]*account
}

// account is a ledger's life.
type account struct {
	begin   *trust.Ledger
	entries []entered
	whole   bool // known from the segment's beginning on
	doubt   bool // what held at some of its entries is not kept
}

type entered struct {
	index  uint64
	ledger *trust.Ledger
}

func newLedgers(b *Books, p *past, verify machine.Verify) *ledgers {
	l := &ledgers{books: b, past: p, verify: verify, done: make(map[anchormesh.SegmentID]*account)}
	l.steps = make(map[anchormesh.SegmentID]map[uint64]trust.Step)
	for _, s := range b.States {
		of := l.steps[s.Descriptor.Segment]
		if of == nil {
			of = make(map[uint64]trust.Step)
			l.steps[s.Descriptor.Segment] = of
		}
		for _, step := range s.Trust.History() {
			of[step.Version] = step
		}
	}
	return l
}

// of returns a segment's account.
func (l *ledgers) of(segment anchormesh.SegmentID) *account {
	if a := l.done[segment]; a != nil {
		return a
	}
	a := &account{}
	l.done[segment] = a // a lineage has no circles; a broken one must not hang us
	if log := l.books.Logs[segment]; log != nil {
		a.whole = log.Whole
	}
	if birth := l.past.births[segment]; birth != nil {
		parent := l.of(birth.Segment)
		a.begin, a.whole, a.doubt = parent.at(birth.Index), a.whole && parent.whole, parent.doubt
	}
	if a.whole {
		l.replay(segment, a)
	}
	return a
}

// at returns the ledger that held for an entry at an index.
func (a *account) at(index uint64) *trust.Ledger {
	now := a.begin
	for _, e := range a.entries {
		if e.index >= index {
			break
		}
		now = e.ledger
	}
	return now
}

func (l *ledgers) replay(segment anchormesh.SegmentID, a *account) {
	now := a.begin
	for i := range l.books.Logs[segment].Entries {
		e := &l.books.Logs[segment].Entries[i]
		if next := l.next(segment, now, e); next != nil {
			now = next
			a.entries = append(a.entries, entered{e.Index, next})
		}
	}
}

// next returns the ledger behind an entry; nil: the entry changes nothing.
func (l *ledgers) next(segment anchormesh.SegmentID, now *trust.Ledger, e *Entry) *trust.Ledger {
	if len(e.Payloads) != 1 || keyspace.Op(e.Payloads[0][0]) != machine.OpTrust {
		return nil
	}
	held, known := l.past.at(segment, e.Index)
	if !known {
		l.of(segment).doubt = true
	}
	if known && held.generation != e.Generation {
		return nil
	}
	if step, remembered := l.steps[segment][now.Version()+1]; remembered && (step.Index != e.Index || step.Term != e.Term) {
		return nil // another entry made that step: this one found the segment frozen, or came late
	}
	r := fields.Reader{Rest: e.Payloads[0][1:]}
	p, reports, err := trust.ParseEntry(r.Bytes())
	if err != nil || p.Segment != segment || p.Generation != e.Generation || p.Term != e.Term || known && !slices.Equal(p.Voters, held.voters) {
		return nil
	}
	next, err := now.Next(p, reports, e.Index, e.Term)
	if err != nil || p.Verify(reports, l.verify) != nil {
		return nil
	}
	return next
}

// judge compares what the nodes hold with what the logs say.
func (l *ledgers) judge() Verdict {
	v := Verdict{Name: "trust: every ledger follows from the signed reports in the log"}
	for _, s := range l.books.States {
		id := s.Descriptor.Segment
		if s.Trust == nil {
			continue
		}
		if err := s.Trust.Replay(); err != nil {
			v.broken("segment %s: %v", id, err)
		}
		a := l.of(id)
		if !a.whole {
			v.Unknown++
			continue
		}
		mine := a.version(s.Trust.Version())
		if mine == nil && a.doubt {
			v.Unknown++
			continue
		}
		v.Judged++
		if mine == nil || !bytes.Equal(mine.Encode(), s.Trust.Encode()) {
			v.broken("segment %s: the ledger's version %d does not follow from the log, which makes %s", id, s.Trust.Version(), weights(mine))
		}
	}
	return v
}

func (a *account) version(n uint64) *trust.Ledger {
	if a.begin.Version() == n {
		return a.begin
	}
	for _, e := range a.entries {
		if e.ledger.Version() == n {
			return e.ledger
		}
	}
	return nil
}

func weights(l *trust.Ledger) string {
	if l == nil {
		return "none"
	}
	return fmt.Sprint(l.Weights())
}
