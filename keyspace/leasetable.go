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

// leaseTable holds the leases and which keys hang on them. The tree finds the
// attachments of a deleted range without reading what was deleted; the sets list
// a lease's keys.
type leaseTable struct {
	byID  map[int64]*leaseRow
	byKey *btree.BTreeG[attachment]
}

type leaseRow struct {
	lease.Lease
	keys map[string]struct{}
}

// has reports whether a put may name the lease; 0 is none.
func (t *leaseTable) has(id int64) bool {
	return id == 0 || t.byID[id] != nil
}

func (t *leaseTable) add(l lease.Lease) {
	t.byID[l.ID] = &leaseRow{Lease: l, keys: make(map[string]struct{})}
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
		delete(t.byID[old.lease].keys, old.key)
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
	t.byID[id].keys[old.key] = struct{}{}
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
		t.byKey.Delete(a)
		delete(t.byID[a.lease].keys, a.key)
	}
}

// remove forgets the lease and returns the keys that hung on it, in order.
func (t *leaseTable) remove(id int64) []string {
	keys := t.byID[id].sorted()
	for _, k := range keys {
		t.byKey.Delete(attachment{key: k})
	}
	delete(t.byID, id)
	return keys
}

func (r *leaseRow) sorted() []string {
	return slices.Sorted(maps.Keys(r.keys))
}

// list returns all leases by ID.
func (t *leaseTable) list() []lease.Lease {
	out := make([]lease.Lease, 0, len(t.byID))
	for _, id := range slices.Sorted(maps.Keys(t.byID)) {
		out = append(out, t.byID[id].Lease)
	}
	return out
}

// load reads the leases of an opened segment and, if there are any, finds their
// keys.
func (t *leaseTable) load(seg *mvcc.Segment) error {
	t.byID = make(map[int64]*leaseRow)
	t.byKey = btree.NewG(32, func(a, b attachment) bool { return strings.Compare(a.key, b.key) < 0 })
	var err error
	seg.ForEachAux(leaseBucket, func(k, v []byte) {
		l, bad := decodeLease(k, v)
		if bad != nil && err == nil {
			err = bad
		}
		t.add(l)
	})
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
			if !t.has(kv.Lease) {
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
