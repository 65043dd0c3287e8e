package etcdapi

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// Method names a request that travels as bytes.
type Method uint8

// The methods that reach Requests.Do.
const (
	MethodRange Method = iota + 1
	MethodPut
	MethodDeleteRange
	MethodTxn
	MethodCompact
	MethodLeaseGrant
	MethodLeaseRevoke
	MethodLeaseTimeToLive
	MethodLeaseLeases
	MethodAlarm
)

var methodNames = [...]string{
	MethodRange:           "Range",
	MethodPut:             "Put",
	MethodDeleteRange:     "DeleteRange",
	MethodTxn:             "Txn",
	MethodCompact:         "Compact",
	MethodLeaseGrant:      "LeaseGrant",
	MethodLeaseRevoke:     "LeaseRevoke",
	MethodLeaseTimeToLive: "LeaseTimeToLive",
	MethodLeaseLeases:     "LeaseLeases",
	MethodAlarm:           "Alarm",
}

// String is the RPC's name in etcd's API.
func (m Method) String() string {
	if int(m) < len(methodNames) && methodNames[m] != "" {
		return methodNames[m]
	}
	return "Unknown"
}

// ofLeases reports whether the method concerns leases and no keys.
func (m Method) ofLeases() bool {
	return m >= MethodLeaseGrant && m <= MethodLeaseLeases
}

// Call is one checked request. Its bytes are its own: they may be kept, and
// must not be modified.
type Call struct {
	Method Method
	// Keys covers every key the request names; everything for Compact and
	// Alarm; the zero range, without meaning, for leases.
	Keys anchormesh.KeyRange
	// Write is set when the request must go through the log. A transaction
	// without writes is a read.
	Write bool
	// Serializable reads may be answered by any replica.
	Serializable bool
	// At is the revision of the scope's line that a read is to be answered at,
	// because another node reads other keys at it; 0: the newest.
	At anchormesh.Revision
	// From is who gave a write, as far as the node that took it in knows.
	From keyspace.Origin
	// Range is the decoded request when Method is MethodRange. It refers to
	// the same bytes.
	Range codec.RangeRequest

	buf []byte // one spare byte, then the request
}

// NewCall makes an unchecked call with a copy of raw.
func NewCall(method Method, raw []byte) *Call {
	c := &Call{Method: method, buf: make([]byte, 1+len(raw))}
	copy(c.buf[1:], raw)
	return c
}

// Raw returns the request as the client encoded it.
func (c *Call) Raw() []byte { return c.buf[1:] }

// Command returns op followed by the request, without copying. It writes op in
// front of the request, so all calls must name the same op.
func (c *Call) Command(op byte) []byte {
	c.buf[0] = op
	return c.buf
}
