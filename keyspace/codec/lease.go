package codec

import "google.golang.org/protobuf/encoding/protowire"

// LeaseGrantRequest is etcdserverpb.LeaseGrantRequest.
type LeaseGrantRequest struct {
	TTL int64 // seconds
	ID  int64 // 0: choose one
}

// ParseLeaseGrant reads a LeaseGrantRequest; the error is ErrMalformed.
func ParseLeaseGrant(b []byte, r *LeaseGrantRequest) error {
	*r = LeaseGrantRequest{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			r.TTL = int64(f.v)
		case 2<<3 | varint:
			r.ID = int64(f.v)
		}
	}
	return f.end()
}

// AppendLeaseGrant encodes r, as a node does once it has chosen the ID.
func AppendLeaseGrant(dst []byte, r LeaseGrantRequest) []byte {
	dst = appendInt(dst, 1, r.TTL)
	return appendInt(dst, 2, r.ID)
}

// ParseLeaseID reads the messages whose first field is the lease's ID and the
// only one that matters: LeaseRevokeRequest, LeaseKeepAliveRequest. The error is
// ErrMalformed.
func ParseLeaseID(b []byte) (id int64, err error) {
	f := fields{rest: b}
	for f.next() {
		if f.tag == 1<<3|varint {
			id = int64(f.v)
		}
	}
	return id, f.end()
}

// AppendLeaseRevoke encodes a LeaseRevokeRequest.
func AppendLeaseRevoke(dst []byte, id int64) []byte { return appendInt(dst, 1, id) }

// LeaseTimeToLiveRequest is etcdserverpb.LeaseTimeToLiveRequest.
type LeaseTimeToLiveRequest struct {
	ID   int64
	Keys bool
}

// ParseLeaseTimeToLive reads a LeaseTimeToLiveRequest; the error is
// ErrMalformed.
func ParseLeaseTimeToLive(b []byte, r *LeaseTimeToLiveRequest) error {
	*r = LeaseTimeToLiveRequest{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			r.ID = int64(f.v)
		case 2<<3 | varint:
			r.Keys = f.v != 0
		}
	}
	return f.end()
}

// LeaseCheckpoint is etcdserverpb.LeaseCheckpoint with two fields more, so that
// what was judged in another term, or before the lease was renewed through the
// log, is recognised at apply.
//
//	08 ID  10 remaining TTL  18 epoch  20 term
type LeaseCheckpoint struct {
	ID        int64
	Remaining int64  // seconds; 0 gives the lease its whole time again
	Epoch     uint64 // the lease's epoch when this was judged; unused when Remaining is 0
	Term      uint64 // the term of the leader that judged; unused when Remaining is 0
}

// ParseLeaseCheckpoints reads a LeaseCheckpointRequest onto dst; the error is
// ErrMalformed.
func ParseLeaseCheckpoints(b []byte, dst []LeaseCheckpoint) ([]LeaseCheckpoint, error) {
	f := fields{rest: b}
	for f.next() {
		if f.tag != 1<<3|length {
			continue
		}
		var c LeaseCheckpoint
		if err := parseCheckpoint(f.val, &c); err != nil {
			return dst, err
		}
		dst = append(dst, c)
	}
	return dst, f.end()
}

func parseCheckpoint(b []byte, c *LeaseCheckpoint) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			c.ID = int64(f.v)
		case 2<<3 | varint:
			c.Remaining = int64(f.v)
		case 3<<3 | varint:
			c.Epoch = f.v
		case 4<<3 | varint:
			c.Term = f.v
		}
	}
	return f.end()
}

// AppendLeaseCheckpoint encodes one more checkpoint of a LeaseCheckpointRequest.
func AppendLeaseCheckpoint(dst []byte, c LeaseCheckpoint) []byte {
	dst, m := beginMessage(dst, 1)
	dst = appendInt(dst, 1, c.ID)
	dst = appendInt(dst, 2, c.Remaining)
	dst = appendUint(dst, 3, c.Epoch)
	dst = appendUint(dst, 4, c.Term)
	return endMessage(dst, m)
}

// LeaseExpiry is the leader's judgement that a lease has run out. It has no
// counterpart in etcd, where an expiry is a plain revoke; term and epoch make a
// stale one recognisable at apply.
//
//	08 ID  10 epoch  18 term
type LeaseExpiry struct {
	ID    int64
	Epoch uint64 // the lease's epoch when this was judged
	Term  uint64 // the term of the leader that judged
}

// ParseLeaseExpiry reads a LeaseExpiry; the error is ErrMalformed.
func ParseLeaseExpiry(b []byte, e *LeaseExpiry) error {
	*e = LeaseExpiry{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			e.ID = int64(f.v)
		case 2<<3 | varint:
			e.Epoch = f.v
		case 3<<3 | varint:
			e.Term = f.v
		}
	}
	return f.end()
}

// AppendLeaseExpiry encodes e.
func AppendLeaseExpiry(dst []byte, e LeaseExpiry) []byte {
	dst = appendInt(dst, 1, e.ID)
	dst = appendUint(dst, 2, e.Epoch)
	return appendUint(dst, 3, e.Term)
}

// AppendLeaseGrantResponse encodes the answer to a grant.
func AppendLeaseGrantResponse(dst []byte, h Header, id, ttl int64) []byte {
	dst = AppendHeader(dst, 1, h)
	dst = appendInt(dst, 2, id)
	return appendInt(dst, 3, ttl)
}

// AppendLeaseKeepAliveResponse encodes the answer to one keep-alive; TTL 0 says
// that the lease does not exist.
func AppendLeaseKeepAliveResponse(dst []byte, h Header, id, ttl int64) []byte {
	return AppendLeaseGrantResponse(dst, h, id, ttl)
}

// AppendLeaseTimeToLiveResponse encodes the answer to a question for the time to
// live; TTL -1 says that the lease does not exist.
func AppendLeaseTimeToLiveResponse(dst []byte, h Header, id, ttl, granted int64, keys [][]byte) []byte {
	dst = AppendLeaseGrantResponse(dst, h, id, ttl)
	dst = appendInt(dst, 4, granted)
	for _, k := range keys {
		dst = protowire.AppendTag(dst, 5, protowire.BytesType)
		dst = protowire.AppendBytes(dst, k)
	}
	return dst
}

// AppendLeaseLeasesResponse encodes the list of all leases.
func AppendLeaseLeasesResponse(dst []byte, h Header, ids []int64) []byte {
	dst = AppendHeader(dst, 1, h)
	for _, id := range ids {
		var m int
		dst, m = beginMessage(dst, 2)
		dst = appendInt(dst, 1, id)
		dst = endMessage(dst, m)
	}
	return dst
}

// LeaseMark is what the segments of a lease's keys and its home say to each other;
// it has no counterpart in etcd. Which fields count is said by the operation.
//
//	08 ID  10 since  18 at  22 start  2A end
type LeaseMark struct {
	ID    int64
	Since uint64 // which lease of this ID: the home's log index of its first registration
	At    uint64 // a log index of the home
	// Start and End are a range of keys, as anchormesh.KeyRange has them.
	Start, End []byte
}

// ParseLeaseMark reads a LeaseMark; the error is ErrMalformed.
func ParseLeaseMark(b []byte, m *LeaseMark) error {
	*m = LeaseMark{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			m.ID = int64(f.v)
		case 2<<3 | varint:
			m.Since = f.v
		case 3<<3 | varint:
			m.At = f.v
		case 4<<3 | length:
			m.Start = f.val
		case 5<<3 | length:
			m.End = f.val
		}
	}
	return f.end()
}

// AppendLeaseMark encodes m.
func AppendLeaseMark(dst []byte, m LeaseMark) []byte {
	dst = appendInt(dst, 1, m.ID)
	dst = appendUint(dst, 2, m.Since)
	dst = appendUint(dst, 3, m.At)
	dst = appendBytes(dst, 4, m.Start)
	return appendBytes(dst, 5, m.End)
}
