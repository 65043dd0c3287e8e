package commit

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
)

// Side tables of the segment that hold a Participant. Rows are keyed by TxnID; the
// floor is one row under an empty key, 8 bytes big-endian.
//
//	prepared   version 1 | TxnID | stamp | decision key | spans | locks | writes
//	decision   version 1 | TxnID | flag | revision | decision key | spans
const (
	TablePrepared = "commit-prepared"
	TableDecision = "commit-decision"
	TableFloor    = "commit-floor"
)

// Change is a row to be written with the entry that was applied; a nil Value is a
// deletion.
type Change struct {
	Table      string
	Key, Value []byte
}

// Changes returns what has changed since the last call.
func (p *Participant) Changes() []Change {
	out := p.changes
	p.changes = nil
	return out
}

func (p *Participant) change(table string, id TxnID, value []byte) {
	p.changes = append(p.changes, Change{Table: table, Key: slices.Clone(id[:]), Value: value})
}

func floorChange(floor int64) Change {
	return Change{Table: TableFloor, Key: []byte{}, Value: binary.BigEndian.AppendUint64(nil, uint64(floor))}
}

// Load takes in one stored row, when a segment is opened; the error is
// ErrMalformed.
func (p *Participant) Load(table string, key, value []byte) error {
	defer func() { p.changes = nil }()
	switch table {
	case TablePrepared:
		r, err := decodeRecord(value)
		if err != nil || string(key) != string(r.Txn[:]) {
			return fmt.Errorf("%w: row %x of %s", ErrMalformed, key, table)
		}
		p.setRecord(r)
	case TableDecision:
		d, err := DecodeDecide(value)
		if err != nil || string(key) != string(d.Txn[:]) {
			return fmt.Errorf("%w: row %x of %s", ErrMalformed, key, table)
		}
		p.setDecision(&Decision{Txn: d.Txn, Verdict: d.Verdict, Key: d.Key, Spans: d.Spans})
	case TableFloor:
		if len(key) != 0 || len(value) != 8 || value[0] > 0x7f {
			return fmt.Errorf("%w: row %x of %s", ErrMalformed, key, table)
		}
		p.floor = int64(binary.BigEndian.Uint64(value))
	}
	return nil
}

func (r *Record) encode() []byte {
	w := begin(r.Txn)
	w.uint(uint64(r.Stamp))
	w.bytes(r.Decision)
	w.spans(r.Spans)
	w.locks(r.Locks)
	w.writes(r.Writes)
	return w.b
}

func decodeRecord(b []byte) (*Record, error) {
	r, id := open(b)
	rec := &Record{Txn: id, Stamp: int64(r.uint()), Decision: r.bytes(), Spans: r.spans(), Locks: r.locks(), Writes: r.writes()}
	if rec.Stamp < 0 {
		r.fail("stamp")
	}
	return rec, r.end()
}

func (d *Decision) encode() []byte {
	return (&Decide{Txn: d.Txn, Verdict: d.Verdict, Key: d.Key, Spans: d.Spans}).Encode()
}

// Cut takes the keys from at on out of p, for a split, and returns them as the
// right child's. Both children keep the floor.
func (p *Participant) Cut(at []byte) *Participant {
	right := &Participant{}
	right.raise(p.floor)
	leftOf, rightOf := anchormesh.KeyRange{End: at}, anchormesh.KeyRange{Start: at}
	for _, r := range p.Records() {
		l, x := r.within(leftOf), r.within(rightOf)
		if x == nil {
			continue
		}
		right.setRecord(x)
		if l != nil {
			p.setRecord(l)
		} else {
			p.dropRecord(r.Txn)
		}
	}
	for _, d := range p.Decisions() {
		if rightOf.Contains(d.Key) {
			right.setDecision(d)
			p.Forget(d.Txn)
		}
	}
	return right
}

// within returns the record's share of a range, nil if it locks nothing there.
func (r *Record) within(rng anchormesh.KeyRange) *Record {
	out := &Record{Txn: r.Txn, Stamp: r.Stamp, Decision: r.Decision, Spans: r.Spans}
	for _, l := range r.Locks {
		if share, ok := clip(l.Range, rng); ok {
			out.Locks = append(out.Locks, Lock{Range: share, Exclusive: l.Exclusive})
		}
	}
	for _, w := range r.Writes {
		if rng.Contains(w.Key) {
			out.Writes = append(out.Writes, w)
		}
	}
	if len(out.Locks) == 0 {
		return nil
	}
	return out
}

// Absorb takes in what the right neighbour held when it was frozen, for a merge.
// The shares of one transaction become one: its revision will be above both
// stamps.
func (p *Participant) Absorb(right *Participant) {
	for _, x := range right.records {
		if l, ok := p.Record(x.Txn); ok {
			x = l.join(x)
		}
		p.setRecord(x)
	}
	for _, d := range right.decisions {
		p.setDecision(d)
	}
	p.raise(right.floor)
}

func (r *Record) join(x *Record) *Record {
	out := *r
	out.Stamp = max(r.Stamp, x.Stamp)
	out.Locks = slices.Concat(r.Locks, x.Locks)
	out.Writes = slices.Concat(r.Writes, x.Writes)
	slices.SortFunc(out.Writes, func(a, b Write) int { return int(int64(a.Sub) - int64(b.Sub)) })
	return &out
}
