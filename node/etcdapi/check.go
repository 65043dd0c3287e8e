package etcdapi

import (
	"bytes"
	"errors"
	"math"
	"math/rand/v2"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// checker refuses bad requests as etcd's v3rpc does, in its order and words,
// and fills in what routing needs to know.
type checker struct {
	maxRequestBytes int
	maxTxnOps       int
	minLeaseTTL     int64 // seconds; shorter grants get this, as in etcd
}

// check dispatches on the method. The error is a gRPC status.
func (k checker) check(c *Call) error {
	if err := k.fill(c); err != nil {
		return err
	}
	if c.Write && k.tooLarge(len(c.Raw())) {
		return rpctypes.ErrGRPCRequestTooLarge
	}
	return nil
}

func (k checker) fill(c *Call) error {
	switch c.Method {
	case MethodRange:
		return k.fillRange(c)
	case MethodPut:
		return k.fillPut(c)
	case MethodDeleteRange:
		return k.fillDeleteRange(c)
	case MethodTxn:
		return k.fillTxn(c)
	case MethodLeaseGrant:
		return k.fillGrant(c)
	}
	c.Write = c.Method != MethodLeaseTimeToLive && c.Method != MethodLeaseLeases
	return wellFormed(c)
}

// malformed is gRPC's answer to bytes that are no message.
func malformed(err error) error {
	return status.Errorf(codes.Internal, "grpc: error unmarshalling request: %v", err)
}

// wellFormed refuses bytes that protobuf could not read, so that no log entry
// ever holds any.
func wellFormed(c *Call) (err error) {
	switch c.Method {
	case MethodCompact:
		err = codec.ParseCompaction(c.Raw(), new(codec.CompactionRequest))
	case MethodAlarm:
		err = codec.ParseAlarm(c.Raw(), new(codec.AlarmRequest))
	case MethodLeaseTimeToLive:
		err = codec.ParseLeaseTimeToLive(c.Raw(), new(codec.LeaseTimeToLiveRequest))
	default: // MethodLeaseRevoke, and MethodLeaseLeases, whose request has no field
		_, err = codec.ParseLeaseID(c.Raw())
	}
	if err != nil {
		return malformed(err)
	}
	return nil
}

func (k checker) fillRange(c *Call) error {
	if err := codec.ParseRange(c.Raw(), &c.Range); err != nil {
		return malformed(err)
	}
	if err := checkRange(&c.Range); err != nil {
		return err
	}
	c.Serializable = c.Range.Serializable
	c.Keys = keyRange(c.Range.Key, c.Range.RangeEnd)
	return nil
}

func (k checker) fillPut(c *Call) error {
	var r codec.PutRequest
	if err := codec.ParsePut(c.Raw(), &r); err != nil {
		return malformed(err)
	}
	if err := checkPut(&r); err != nil {
		return err
	}
	c.Write = true
	c.Keys = keyRange(r.Key, nil)
	return nil
}

func (k checker) fillDeleteRange(c *Call) error {
	var r codec.DeleteRangeRequest
	if err := codec.ParseDeleteRange(c.Raw(), &r); err != nil {
		return malformed(err)
	}
	if err := checkDeleteRange(&r); err != nil {
		return err
	}
	c.Write = true
	c.Keys = keyRange(r.Key, r.RangeEnd)
	return nil
}

// txns keeps decoded transactions between requests: their operations are large
// and most transactions have few.
var txns = sync.Pool{New: func() any { return new(codec.TxnRequest) }}

// txnPoolOpsMax bounds what one pooled transaction may hold on to.
const txnPoolOpsMax = 32

func putTxn(r *codec.TxnRequest) {
	if cap(r.Compare) <= txnPoolOpsMax && cap(r.Success) <= txnPoolOpsMax && cap(r.Failure) <= txnPoolOpsMax {
		txns.Put(r)
	}
}

func (k checker) fillTxn(c *Call) error {
	r := txns.Get().(*codec.TxnRequest)
	defer putTxn(r)
	switch err := codec.ParseTxn(c.Raw(), r); {
	case errors.Is(err, codec.ErrTooDeep):
		return rpctypes.ErrGRPCTooManyOps // every level costs an operation
	case err != nil:
		return malformed(err)
	}
	if err := checkTxn(r, k.maxTxnOps); err != nil {
		return err
	}
	// Overlaps come after the limits on operations: the search for them is the
	// costly part.
	if err := checkOverlaps(r); err != nil {
		return err
	}
	c.Write = !r.ReadOnly()
	c.Serializable = !c.Write && r.Serializable()
	c.Keys = txnKeys(r)
	return nil
}

// maxLeaseTTL is etcd's largest TTL, in seconds.
const maxLeaseTTL = 9_000_000_000

func (k checker) fillGrant(c *Call) error {
	var r codec.LeaseGrantRequest
	if err := codec.ParseLeaseGrant(c.Raw(), &r); err != nil {
		return malformed(err)
	}
	if r.TTL > maxLeaseTTL {
		return rpctypes.ErrGRPCLeaseTTLTooLarge
	}
	c.Write = true
	// The log must name ID and TTL, so both are settled before. A field that
	// stands last wins in protobuf: appending it keeps the client's bytes.
	var settled codec.LeaseGrantRequest
	if r.ID == 0 {
		settled.ID = 1 + rand.Int64N(math.MaxInt64) // positive, as etcd's
	}
	if r.TTL < k.minLeaseTTL {
		settled.TTL = k.minLeaseTTL
	}
	c.buf = codec.AppendLeaseGrant(c.buf, settled)
	return nil
}

func checkRange(r *codec.RangeRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.SortOrder < codec.SortNone || r.SortOrder > codec.SortDescend,
		r.SortTarget < codec.SortByKey || r.SortTarget > codec.SortByValue:
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

// checkRangeStream refuses what cannot be answered piece by piece in key order.
func checkRangeStream(r *codec.RangeRequest) error {
	inOrder := r.SortOrder == codec.SortNone || r.SortOrder == codec.SortAscend && r.SortTarget == codec.SortByKey
	switch {
	case !inOrder:
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	case r.MinModRevision != 0 || r.MaxModRevision != 0 || r.MinCreateRevision != 0 || r.MaxCreateRevision != 0:
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

func checkPut(r *codec.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDeleteRange(r *codec.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

func checkTxn(r *codec.TxnRequest, maxOps int) error {
	ops := max(len(r.Compare), len(r.Success), len(r.Failure))
	if ops > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for i := range r.Compare {
		if len(r.Compare[i].Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, branch := range [...][]codec.RequestOp{r.Success, r.Failure} {
		for i := range branch {
			if err := checkOp(&branch[i], maxOps-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *codec.RequestOp, maxOps int) error {
	switch op.Kind {
	case codec.KindRange:
		return checkRange(&op.Range)
	case codec.KindPut:
		return checkPut(&op.Put)
	case codec.KindDeleteRange:
		return checkDeleteRange(&op.DeleteRange)
	case codec.KindTxn:
		return checkTxn(op.Txn, maxOps)
	default:
		return rpctypes.ErrGRPCKeyNotFound // etcd's answer to an empty operation
	}
}

// envelopeBytes is what etcd's log adds to a request besides the request's own
// length prefix: one byte of tag, and a header with a random 64-bit ID.
const envelopeBytes = 1 + 3 + 11

// tooLarge applies etcd's rule, which measures the log entry: the request in
// its envelope. (etcd's ID takes nine or ten bytes, so its own limit moves by
// one; this is the stricter.)
func (k checker) tooLarge(request int) bool {
	return envelopeBytes+protowire.SizeBytes(request) > k.maxRequestBytes
}

// keyRange is the range that decides who answers. One that holds no key, as
// [b, a), stands for its first key: somebody has to answer it.
func keyRange(key, end []byte) anchormesh.KeyRange {
	r := anchormesh.RequestRange(key, end)
	if r.Empty() {
		return anchormesh.RequestRange(key, nil)
	}
	return r
}

// txnKeys returns the smallest range that covers every key the transaction
// names, in compares and in both branches; the lowest key if it names none.
func txnKeys(r *codec.TxnRequest) anchormesh.KeyRange {
	h := hull{empty: true}
	h.txn(r)
	if h.empty {
		return anchormesh.RequestRange(nil, nil)
	}
	return h.keys
}

type hull struct {
	keys  anchormesh.KeyRange
	empty bool
}

func (h *hull) txn(r *codec.TxnRequest) {
	for i := range r.Compare {
		h.add(r.Compare[i].Key, r.Compare[i].RangeEnd)
	}
	for _, branch := range [...][]codec.RequestOp{r.Success, r.Failure} {
		for i := range branch {
			switch op := &branch[i]; op.Kind {
			case codec.KindRange:
				h.add(op.Range.Key, op.Range.RangeEnd)
			case codec.KindPut:
				h.add(op.Put.Key, nil)
			case codec.KindDeleteRange:
				h.add(op.DeleteRange.Key, op.DeleteRange.RangeEnd)
			case codec.KindTxn:
				h.txn(op.Txn)
			}
		}
	}
}

// add widens the hull. A key named twice, as most transactions do, costs no
// new range.
func (h *hull) add(key, end []byte) {
	if !h.empty && len(end) == 0 && h.keys.Contains(key) {
		return
	}
	r := keyRange(key, end)
	if h.empty {
		h.keys, h.empty = r, false
		return
	}
	if bytes.Compare(r.Start, h.keys.Start) < 0 {
		h.keys.Start = r.Start
	}
	if len(h.keys.End) != 0 && (len(r.End) == 0 || bytes.Compare(r.End, h.keys.End) > 0) {
		h.keys.End = r.End
	}
}
