package keyspace

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unsafe"

	"github.com/google/btree"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// leaseBucket is the segment's side table of leases; see the package comment.
const leaseBucket = "lease"

const leaseFormat = 1

// attachment says that a key hangs on a lease. There is one for every key of the
// newest state whose lease is not 0, and no other.
type attachment struct {
	key   string
	lease int64
}

// attachmentNodes is what all trees of attachments take their nodes from: one list for
// each would be half of what an empty table costs, and there are thousands.
var attachmentNodes = btree.NewFreeListG[attachment](btree.DefaultFreeListSize)

func attachmentsByKey(a, b attachment) bool { return strings.Compare(a.key, b.key) < 0 }

func attachmentsByLease(a, b attachment) bool {
	return a.lease < b.lease || a.lease == b.lease && strings.Compare(a.key, b.key) < 0
}

// leaseTable holds the leases and which keys hang on them. One tree finds the
// attachments of a deleted range without reading what was deleted, the other lists
// a lease's keys. After a cut both still hold what was cut off, until trim has taken
// it out in bounded steps; nobody asks for keys outside of the segment's range.
type leaseTable struct {
	byID     map[int64]*leaseRow
	byKey    *btree.BTreeG[attachment]
	byLease  *btree.BTreeG[attachment]
	floor    uint64 // see OpLeaseForget in the package comment
	trimming bool
}

// has reports whether a put of the key may name the lease; 0 is none.
func (t *leaseTable) has(id int64, key []byte) bool {
	if id == 0 {
		return true
	}
	row := t.byID[id]
	return row != nil && row.takes(key)
}

func (t *leaseTable) add(l lease.Lease) {
	t.byID[l.ID] = &leaseRow{Lease: l, home: true}
}

// attach records that the newest version of key hangs on the lease, or on none.
func (t *leaseTable) attach(key []byte, id int64) {
	if id == 0 && t.byKey.Len() == 0 {
		return
	}
	// The key's bytes are only looked at, so the string need not own them.
	old, ok := t.byKey.Get(attachment{key: unsafe.String(unsafe.SliceData(key), len(key))})
	switch {
	case ok && old.lease == id:
		return
	case ok:
		t.byLease.Delete(old)
	case id == 0:
		return
	default:
		old.key = string(key)
	}
	if id == 0 {
		t.byKey.Delete(old)
		return
	}
	t.byKey.ReplaceOrInsert(attachment{old.key, id})
	t.byLease.ReplaceOrInsert(attachment{old.key, id})
}

// detachRange records that no key of etcd's (key, range_end) exists any more;
// range_end is not empty.
func (t *leaseTable) detachRange(key, end []byte) {
	if t.byKey.Len() == 0 {
		return
	}
	var gone []attachment
	collect := func(a attachment) bool {
		gone = append(gone, a)
		return true
	}
	if len(end) == 1 && end[0] == 0 {
		t.byKey.AscendGreaterOrEqual(attachment{key: string(key)}, collect)
	} else {
		t.byKey.AscendRange(attachment{key: string(key)}, attachment{key: string(end)}, collect)
	}
	for _, a := range gone {
		t.drop(a)
	}
}

func (t *leaseTable) drop(a attachment) {
	t.byKey.Delete(a)
	t.byLease.Delete(a)
}

// detach makes nothing of rng hang on the lease any more, and returns what did.
func (t *leaseTable) detach(id int64, rng anchormesh.KeyRange) []string {
	keys := t.keys(id, rng)
	for _, k := range keys {
		t.drop(attachment{k, id})
	}
	return keys
}

// keys lists what of rng hangs on the lease, in order.
func (t *leaseTable) keys(id int64, rng anchormesh.KeyRange) (keys []string) {
	t.byLease.AscendGreaterOrEqual(attachment{string(rng.Start), id}, func(a attachment) bool {
		if a.lease != id || len(rng.End) > 0 && a.key >= string(rng.End) {
			return false
		}
		keys = append(keys, a.key)
		return true
	})
	return keys
}

// hangs reports whether a key of rng hangs on the lease.
func (t *leaseTable) hangs(id int64, rng anchormesh.KeyRange) (some bool) {
	t.byLease.AscendGreaterOrEqual(attachment{string(rng.Start), id}, func(a attachment) bool {
		some = a.lease == id && (len(rng.End) == 0 || a.key < string(rng.End))
		return false
	})
	return some
}

// ids lists the rows in order.
func (t *leaseTable) ids() []int64 { return slices.Sorted(maps.Keys(t.byID)) }

// list returns all leases of this home by ID.
func (t *leaseTable) list() []lease.Lease {
	out := make([]lease.Lease, 0, len(t.byID))
	for _, id := range t.ids() {
		if row := t.byID[id]; row.home && !row.ending {
			out = append(out, row.Lease)
		}
	}
	return out
}

// trimStep is how many attachments one entry takes out after a cut: some tens of
// microseconds.
const trimStep = 64

// trim takes out some of what lies behind the end of the segment's range.
func (t *leaseTable) trim(rng anchormesh.KeyRange) {
	for i := 0; t.trimming && i < trimStep; i++ {
		last, ok := t.byKey.Max()
		if t.trimming = ok && len(rng.End) > 0 && last.key >= string(rng.End); t.trimming {
			t.drop(last)
		}
	}
}

// load reads the leases of an opened segment and, if there are any, finds their
// keys.
func (t *leaseTable) load(seg *mvcc.Segment) error {
	t.byID = make(map[int64]*leaseRow)
	t.byKey = btree.NewWithFreeListG(32, attachmentsByKey, attachmentNodes)
	t.byLease = btree.NewWithFreeListG(32, attachmentsByLease, attachmentNodes)
	var err error
	seg.ForEachAux(leaseBucket, func(k, v []byte) {
		l, bad := decodeLease(k, v)
		if bad != nil && err == nil {
			err = bad
		}
		t.add(l)
	})
	if err == nil {
		err = t.loadSpread(seg)
	}
	if err != nil || len(t.byID) == 0 {
		return err
	}
	return t.loadKeys(seg)
}

// loadPage is how many keys are looked at in one step of loading, 65536: each step
// counts all that are left, so it is not small, and holds them in memory, so it
// is not large.
const loadPage = 1 << 16

func (t *leaseTable) loadKeys(seg *mvcc.Segment) error {
	v := seg.Read()
	defer v.Close()
	for from := []byte{}; ; {
		res, err := v.Range(from, []byte{0}, 0, loadPage, false)
		if err != nil {
			return err
		}
		for i := range res.KVs {
			kv := &res.KVs[i]
			if kv.Lease != 0 && t.byID[kv.Lease] == nil {
				return fmt.Errorf("stored key %q hangs on lease %016x, which does not exist: restore this replica from another", kv.Key, kv.Lease)
			}
			t.attach(kv.Key, kv.Lease)
		}
		if len(res.KVs) < loadPage {
			return nil
		}
		last := res.KVs[len(res.KVs)-1].Key
		from = append(append(make([]byte, 0, len(last)+1), last...), 0)
	}
}

func leaseKey(id int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(id)) }

func encodeLease(l lease.Lease) []byte {
	b := binary.AppendUvarint([]byte{leaseFormat}, uint64(l.TTL))
	b = binary.AppendUvarint(b, uint64(l.Remaining))
	return binary.AppendUvarint(b, l.Epoch)
}

func decodeLease(k, v []byte) (l lease.Lease, err error) {
	var nums [3]uint64
	ok := len(k) == 8 && len(v) > 0 && v[0] == leaseFormat
	if ok {
		v = v[1:]
		for i := range nums {
			n := 0
			if nums[i], n = binary.Uvarint(v); n <= 0 {
				ok = false
				break
			}
			v = v[n:]
		}
	}
	if !ok || len(v) != 0 || nums[0] > math.MaxInt64 || nums[1] > math.MaxInt64 {
		return l, fmt.Errorf("stored lease %x cannot be read: restore this replica from another", k)
	}
	id := int64(binary.BigEndian.Uint64(k))
	return lease.Lease{ID: id, TTL: int64(nums[0]), Remaining: int64(nums[1]), Epoch: nums[2]}, nil
}
