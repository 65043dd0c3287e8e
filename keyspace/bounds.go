package keyspace

import (
	"bytes"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// outside reports whether etcd's (key, range_end) leaves the segment's range. The
// sender has checked that too; here it protects the state against a defect there.
func (s *Space) outside(key, end []byte) bool {
	rng := s.seg.KeyRange()
	if len(rng.Start) == 0 && len(rng.End) == 0 {
		return false
	}
	switch {
	case len(end) == 0:
		return !rng.Contains(key)
	case bytes.Compare(key, rng.Start) < 0:
		return true
	case len(rng.End) == 0:
		return false
	}
	return len(end) == 1 && end[0] == 0 || bytes.Compare(end, rng.End) > 0
}

// txnOutside looks at every key a transaction names, on both branches, because
// which one is taken is known only behind the compares.
func (s *Space) txnOutside(r *codec.TxnRequest) bool {
	for i := range r.Compare {
		if s.outside(r.Compare[i].Key, r.Compare[i].RangeEnd) {
			return true
		}
	}
	return s.opsOutside(r.Success) || s.opsOutside(r.Failure)
}

func (s *Space) opsOutside(ops []codec.RequestOp) bool {
	for i := range ops {
		op, out := &ops[i], false
		switch op.Kind {
		case codec.KindRange:
			out = s.outside(op.Range.Key, op.Range.RangeEnd)
		case codec.KindPut:
			out = s.outside(op.Put.Key, nil)
		case codec.KindDeleteRange:
			out = s.outside(op.DeleteRange.Key, op.DeleteRange.RangeEnd)
		case codec.KindTxn:
			out = s.txnOutside(op.Txn)
		}
		if out {
			return true
		}
	}
	return false
}
