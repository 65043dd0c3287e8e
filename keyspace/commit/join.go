package commit

import (
	"bytes"
	"cmp"
	"errors"
	"math"
	"slices"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// ErrKeyNotFound: a put that keeps value or lease found no key.
var ErrKeyNotFound = errors.New("commit: key not found")

// ReadBytesMax is how much a transaction may read, in keys and values together.
// More is refused with ErrTooLarge.
const ReadBytesMax = 32 << 20

// Plan is what a transaction comes to, evaluated on what was read under its locks.
type Plan struct {
	// Writes of each part, with their places in the revision. A part that is only
	// read has none and is prepared all the same: its locks must hold until the
	// transaction has its place in the order.
	Writes [][]Write
	eval   evaluation
}

// Join evaluates a transaction on what its participants read, in the order of
// Parts. The error is the client's: ErrKeyNotFound, ErrTooLarge, or one that a read
// on the picked branch came back with.
func (d *Division) Join(read [][]Got) (*Plan, error) {
	e, err := d.collect(read)
	if err != nil {
		return nil, err
	}
	e.decide(d.txn)
	if err := e.admit(d.txn, &walk{path: e.path}); err != nil {
		return nil, err
	}
	p := &Plan{eval: e, Writes: make([][]Write, len(d.Parts))}
	r := e.run(math.MaxInt64)
	for _, w := range r.writes {
		i := d.partOf(w.Key)
		p.Writes[i] = append(p.Writes[i], w)
	}
	p.eval.writes = len(r.writes)
	return p, nil
}

// Answer encodes the client's answer to a transaction that was committed at the
// header's revision. What was read before the first write is answered at the
// revision below, where the state is what the transaction saw.
func (p *Plan) Answer(h codec.Header) []byte {
	r := p.eval.run(h.Revision)
	if !p.eval.plain {
		return append(codec.AppendTxnResponse(nil, h, p.eval.path[0]), r.out...)
	}
	dst := codec.AppendDeleteRangeResponse(nil, h, int64(len(r.deleted)))
	return r.appendPrev(dst, &p.eval.txn.Success[0].DeleteRange)
}

// evaluation is a transaction and the states it is evaluated on.
type evaluation struct {
	txn    *codec.TxnRequest
	plain  bool
	before table           // what is locked, as it was read
	at     map[int64]table // what was read of the past
	failed []failure
	path   []bool
	writes int
}

type failure struct {
	read Read
	err  error
}

// collect puts together what the participants read.
func (d *Division) collect(read [][]Got) (evaluation, error) {
	e := evaluation{txn: d.txn, plain: d.plain, at: map[int64]table{}}
	size := 0
	for i := range d.Parts {
		for k, r := range d.Parts[i].Reads {
			got := read[i][k]
			if got.Err != nil {
				e.failed = append(e.failed, failure{r, got.Err})
			}
			for j := range got.KVs {
				size += len(got.KVs[j].Key) + len(got.KVs[j].Value)
			}
			if r.Revision > 0 {
				e.at[r.Revision] = append(e.at[r.Revision], got.KVs...)
			} else {
				e.before = append(e.before, got.KVs...)
			}
		}
	}
	if size > ReadBytesMax {
		return e, ErrTooLarge
	}
	e.before = gather(e.before)
	for rev, t := range e.at { // each by itself: the order is of no consequence
		e.at[rev] = gather(t)
	}
	return e, nil
}

// walk follows the decided branches: one bit for each transaction, the outermost
// first, then nested ones where they stand.
type walk struct {
	path []bool
	next int
}

func (w *walk) branch(r *codec.TxnRequest) (ops []codec.RequestOp, succeeded bool) {
	succeeded = w.path[w.next]
	w.next++
	return branch(r, succeeded), succeeded
}

func branch(r *codec.TxnRequest, succeeded bool) []codec.RequestOp {
	if succeeded {
		return r.Success
	}
	return r.Failure
}

// decide picks the branches. All compares, those of nested transactions included,
// see the state before the transaction.
func (e *evaluation) decide(r *codec.TxnRequest) {
	succeeded := !slices.ContainsFunc(r.Compare, func(c codec.Compare) bool { return !e.holds(&c) })
	e.path = append(e.path, succeeded)
	for _, op := range branch(r, succeeded) {
		if op.Kind == codec.KindTxn {
			e.decide(op.Txn)
		}
	}
}

// holds evaluates a compare on every key of its range, or once on nothing.
func (e *evaluation) holds(c *codec.Compare) bool {
	found := e.before.in(c.Key, c.RangeEnd)
	if len(found) == 0 {
		return c.Target != codec.CompareValue && holdsOn(c, &codec.KeyValue{})
	}
	for i := range found {
		if !holdsOn(c, &found[i]) {
			return false
		}
	}
	return true
}

// holdsOn compares one key: see package keyspace, whose twin this is.
func holdsOn(c *codec.Compare, kv *codec.KeyValue) bool {
	result := 0
	number := func(have int64, union uint8) {
		want := int64(0)
		if c.Union == union {
			want = c.Int
		}
		result = cmp.Compare(have, want)
	}
	switch c.Target {
	case codec.CompareValue:
		result = bytes.Compare(kv.Value, c.Value)
	case codec.CompareCreate:
		number(kv.Create, codec.UnionCreate)
	case codec.CompareMod:
		number(kv.Mod, codec.UnionMod)
	case codec.CompareVersion:
		number(kv.Version, codec.UnionVersion)
	case codec.CompareLease:
		number(kv.Lease, codec.UnionLease)
	}
	switch c.Result {
	case codec.CompareEqual:
		return result == 0
	case codec.CompareNotEqual:
		return result != 0
	case codec.CompareGreater:
		return result > 0
	case codec.CompareLess:
		return result < 0
	}
	return true
}

// admit makes every check of the picked branches that needs no participant; leases
// and quota are checked where a prepare is applied.
func (e *evaluation) admit(r *codec.TxnRequest, w *walk) error {
	ops, _ := w.branch(r)
	for i := range ops {
		var err error
		switch op := &ops[i]; op.Kind {
		case codec.KindRange:
			err = e.readable(&op.Range)
		case codec.KindPut:
			_, ok := e.before.get(op.Put.Key)
			if !ok && (op.Put.IgnoreValue || op.Put.IgnoreLease) {
				err = ErrKeyNotFound
			}
		case codec.KindTxn:
			err = e.admit(op.Txn, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (e *evaluation) readable(q *codec.RangeRequest) error {
	r := rangeOf(q.Key, q.RangeEnd)
	for _, f := range e.failed {
		if f.read.Revision == q.Revision && f.read.Range.Overlaps(r) {
			return f.err
		}
	}
	return nil
}
