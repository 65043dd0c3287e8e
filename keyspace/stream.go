package keyspace

import (
	"context"
	"errors"
	"math"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

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
