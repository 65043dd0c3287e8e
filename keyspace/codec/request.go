package codec

// PutRequest is etcdserverpb.PutRequest.
type PutRequest struct {
	Key, Value  []byte
	Lease       int64
	PrevKV      bool
	IgnoreValue bool
	IgnoreLease bool
}

// ParsePut reads a PutRequest; the error is ErrMalformed.
func ParsePut(b []byte, r *PutRequest) error {
	*r = PutRequest{}
	return mergePut(b, r)
}

func mergePut(b []byte, r *PutRequest) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | length:
			r.Key = f.val
		case 2<<3 | length:
			r.Value = f.val
		case 3<<3 | varint:
			r.Lease = int64(f.v)
		case 4<<3 | varint:
			r.PrevKV = f.v != 0
		case 5<<3 | varint:
			r.IgnoreValue = f.v != 0
		case 6<<3 | varint:
			r.IgnoreLease = f.v != 0
		}
	}
	return f.end()
}

// SortOrder is etcdserverpb.RangeRequest_SortOrder.
type SortOrder int32

// Sort orders. Other values may arrive; package keyspace refuses them.
const (
	SortNone SortOrder = iota
	SortAscend
	SortDescend
)

// SortTarget is etcdserverpb.RangeRequest_SortTarget.
type SortTarget int32

// Sort targets. Other values may arrive; package keyspace refuses them.
const (
	SortByKey SortTarget = iota
	SortByVersion
	SortByCreate
	SortByMod
	SortByValue
)

// RangeRequest is etcdserverpb.RangeRequest.
type RangeRequest struct {
	Key, RangeEnd     []byte
	Limit             int64
	Revision          int64
	MinModRevision    int64
	MaxModRevision    int64
	MinCreateRevision int64
	MaxCreateRevision int64
	SortOrder         SortOrder
	SortTarget        SortTarget
	Serializable      bool
	KeysOnly          bool
	CountOnly         bool
}

// ParseRange reads a RangeRequest; the error is ErrMalformed.
func ParseRange(b []byte, r *RangeRequest) error {
	*r = RangeRequest{}
	return mergeRange(b, r)
}

func mergeRange(b []byte, r *RangeRequest) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | length:
			r.Key = f.val
		case 2<<3 | length:
			r.RangeEnd = f.val
		case 3<<3 | varint:
			r.Limit = int64(f.v)
		case 4<<3 | varint:
			r.Revision = int64(f.v)
		case 5<<3 | varint:
			r.SortOrder = SortOrder(int32(f.v))
		case 6<<3 | varint:
			r.SortTarget = SortTarget(int32(f.v))
		case 7<<3 | varint:
			r.Serializable = f.v != 0
		case 8<<3 | varint:
			r.KeysOnly = f.v != 0
		case 9<<3 | varint:
			r.CountOnly = f.v != 0
		case 10<<3 | varint:
			r.MinModRevision = int64(f.v)
		case 11<<3 | varint:
			r.MaxModRevision = int64(f.v)
		case 12<<3 | varint:
			r.MinCreateRevision = int64(f.v)
		case 13<<3 | varint:
			r.MaxCreateRevision = int64(f.v)
		}
	}
	return f.end()
}

// DeleteRangeRequest is etcdserverpb.DeleteRangeRequest.
type DeleteRangeRequest struct {
	Key, RangeEnd []byte
	PrevKV        bool
}

// ParseDeleteRange reads a DeleteRangeRequest; the error is ErrMalformed.
func ParseDeleteRange(b []byte, r *DeleteRangeRequest) error {
	*r = DeleteRangeRequest{}
	return mergeDeleteRange(b, r)
}

func mergeDeleteRange(b []byte, r *DeleteRangeRequest) error {
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | length:
			r.Key = f.val
		case 2<<3 | length:
			r.RangeEnd = f.val
		case 3<<3 | varint:
			r.PrevKV = f.v != 0
		}
	}
	return f.end()
}

// CompactionRequest is etcdserverpb.CompactionRequest.
type CompactionRequest struct {
	Revision int64
	Physical bool
}

// ParseCompaction reads a CompactionRequest; the error is ErrMalformed.
func ParseCompaction(b []byte, r *CompactionRequest) error {
	*r = CompactionRequest{}
	f := fields{rest: b}
	for f.next() {
		switch f.tag {
		case 1<<3 | varint:
			r.Revision = int64(f.v)
		case 2<<3 | varint:
			r.Physical = f.v != 0
		}
	}
	return f.end()
}
