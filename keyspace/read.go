package keyspace

import (
	"context"
	"math"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// reader is a state that requests are evaluated on: a write transaction or a
// snapshot.
type reader interface {
	Range(key, end []byte, atRev, limit int64, countOnly bool) (mvcc.Result, error)
	// Get returns the newest version of a key.
	Get(key []byte) (mvcc.KV, bool)
	// Stat is Get without the value.
	Stat(key []byte) (create, mod, version int64, ok bool)
}

// snapshot makes a view a reader.
type snapshot struct{ *mvcc.View }

func (s snapshot) Get(key []byte) (mvcc.KV, bool) {
	res, err := s.Range(key, nil, 0, 0, false)
	if err != nil || len(res.KVs) == 0 {
		return mvcc.KV{}, false
	}
	return res.KVs[0], true
}

func (s snapshot) Stat(key []byte) (create, mod, version int64, ok bool) {
	kv, ok := s.Get(key)
	return kv.Create, kv.Mod, kv.Version, ok
}

// selection is what a range request picked.
type selection struct {
	kvs   []mvcc.KV
	more  bool
	count int64 // keys in the range, whatever limit and filters
}

// pick runs a range request. Its order of steps is etcd's and shows: the limit is
// handed down only if the order is the store's, where "order" is judged before a
// missing sort order is read as ascending.
func pick(r reader, q *codec.RangeRequest) (selection, error) {
	res, err := r.Range(q.Key, q.RangeEnd, max(q.Revision, 0), fetchLimit(q), q.CountOnly)
	if err != nil {
		return selection{}, err
	}
	kvs := filter(res.KVs, q)
	sortKVs(kvs, q)
	s := selection{kvs: kvs, count: res.Count}
	if q.Limit > 0 && int64(len(kvs)) > q.Limit {
		s.kvs, s.more = kvs[:q.Limit], true
	}
	return s, nil
}

// fetchLimit is how many keys to read: one more than asked for, to know whether
// there are more.
func fetchLimit(q *codec.RangeRequest) int64 {
	switch {
	case q.Limit <= 0 || filtered(q) || !storeOrder(q):
		return 0
	case q.Limit == math.MaxInt64:
		return q.Limit
	}
	return q.Limit + 1
}

func storeOrder(q *codec.RangeRequest) bool {
	return q.SortOrder == codec.SortNone || q.SortTarget == codec.SortByKey && q.SortOrder == codec.SortAscend
}

func filtered(q *codec.RangeRequest) bool {
	return q.MinModRevision != 0 || q.MaxModRevision != 0 || q.MinCreateRevision != 0 || q.MaxCreateRevision != 0
}

func filter(kvs []mvcc.KV, q *codec.RangeRequest) []mvcc.KV {
	if !filtered(q) {
		return kvs
	}
	kept := kvs[:0]
	for i := range kvs {
		kv := &kvs[i]
		if q.MaxModRevision != 0 && kv.Mod > q.MaxModRevision ||
			q.MinModRevision != 0 && kv.Mod < q.MinModRevision ||
			q.MaxCreateRevision != 0 && kv.Create > q.MaxCreateRevision ||
			q.MinCreateRevision != 0 && kv.Create < q.MinCreateRevision {
			continue
		}
		kept = append(kept, *kv)
	}
	return kept
}

// bare returns the key-value as a keys-only answer shows it. etcd reads such an
// answer from its index, which knows no leases, except where it sorts by value.
func bare(kv *mvcc.KV, q *codec.RangeRequest) codec.KeyValue {
	out := codec.KeyValue{Key: kv.Key, Create: kv.Create, Mod: kv.Mod, Version: kv.Version}
	if q.SortTarget == codec.SortByValue {
		out.Lease = kv.Lease
	}
	return out
}

// appendSelection encodes a RangeResponse into one buffer, as a transaction's
// answer needs it.
func appendSelection(dst []byte, h codec.Header, q *codec.RangeRequest, s selection) []byte {
	dst = codec.AppendHeader(dst, 1, h)
	for i := range s.kvs {
		if q.KeysOnly {
			kv := bare(&s.kvs[i], q)
			dst = codec.AppendKeyValueField(dst, 2, &kv)
		} else {
			dst = codec.AppendRaw(dst, 2, s.kvs[i].Raw)
		}
	}
	return codec.AppendRangeTail(dst, s.more, s.count)
}

// cancelEvery is how many key-values are encoded between two looks at the
// context.
const cancelEvery = 1024

// Range answers a range request from the newest state of this replica: an encoded
// RangeResponse with the current revision in its header, in memory of its own. The
// errors are ErrCompacted, ErrFutureRev, ErrWrongSegment and the context's.
func (s *Space) Range(ctx context.Context, q *codec.RangeRequest, term uint64) (codec.Chunks, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.outside(q.Key, q.RangeEnd) {
		return nil, ErrWrongSegment
	}
	v := s.seg.Read()
	defer v.Close()
	sel, err := pick(snapshot{v}, q)
	if err != nil {
		return nil, err
	}
	c := codec.NewChunkBuilder(sizeHint(&sel, q))
	c.AppendWith(headerSizeMax, func(dst []byte) []byte {
		return codec.AppendHeader(dst, 1, s.header(v.Rev(), term))
	})
	if err := fill(ctx, c, q, sel.kvs); err != nil {
		return nil, err
	}
	c.AppendWith(tailSizeMax, func(dst []byte) []byte {
		return codec.AppendRangeTail(dst, sel.more, sel.count)
	})
	return c.Finish(), nil
}

const (
	headerSizeMax = 2 + 4*11
	tailSizeMax   = 2 + 11
	// fieldSizeMax is tag and length in front of a key-value; bareSizeMax the
	// numbers of one without value, with their tags.
	fieldSizeMax = 11
	bareSizeMax  = fieldSizeMax + 11 + 4*11
)

// sizeHint estimates an answer's length.
func sizeHint(s *selection, q *codec.RangeRequest) int {
	size := headerSizeMax + tailSizeMax
	for i := range s.kvs {
		if q.KeysOnly {
			size += bareSizeMax + len(s.kvs[i].Key)
		} else {
			size += fieldSizeMax + len(s.kvs[i].Raw)
		}
	}
	return size
}

// fill encodes the key-values of a RangeResponse. They are copied: they lie in the
// store's memory map, and the answer outlives the view that keeps it in place.
func fill(ctx context.Context, c *codec.ChunkBuilder, q *codec.RangeRequest, kvs []mvcc.KV) error {
	for i := range kvs {
		if i%cancelEvery == cancelEvery-1 && ctx.Err() != nil {
			return ctx.Err()
		}
		if !q.KeysOnly {
			c.AppendCopy(2, kvs[i].Raw)
			continue
		}
		kv := bare(&kvs[i], q)
		c.AppendWith(bareSizeMax+len(kv.Key), func(dst []byte) []byte {
			return codec.AppendKeyValueField(dst, 2, &kv)
		})
	}
	return nil
}
