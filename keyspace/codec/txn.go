package codec

// TxnDepthMax is the deepest nesting of transactions accepted, the outermost
// counted as one. It stands well above what etcd's default of 128 operations
// admits (each level costs at least one) and keeps the recursion of every walk
// over a transaction on a small stack.
const TxnDepthMax = 256

// CompareResult is etcdserverpb.Compare_CompareResult.
type CompareResult int32

// Results a compare can ask for. An unknown one always holds, as in etcd.
const (
	CompareEqual CompareResult = iota
	CompareGreater
	CompareLess
	CompareNotEqual
)

// CompareTarget is etcdserverpb.Compare_CompareTarget.
type CompareTarget int32

// Targets of a compare.
const (
	CompareVersion CompareTarget = iota
	CompareCreate
	CompareMod
	CompareValue
	CompareLease
)

// Compare is etcdserverpb.Compare. Union says which member of target_union was
// given (its field number, 0 is none): a member that does not fit Target counts
// as zero, as in etcd.
type Compare struct {
	Result        CompareResult
	Target        CompareTarget
	Key, RangeEnd []byte
	Union         uint8
	Int           int64
	Value         []byte
}

// Field numbers of the members of Compare's target_union.
const (
	UnionVersion uint8 = 4
	UnionCreate  uint8 = 5
	UnionMod     uint8 = 6
	UnionValue   uint8 = 7
	UnionLease   uint8 = 8
)

// OpKind says which member of a RequestOp is set; the values are the field
// numbers, 0 is none.
type OpKind uint8

// Kinds of operations in a transaction.
const (
	KindNone OpKind = iota
	KindRange
	KindPut
	KindDeleteRange
	KindTxn
)

// RequestOp is etcdserverpb.RequestOp; only the member named by Kind counts.
type RequestOp struct {
	Kind        OpKind
	Range       RangeRequest
	Put         PutRequest
	DeleteRange DeleteRangeRequest
	Txn         *TxnRequest
}

// TxnRequest is etcdserverpb.TxnRequest.
type TxnRequest struct {
	Compare []Compare
	Success []RequestOp
	Failure []RequestOp
}

// ParseTxn reads a TxnRequest with everything nested in it; the error is
// ErrMalformed or ErrTooDeep.
func ParseTxn(b []byte, r *TxnRequest) error {
	r.Compare, r.Success, r.Failure = r.Compare[:0], r.Success[:0], r.Failure[:0]
	return mergeTxn(b, r, 1)
}

func mergeTxn(b []byte, r *TxnRequest, depth int) error {
	if depth > TxnDepthMax {
		return ErrTooDeep
	}
	f := fields{rest: b}
	for f.next() {
		var err error
		switch f.tag {
		case 1<<3 | length:
			r.Compare = append(r.Compare, Compare{})
			err = mergeCompare(f.val, &r.Compare[len(r.Compare)-1])
		case 2<<3 | length:
			r.Success, err = appendOp(r.Success, f.val, depth)
		case 3<<3 | length:
			r.Failure, err = appendOp(r.Failure, f.val, depth)
		}
		if err != nil {
			return err
		}
	}
	return f.end()
}

func mergeCompare(b []byte, c *Compare) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			c.Result = CompareResult(int32(f.v))
		case 2<<3 | varint:
			c.Target = CompareTarget(int32(f.v))
		case 3<<3 | length:
			c.Key = f.val
		case 4<<3 | varint, 5<<3 | varint, 6<<3 | varint, 8<<3 | varint:
			c.Union, c.Int, c.Value = uint8(f.tag>>3), int64(f.v), nil
		case 7<<3 | length:
			c.Union, c.Int, c.Value = UnionValue, 0, f.val
		case 64<<3 | length:
			c.RangeEnd = f.val
		}
	}
	return f.end()
}

// appendOp reads one operation onto the end of ops, reusing the slot that an
// earlier request left there.
func appendOp(ops []RequestOp, b []byte, depth int) ([]RequestOp, error) {
	if len(ops) < cap(ops) {
		ops = ops[:len(ops)+1]
		op := &ops[len(ops)-1]
		op.Kind, op.Txn = KindNone, nil
	} else {
		ops = append(ops, RequestOp{})
	}
	return ops, mergeOp(b, &ops[len(ops)-1], depth)
}

func mergeOp(b []byte, op *RequestOp, depth int) error {
	f := fields{rest: b}
	for f.next() {
		kind := OpKind(0)
		if f.tag>>3 <= uint64(KindTxn) && f.tag&7 == length {
			kind = OpKind(f.tag >> 3)
		}
		if kind == KindNone {
			continue
		}
		if op.Kind != kind {
			op.become(kind)
		}
		if err := op.merge(f.val, depth); err != nil {
			return err
		}
	}
	return f.end()
}

// become makes kind the set member, empty.
func (op *RequestOp) become(kind OpKind) {
	op.Kind, op.Txn = kind, nil
	switch kind {
	case KindRange:
		op.Range = RangeRequest{}
	case KindPut:
		op.Put = PutRequest{}
	case KindDeleteRange:
		op.DeleteRange = DeleteRangeRequest{}
	case KindTxn:
		op.Txn = &TxnRequest{}
	}
}

// merge reads b onto the set member.
func (op *RequestOp) merge(b []byte, depth int) error {
	switch op.Kind {
	case KindRange:
		return mergeRange(b, &op.Range)
	case KindPut:
		return mergePut(b, &op.Put)
	case KindDeleteRange:
		return mergeDeleteRange(b, &op.DeleteRange)
	default:
		return mergeTxn(b, op.Txn, depth+1)
	}
}

// ReadOnly reports whether etcd serves the transaction as a read: both branches
// hold nothing but ranges. A nested transaction makes it a write, even if it
// only reads.
func (r *TxnRequest) ReadOnly() bool {
	return onlyRanges(r.Success, false) && onlyRanges(r.Failure, false)
}

// Serializable reports whether every operation is a serializable range.
func (r *TxnRequest) Serializable() bool {
	return onlyRanges(r.Success, true) && onlyRanges(r.Failure, true)
}

func onlyRanges(ops []RequestOp, serializable bool) bool {
	for i := range ops {
		if ops[i].Kind != KindRange || serializable && !ops[i].Range.Serializable {
			return false
		}
	}
	return true
}
