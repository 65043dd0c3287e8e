package commit

import (
	"bytes"
	"errors"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
)

var (
	// ErrNoSegment: the routes leave a gap where the transaction has keys.
	ErrNoSegment = errors.New("commit: no segment holds the transaction's keys")
	// ErrLight: a transaction over a light segment and anything else. Its memory of
	// what was decided could be lost where others have acted on it.
	ErrLight = errors.New("commit: a transaction cannot span a light segment and others")
)

// RangesMax is how many ranges a transaction may name, each counted once for every
// segment that it touches.
const RangesMax = 4096

// Segment is what Divide needs to know of one.
type Segment struct {
	Range anchormesh.KeyRange
	Light bool // keeps its keys in memory only
}

// Read is what a participant reads for the coordinator: etcd's (key, range_end), at
// its newest state if Revision is not positive, else there. Any other Revision than
// zero is checked as etcd checks it; what fails fails this read alone, since the
// branch that holds it may not be taken. Without Values values may be left out.
type Read struct {
	Range    anchormesh.KeyRange
	Revision int64
	Values   bool
}

// Got answers a Read: the key-values in key order, leases included.
type Got struct {
	KVs []codec.KeyValue
	Err error
}

// Part is one participant's share: what to lock and to read. What to write is known
// once everything was read.
type Part struct {
	Locks []Lock
	Reads []Read
}

// Key finds the participant: the first key that it locks.
func (p *Part) Key() []byte { return hull(p.Locks).Start }

// Division is a transaction divided among segments.
type Division struct {
	Parts    []Part
	Decision []byte                // its first key
	Spans    []anchormesh.KeyRange // what each part locks, from its first to its last key
	txn      *codec.TxnRequest
	plain    bool // a DeleteRange request, not a Txn
}

// Divide divides a transaction among the segments in order of their ranges. The
// request must have passed etcd's checks. Every range that it names, on either
// branch, is locked and read; a range over several segments becomes one for each.
// With at most one Part the caller needs no transaction over segments at all.
func Divide(txn *codec.TxnRequest, segments []Segment) (*Division, error) {
	var named []name
	named = appendTxn(named, txn)
	d := &Division{txn: txn}
	light := false
	covered := 0
	for _, s := range segments {
		var p Part
		for _, n := range named {
			share, ok := clip(n.read.Range, s.Range)
			if !ok {
				continue
			}
			n.read.Range = share
			p.Reads = append(p.Reads, n.read)
			p.Locks = append(p.Locks, Lock{Range: share, Exclusive: n.exclusive})
		}
		if covered += len(p.Locks); len(p.Locks) > 0 {
			d.Parts = append(d.Parts, p)
			light = light || s.Light
		}
	}
	switch {
	case !covers(segments, named):
		return nil, ErrNoSegment
	case covered > RangesMax:
		return nil, ErrTooLarge
	case light && len(d.Parts) > 1:
		return nil, ErrLight
	}
	for i := range d.Parts {
		d.Spans = append(d.Spans, hull(d.Parts[i].Locks))
	}
	if len(d.Spans) > 0 {
		d.Decision = d.Spans[0].Start
	}
	return d, nil
}

// DivideDelete divides a DeleteRange request.
func DivideDelete(r *codec.DeleteRangeRequest, segments []Segment) (*Division, error) {
	d, err := Divide(&codec.TxnRequest{Success: []codec.RequestOp{{Kind: codec.KindDeleteRange, DeleteRange: *r}}}, segments)
	if err == nil {
		d.plain = true
	}
	return d, err
}

// LocksOf returns what a transaction of one segment would lock: it must not be
// applied while a prepared transaction holds any of it.
func LocksOf(txn *codec.TxnRequest) []Lock {
	var out []Lock
	for _, n := range appendTxn(nil, txn) {
		out = append(out, Lock{Range: n.read.Range, Exclusive: n.exclusive})
	}
	return out
}

// name is a range that a transaction names.
type name struct {
	read      Read
	exclusive bool
}

// rangeOf is etcd's (key, range_end) as a range that is not empty. One that holds
// nothing is read as its first key, so that somebody checks the revision it asks
// for.
func rangeOf(key, end []byte) anchormesh.KeyRange {
	if r := anchormesh.RequestRange(key, end); !r.Empty() {
		return r
	}
	return anchormesh.RequestRange(key, nil)
}

func appendTxn(out []name, r *codec.TxnRequest) []name {
	for i := range r.Compare {
		c := &r.Compare[i]
		out = append(out, name{read: Read{Range: rangeOf(c.Key, c.RangeEnd), Values: c.Target == codec.CompareValue}})
	}
	return appendOps(appendOps(out, r.Success), r.Failure)
}

func appendOps(out []name, ops []codec.RequestOp) []name {
	for i := range ops {
		switch op := &ops[i]; op.Kind {
		case codec.KindRange:
			q := &op.Range
			byValue := q.SortTarget == codec.SortByValue
			out = append(out, name{read: Read{
				Range: rangeOf(q.Key, q.RangeEnd), Revision: q.Revision, Values: !q.CountOnly && (byValue || !q.KeysOnly),
			}})
		case codec.KindPut:
			p := &op.Put
			out = append(out, name{exclusive: true, read: Read{
				Range: rangeOf(p.Key, nil), Values: p.PrevKV || p.IgnoreValue || p.IgnoreLease,
			}})
		case codec.KindDeleteRange:
			x := &op.DeleteRange
			out = append(out, name{exclusive: true, read: Read{Range: rangeOf(x.Key, x.RangeEnd), Values: x.PrevKV}})
		case codec.KindTxn:
			out = appendTxn(out, op.Txn)
		}
	}
	return out
}

// covers reports whether the segments leave no gap in what is named.
func covers(segments []Segment, named []name) bool {
	for _, n := range named {
		rest := []anchormesh.KeyRange{n.read.Range}
		for _, s := range segments {
			rest = subtract(rest, s.Range)
		}
		if len(rest) > 0 {
			return false
		}
	}
	return true
}

// partOf returns the participant that locks a key exclusively.
func (d *Division) partOf(key []byte) int {
	return slices.IndexFunc(d.Spans, func(s anchormesh.KeyRange) bool { return s.Contains(key) })
}

// table is a state: key-values in key order.
type table []codec.KeyValue

func (t table) find(key []byte) (int, bool) {
	return slices.BinarySearchFunc(t, key, func(kv codec.KeyValue, key []byte) int { return bytes.Compare(kv.Key, key) })
}

func (t table) get(key []byte) (codec.KeyValue, bool) {
	i, ok := t.find(key)
	if !ok {
		return codec.KeyValue{}, false
	}
	return t[i], true
}

// in returns the key-values of etcd's (key, range_end).
func (t table) in(key, end []byte) table {
	r := anchormesh.RequestRange(key, end)
	if r.Empty() {
		return nil
	}
	from, _ := t.find(r.Start)
	to := len(t)
	if len(r.End) > 0 {
		to, _ = t.find(r.End)
	}
	return t[from:to:to]
}

// gather makes a table of what overlapping reads brought of one state. A value read
// by one of them is known.
func gather(kvs []codec.KeyValue) table {
	slices.SortStableFunc(kvs, func(a, b codec.KeyValue) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return len(b.Value) - len(a.Value)
	})
	return slices.CompactFunc(kvs, func(a, b codec.KeyValue) bool { return bytes.Equal(a.Key, b.Key) })
}
