package keyspace

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"math"
	"sort"

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
	return s.readRange(ctx, s.seg.Read(), q, term)
}

// RangeAt is Range at the revision at, which is in its header: nothing newer is seen,
// and what the client calls newest is this. The caller knows that all that is at or
// below it is here; it may be above the segment's current revision. A client's
// revision above it is ErrFutureRev. ErrOvertaken says that a compaction has passed
// it in the meantime.
func (s *Space) RangeAt(ctx context.Context, q *codec.RangeRequest, term uint64, at int64) (codec.Chunks, error) {
	return s.readRange(ctx, s.seg.ReadAt(at), q, term)
}

// readRange closes the view.
func (s *Space) readRange(ctx context.Context, v *mvcc.View, q *codec.RangeRequest, term uint64) (codec.Chunks, error) {
	defer v.Close()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch {
	case leaves(v.KeyRange(), q.Key, q.RangeEnd): // the view's: a cut may have come in between
		return nil, ErrWrongSegment
	case v.Rev() < v.Compacted():
		return nil, ErrOvertaken
	}
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

// sortKVs puts the key-values in the order a request asks for; they come in key
// order. Equal ones fall as sort.Sort lets them fall, because etcd's do: a stable
// order would be nicer and different.
func sortKVs(kvs []mvcc.KV, q *codec.RangeRequest) {
	order := q.SortOrder
	if q.SortTarget != codec.SortByKey && order == codec.SortNone {
		order = codec.SortAscend
	}
	less := lessBy(q.SortTarget)
	if less == nil || order == codec.SortNone || q.SortTarget == codec.SortByKey && order == codec.SortAscend {
		return
	}
	s := byTarget{kvs, less}
	switch order {
	case codec.SortAscend:
		sort.Sort(s)
	case codec.SortDescend:
		sort.Sort(sort.Reverse(s))
	}
}

// byTarget sorts key-values by one field.
type byTarget struct {
	kvs  []mvcc.KV
	less func(a, b *mvcc.KV) bool
}

func (s byTarget) Len() int           { return len(s.kvs) }
func (s byTarget) Swap(i, j int)      { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }
func (s byTarget) Less(i, j int) bool { return s.less(&s.kvs[i], &s.kvs[j]) }

// lessBy returns nil for a target that does not exist; requests with one are
// refused before they get here.
func lessBy(target codec.SortTarget) func(a, b *mvcc.KV) bool {
	switch target {
	case codec.SortByKey:
		return func(a, b *mvcc.KV) bool { return bytes.Compare(a.Key, b.Key) < 0 }
	case codec.SortByVersion:
		return func(a, b *mvcc.KV) bool { return cmp.Less(a.Version, b.Version) }
	case codec.SortByCreate:
		return func(a, b *mvcc.KV) bool { return cmp.Less(a.Create, b.Create) }
	case codec.SortByMod:
		return func(a, b *mvcc.KV) bool { return cmp.Less(a.Mod, b.Mod) }
	case codec.SortByValue:
		return func(a, b *mvcc.KV) bool { return bytes.Compare(a.Value(), b.Value()) < 0 }
	}
	return nil
}

// HashKV is the hash of all kept revisions up to one, equal on all replicas that
// hold the same history and compacted at the same revision.
type HashKV struct {
	Hash      uint32
	Revision  int64 // hashed up to here
	Compacted int64 // when the hash was taken; -1 for never
}

// HashKV hashes the history up to rev; 0 is the newest, and below it there is
// nothing to hash, as in etcd. The errors are ErrCompacted
// and ErrFutureRev.
func (s *Space) HashKV(rev int64) (HashKV, error) {
	hash, compacted, at, err := s.seg.Hash(rev)
	if err != nil {
		return HashKV{}, err
	}
	return HashKV{Hash: hash, Revision: at, Compacted: compacted}, nil
}

// Response encodes the hash as a HashKVResponse.
func (h HashKV) Response(header codec.Header) []byte {
	return codec.AppendHashKVResponse(nil, header, h.Hash, h.Compacted, h.Revision)
}

// ErrStreamOrder: a range stream was asked for an order or a filter that needs
// the whole answer before its first key.
var ErrStreamOrder = errors.New("keyspace: a range stream supports neither sort orders nor revision filters")

// firstPieceKeys is how many keys the first piece of a stream holds, as in etcd.
const firstPieceKeys = 10

// RangeStream answers a range request in pieces, each an encoded
// RangeStreamResponse of about pieceBytes, through send. All pieces are read at
// the revision of the first; a compaction above it ends the stream with
// ErrCompacted, a cut before its last key with ErrWrongSegment. The last piece alone carries header, more and count, and the
// header shows the newest revision when the stream began. No snapshot is held
// while send runs.
func (s *Space) RangeStream(ctx context.Context, q codec.RangeRequest, term uint64, pieceBytes int, send func(codec.Chunks) error) error {
	return s.stream(ctx, piece{q: q, open: s.seg.Read}, term, pieceBytes, send)
}

// RangeStreamAt is RangeStream at the revision at, as RangeAt reads. A cut between
// two pieces ends it with ErrWrongSegment: the rest is elsewhere.
func (s *Space) RangeStreamAt(ctx context.Context, q codec.RangeRequest, term uint64, at int64, pieceBytes int, send func(codec.Chunks) error) error {
	return s.stream(ctx, piece{q: q, open: func() *mvcc.View { return s.seg.ReadAt(at) }}, term, pieceBytes, send)
}

func (s *Space) stream(ctx context.Context, p piece, term uint64, pieceBytes int, send func(codec.Chunks) error) error {
	if filtered(&p.q) || !storeOrder(&p.q) {
		return ErrStreamOrder
	}
	p.left = p.q.Limit
	// Without a sort order a target is no order either. etcd sorts every piece by
	// it and goes on behind the last key of the sorted piece, which loses keys.
	p.q.SortTarget = codec.SortByKey
	if p.left <= 0 {
		p.left = math.MaxInt64
	}
	p.q.Limit = min(firstPieceKeys, p.left)
	for first := true; ; first = false {
		if err := ctx.Err(); err != nil {
			return err
		}
		c, done, err := p.read(first, term, s.ids)
		if err != nil {
			return err
		}
		if err := send(codec.WrapChunks(c, 1)); err != nil || done {
			return err
		}
		p.aim(c.Size(), pieceBytes)
	}
}

// piece is the state between two pieces of a stream.
type piece struct {
	q      codec.RangeRequest // of the next piece
	open   func() *mvcc.View
	left   int64 // keys that may still be sent
	sent   int64
	header codec.Header
}

// read reads and encodes the next piece. The first one fixes the revision.
func (p *piece) read(first bool, term uint64, ids Identity) (c codec.Chunks, done bool, err error) {
	v := p.open()
	defer v.Close()
	if leaves(v.KeyRange(), p.q.Key, p.q.RangeEnd) {
		return nil, false, ErrWrongSegment
	}
	if first {
		if v.Rev() < v.Compacted() {
			return nil, false, ErrOvertaken
		}
		p.header = codec.Header{ClusterID: ids.ClusterID, MemberID: ids.MemberID, Revision: v.Rev(), RaftTerm: term}
		if p.q.Revision <= 0 {
			p.q.Revision = v.Rev()
		}
	}
	sel, err := pick(snapshot{v}, &p.q)
	if err != nil {
		return nil, false, err
	}
	before := p.sent
	p.sent += int64(len(sel.kvs))
	p.left -= int64(len(sel.kvs))
	done = !sel.more || p.left == 0
	b := codec.NewChunkBuilder(sizeHint(&sel, &p.q))
	if done {
		b.AppendWith(headerSizeMax, func(dst []byte) []byte { return codec.AppendHeader(dst, 1, p.header) })
	}
	if err := fill(context.Background(), b, &p.q, sel.kvs); err != nil {
		return nil, false, err
	}
	if done {
		b.AppendWith(tailSizeMax, func(dst []byte) []byte { return codec.AppendRangeTail(dst, sel.more, before+sel.count) })
	} else {
		last := sel.kvs[len(sel.kvs)-1].Key
		p.q.Key = append(append(make([]byte, 0, len(last)+1), last...), 0)
	}
	return b.Finish(), done, nil
}

// aim doubles or halves the next piece when the last one was far from the target.
func (p *piece) aim(size, target int) {
	switch {
	case size < target/2:
		p.q.Limit *= 2
	case size > target*2:
		p.q.Limit = max(p.q.Limit/2, 1)
	}
	p.q.Limit = min(p.q.Limit, p.left)
}
