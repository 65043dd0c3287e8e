package keyspace

import (
	"bytes"
	"cmp"
	"context"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// A transaction is evaluated in three walks, as in etcd: all compares, those of
// nested transactions included, see the state before it and pick the branches
// (decide); every operation on the picked branches is checked against that state
// (admit); then the operations run in order, each seeing the ones before it.

func (a *applier) txn(raw []byte) Outcome {
	r := &a.scratch.txn
	if err := codec.ParseTxn(raw, r); err != nil {
		return Outcome{Err: err}
	}
	if a.s.alarms.noSpace() && CostTxn(r) > 0 {
		return Outcome{Err: ErrNoSpace}
	}
	if txnOutside(a.s.seg.KeyRange(), r) {
		return Outcome{Err: ErrWrongSegment}
	}
	t := a.open()
	path := decide(a.scratch.path[:0], t, r)
	a.scratch.path = path
	err := a.admit(t, r, &walk{path: path})
	if err == nil && a.s.govern.governs() {
		err = a.judgeTxn(t, r, path)
	}
	if err != nil {
		t.End()
		return Outcome{Err: err}
	}
	ops := a.run(a.scratch.ops[:0], t, r, &walk{path: path})
	a.scratch.ops = keepSmall(ops)
	a.end(t)
	start := a.begin()
	if a.want {
		a.buf = codec.AppendTxnResponse(a.buf, a.header(a.shown()), path[0])
		a.buf = append(a.buf, ops...)
	}
	return a.answer(start)
}

// scratchMax is the largest buffer kept from one transaction to the next.
const scratchMax = 1 << 20

func keepSmall(b []byte) []byte {
	if cap(b) > scratchMax {
		return nil
	}
	return b
}

// walk follows the decided branches: one bit for each transaction, the outermost
// first, then nested ones where they stand.
type walk struct {
	path []bool
	next int
}

// branch returns whether the transaction now entered succeeded, and its
// operations.
func (w *walk) branch(r *codec.TxnRequest) (succeeded bool, ops []codec.RequestOp) {
	succeeded = w.path[w.next]
	w.next++
	return succeeded, branch(r, succeeded)
}

func branch(r *codec.TxnRequest, succeeded bool) []codec.RequestOp {
	if succeeded {
		return r.Success
	}
	return r.Failure
}

// decide appends the outcome of r's compares and those of the transactions nested
// in the branch it takes.
func decide(path []bool, on reader, r *codec.TxnRequest) []bool {
	succeeded := true
	for i := range r.Compare {
		if !holds(on, &r.Compare[i]) {
			succeeded = false
			break
		}
	}
	path = append(path, succeeded)
	ops := branch(r, succeeded)
	for i := range ops {
		if ops[i].Kind == codec.KindTxn {
			path = decide(path, on, ops[i].Txn)
		}
	}
	return path
}

// holds evaluates a compare: on every key of its range, or once on a key that
// does not exist, whose numbers are zero and whose value compares with nothing.
func holds(on reader, c *codec.Compare) bool {
	if len(c.RangeEnd) > 0 {
		return holdsOnRange(on, c)
	}
	var kv mvcc.KV
	ok := false
	switch c.Target {
	case codec.CompareValue, codec.CompareLease:
		kv, ok = on.Get(c.Key)
	default:
		kv.Create, kv.Mod, kv.Version, ok = on.Stat(c.Key)
	}
	if !ok {
		return holdsOnNothing(c)
	}
	return holdsOn(c, &kv)
}

func holdsOnRange(on reader, c *codec.Compare) bool {
	res, err := on.Range(c.Key, c.RangeEnd, 0, 0, false)
	if err != nil {
		panic("keyspace: reading the newest revision: " + err.Error())
	}
	if len(res.KVs) == 0 {
		return holdsOnNothing(c)
	}
	for i := range res.KVs {
		if !holdsOn(c, &res.KVs[i]) {
			return false
		}
	}
	return true
}

func holdsOnNothing(c *codec.Compare) bool {
	return c.Target != codec.CompareValue && holdsOn(c, &mvcc.KV{})
}

// holdsOn compares one key. An operand of another type than the target's counts
// as zero, an unknown target as equal, an unknown result as true: so does etcd.
func holdsOn(c *codec.Compare, kv *mvcc.KV) bool {
	result := 0
	operand := func(union uint8) int64 {
		if c.Union == union {
			return c.Int
		}
		return 0
	}
	switch c.Target {
	case codec.CompareValue:
		result = bytes.Compare(kv.Value(), c.Value)
	case codec.CompareCreate:
		result = cmp.Compare(kv.Create, operand(codec.UnionCreate))
	case codec.CompareMod:
		result = cmp.Compare(kv.Mod, operand(codec.UnionMod))
	case codec.CompareVersion:
		result = cmp.Compare(kv.Version, operand(codec.UnionVersion))
	case codec.CompareLease:
		result = cmp.Compare(kv.Lease, operand(codec.UnionLease))
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

// admit makes every check of the picked branches before anything is written.
func (a *applier) admit(t *mvcc.Txn, r *codec.TxnRequest, w *walk) error {
	_, ops := w.branch(r)
	for i := range ops {
		var err error
		switch op := &ops[i]; op.Kind {
		case codec.KindRange:
			err = checkRevision(op.Range.Revision, a.before(), a.compacted)
		case codec.KindPut:
			if !a.s.leases.has(op.Put.Lease, op.Put.Key) {
				return ErrLeaseNotFound
			}
			if op.Put.IgnoreValue || op.Put.IgnoreLease {
				_, err = previous(t, &op.Put)
			}
		case codec.KindTxn:
			err = a.admit(t, op.Txn, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkRevision is what a transaction asks of the revision of a range in it. Unlike
// a range on its own it does not read a negative one as the newest.
func checkRevision(rev, current, compacted int64) error {
	switch {
	case rev == 0:
		return nil
	case rev > current:
		return ErrFutureRev
	case rev < compacted:
		return ErrCompacted
	}
	return nil
}

// run executes the picked branch and, if wanted, appends its encoded responses.
func (a *applier) run(dst []byte, t *mvcc.Txn, r *codec.TxnRequest, w *walk) []byte {
	_, ops := w.branch(r)
	for i := range ops {
		op := &ops[i]
		var m codec.OpMark
		if a.want {
			dst, m = codec.BeginResponseOp(dst, op.Kind)
		}
		switch op.Kind {
		case codec.KindRange:
			if a.want {
				dst = a.rangeOp(dst, t, &op.Range)
			}
		case codec.KindPut:
			dst = a.putOp(dst, t, &op.Put)
		case codec.KindDeleteRange:
			dst = a.remove(dst, t, &op.DeleteRange, false)
		case codec.KindTxn:
			if a.want {
				dst = codec.AppendTxnResponse(dst, codec.Header{}, w.path[w.next])
			}
			dst = a.run(dst, t, op.Txn, w)
		}
		if a.want {
			dst = codec.EndResponseOp(dst, m)
		}
	}
	return dst
}

func (a *applier) rangeOp(dst []byte, t *mvcc.Txn, q *codec.RangeRequest) []byte {
	s, err := pick(t, q)
	if err != nil {
		panic("keyspace: a range that was admitted to a transaction failed: " + err.Error())
	}
	return appendSelection(dst, a.writeHeader(t, t.Changed(), false), q, s)
}

// putOp puts a key inside a transaction. What ignore_value and ignore_lease refer
// to was there when the transaction was admitted; if an operation before this one
// has deleted it since, it is what the key had then.
func (a *applier) putOp(dst []byte, t *mvcc.Txn, r *codec.PutRequest) []byte {
	var prev, kept mvcc.KV
	if r.PrevKV && a.want || r.IgnoreValue || r.IgnoreLease {
		prev, _ = t.Get(r.Key)
		kept = prev
	}
	if kept.Raw == nil && (r.IgnoreValue || r.IgnoreLease) {
		before, err := t.Range(r.Key, nil, a.rev, 0, false)
		if err != nil || len(before.KVs) == 0 {
			panic("keyspace: a key that was admitted to a transaction is gone")
		}
		kept = before.KVs[0]
	}
	if a.want {
		dst = appendPut(dst, codec.Header{Revision: t.Rev()}, r, prev)
	}
	a.store(t, r, kept)
	return dst
}

// ReadTxn answers a transaction that only reads (codec.TxnRequest.ReadOnly) from
// the newest state of this replica, without the log. The errors are ErrCompacted,
// ErrFutureRev, ErrWrongSegment and the context's.
func (s *Space) ReadTxn(ctx context.Context, r *codec.TxnRequest, term uint64) (codec.Chunks, error) {
	return s.readTxn(ctx, s.seg.Read(), r, term)
}

// ReadTxnAt is ReadTxn at the revision at, as RangeAt reads.
func (s *Space) ReadTxnAt(ctx context.Context, r *codec.TxnRequest, term uint64, at int64) (codec.Chunks, error) {
	return s.readTxn(ctx, s.seg.ReadAt(at), r, term)
}

// readTxn closes the view.
func (s *Space) readTxn(ctx context.Context, v *mvcc.View, r *codec.TxnRequest, term uint64) (codec.Chunks, error) {
	defer v.Close()
	switch {
	case txnOutside(v.KeyRange(), r):
		return nil, ErrWrongSegment
	case v.Rev() < v.Compacted():
		return nil, ErrOvertaken
	}
	on := snapshot{v}
	if _, err := v.Range(nil, nil, 0, 0, true); err != nil {
		return nil, err // the segment is gone
	}
	path := decide(make([]bool, 0, 1), on, r)
	ops := branch(r, path[0])
	for i := range ops {
		if err := checkRevision(ops[i].Range.Revision, v.Rev(), v.Compacted()); err != nil {
			return nil, err
		}
	}
	dst := codec.AppendTxnResponse(nil, s.header(v.Rev(), term), path[0])
	for i := range ops {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sel, err := pick(on, &ops[i].Range)
		if err != nil {
			return nil, err
		}
		var m codec.OpMark
		dst, m = codec.BeginResponseOp(dst, codec.KindRange)
		dst = appendSelection(dst, codec.Header{Revision: v.Rev()}, &ops[i].Range, sel)
		dst = codec.EndResponseOp(dst, m)
	}
	return codec.Chunks{dst}, nil
}
