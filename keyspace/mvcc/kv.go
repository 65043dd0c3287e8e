package mvcc

// Revision names one write: Main is the revision etcd's clients see, Sub counts
// the writes of one transaction from zero.
type Revision struct {
	Main, Sub int64
}

// KV is one version of a key as a reader sees it. Key and Raw may alias memory
// of the store: do not modify them. How long they stay valid is said by the
// method that returned the KV.
type KV struct {
	Key                         []byte
	Create, Mod, Version, Lease int64
	Raw                         []byte // the encoded mvccpb.KeyValue, ready for the wire
	ValueLen                    int    // bytes of the value inside Raw
	valueOff                    int
}

// Value is the value inside Raw, not copied.
func (kv *KV) Value() []byte {
	return kv.Raw[kv.valueOff : kv.valueOff+kv.ValueLen : kv.valueOff+kv.ValueLen]
}

// Event is one write as a watch sees it. Of a deletion the KV holds Key and Mod
// only, and Raw is an encoded mvccpb.KeyValue with these two fields.
type Event struct {
	Delete    bool
	KV        KV
	Main, Sub int64
}

// Result is what a range read found.
type Result struct {
	KVs   []KV  // in key order, at most limit; nil if only the count was asked for
	Count int64 // keys in the range, whatever the limit
}

// Meta is committed in the same transaction as the data it describes.
type Meta struct {
	Applied, Term uint64 // last applied log entry
	State         []byte // opaque here: descriptor, configuration; owned by the node
}

// Publisher is told of every batch that wrote something, in order, after readers
// see it and outside the segment's lock. It must not block. The events' bytes
// stay valid and must not be modified; the slice is the publisher's to keep.
type Publisher interface {
	Publish(events []Event, rev int64)
}
