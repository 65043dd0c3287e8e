package keyspace

import (
	"fmt"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// LeaseTTLMax is the longest TTL of a lease in seconds, as in etcd.
const LeaseTTLMax = 9_000_000_000

// Limits bounds what a segment takes in.
type Limits struct {
	// QuotaBytes is the file size above which writes that add data are refused;
	// negative is no limit. etcd's --quota-backend-bytes.
	QuotaBytes int64
}

// DefaultLimits returns etcd's defaults.
func DefaultLimits() Limits { return Limits{QuotaBytes: 2 << 30} }

// Validate says which field is out of range.
func (l Limits) Validate() error {
	if l.QuotaBytes == 0 {
		return fmt.Errorf("keyspace: QuotaBytes is 0, want a size or a negative number for none")
	}
	return nil
}

// Estimates of what a write costs besides its key and value, as in etcd.
const (
	keyOverheadBytes   = 256
	leaseOverheadBytes = 64
)

// OverQuota reports whether a command of the given cost must be refused while the
// node's file has sizeBytes. A command that adds nothing never is.
func (l Limits) OverQuota(sizeBytes, cost int64) bool {
	return l.QuotaBytes >= 0 && cost > 0 && sizeBytes+cost >= l.QuotaBytes
}

// Cost estimates the bytes a command adds: puts, the dearer branch of a
// transaction, grants. Anything else, malformed requests included, costs nothing.
func Cost(cmd []byte) int64 {
	if len(cmd) == 0 {
		return 0
	}
	switch Op(cmd[0]) {
	case OpPut:
		var r codec.PutRequest
		if codec.ParsePut(cmd[1:], &r) != nil {
			return 0
		}
		return CostPut(&r)
	case OpTxn:
		var r codec.TxnRequest
		if codec.ParseTxn(cmd[1:], &r) != nil {
			return 0
		}
		return CostTxn(&r)
	case OpLeaseGrant:
		return leaseOverheadBytes
	case OpPrepare:
		return costPrepare(cmd[1:])
	case OpStamped:
		_, inner, _ := CutStamp(cmd)
		return Cost(inner)
	}
	return 0
}

func costPrepare(raw []byte) (sum int64) {
	c, err := commit.DecodePrepare(raw)
	if err != nil {
		return 0
	}
	for i := range c.Writes {
		if w := &c.Writes[i]; !w.Delete {
			sum += keyOverheadBytes + int64(len(w.Key)) + int64(len(w.Value))
		}
	}
	return sum
}

// CostPut estimates the bytes a put adds.
func CostPut(r *codec.PutRequest) int64 {
	return keyOverheadBytes + int64(len(r.Key)) + int64(len(r.Value))
}

// CostTxn estimates the bytes a transaction adds: those of its dearer branch.
func CostTxn(r *codec.TxnRequest) int64 {
	return max(costOps(r.Success), costOps(r.Failure))
}

func costOps(ops []codec.RequestOp) int64 {
	sum := int64(0)
	for i := range ops {
		switch ops[i].Kind {
		case codec.KindPut:
			sum += CostPut(&ops[i].Put)
		case codec.KindTxn:
			sum += CostTxn(ops[i].Txn)
		}
	}
	return sum
}
