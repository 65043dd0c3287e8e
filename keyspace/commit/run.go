package commit

import (
	"bytes"
	"slices"
	"sort"

	"github.com/anchormesh/anchormesh/keyspace/codec"
)

// run is one execution of the picked branches at a revision: in order, each
// operation seeing the ones before it.
type run struct {
	e       *evaluation
	rev     int64
	now     table
	writes  []Write
	out     []byte
	deleted []codec.KeyValue // by the last DeleteRange
}

func (e *evaluation) run(rev int64) *run {
	r := &run{e: e, rev: rev, now: slices.Clone(e.before)}
	r.txn(e.txn, &walk{path: e.path})
	return r
}

func (r *run) txn(t *codec.TxnRequest, w *walk) {
	ops, _ := w.branch(t)
	for i := range ops {
		op := &ops[i]
		var m codec.OpMark
		r.out, m = codec.BeginResponseOp(r.out, op.Kind)
		switch op.Kind {
		case codec.KindRange:
			r.pick(&op.Range)
		case codec.KindPut:
			r.put(&op.Put)
		case codec.KindDeleteRange:
			r.remove(&op.DeleteRange)
		case codec.KindTxn:
			r.out = codec.AppendTxnResponse(r.out, codec.Header{}, w.path[w.next])
			r.txn(op.Txn, w)
		}
		r.out = codec.EndResponseOp(r.out, m)
	}
}

// header is that of one operation: the revision it sees.
func (r *run) header() codec.Header {
	if len(r.writes) == 0 && r.e.writes > 0 {
		return codec.Header{Revision: r.rev - 1}
	}
	return codec.Header{Revision: r.rev}
}

func (r *run) write(w Write) {
	w.Sub = uint32(len(r.writes))
	r.writes = append(r.writes, w)
}

func (r *run) put(p *codec.PutRequest) {
	i, there := r.now.find(p.Key)
	var prev codec.KeyValue
	var raw []byte
	if there {
		prev = r.now[i]
		if p.PrevKV {
			raw = codec.AppendKeyValue(nil, &prev)
		}
	}
	r.out = codec.AppendPutResponse(r.out, codec.Header{Revision: r.rev}, raw)
	kept := prev
	if !there { // what was admitted may have been deleted since
		kept, _ = r.e.before.get(p.Key)
	}
	kv := codec.KeyValue{Key: p.Key, Create: r.rev, Mod: r.rev, Version: 1, Value: p.Value, Lease: p.Lease}
	if p.IgnoreValue {
		kv.Value = kept.Value
	}
	if p.IgnoreLease {
		kv.Lease = kept.Lease
	}
	r.write(Write{Key: kv.Key, Value: kv.Value, Lease: kv.Lease})
	if there {
		kv.Create, kv.Version = prev.Create, prev.Version+1
		r.now[i] = kv
	} else {
		r.now = slices.Insert(r.now, i, kv)
	}
}

func (r *run) remove(d *codec.DeleteRangeRequest) {
	r.deleted = slices.Clone(r.now.in(d.Key, d.RangeEnd))
	if len(r.deleted) > 0 {
		from, _ := r.now.find(r.deleted[0].Key)
		r.now = slices.Delete(r.now, from, from+len(r.deleted))
	}
	for i := range r.deleted {
		r.write(Write{Delete: true, Key: r.deleted[i].Key})
	}
	r.out = codec.AppendDeleteRangeResponse(r.out, r.header(), int64(len(r.deleted)))
	r.out = r.appendPrev(r.out, d)
}

func (r *run) appendPrev(dst []byte, d *codec.DeleteRangeRequest) []byte {
	for i := range r.deleted {
		if d.PrevKV {
			dst = codec.AppendKeyValueField(dst, 3, &r.deleted[i])
		}
	}
	return dst
}

// pick runs a range request. The order of its steps is etcd's and shows: see
// package keyspace, whose twin this is.
func (r *run) pick(q *codec.RangeRequest) {
	on := r.now
	if q.Revision > 0 {
		on = r.e.at[q.Revision]
	}
	all := on.in(q.Key, q.RangeEnd)
	count := int64(len(all))
	kvs := slices.Clone(all)
	storeOrder := q.SortOrder == codec.SortNone || q.SortTarget == codec.SortByKey && q.SortOrder == codec.SortAscend
	filtered := q.MinModRevision != 0 || q.MaxModRevision != 0 || q.MinCreateRevision != 0 || q.MaxCreateRevision != 0
	switch {
	case q.CountOnly:
		kvs = nil
	case q.Limit > 0 && storeOrder && !filtered && q.Limit < count:
		kvs = kvs[:q.Limit+1]
	}
	kvs = slices.DeleteFunc(kvs, func(kv codec.KeyValue) bool {
		return q.MaxModRevision != 0 && kv.Mod > q.MaxModRevision || q.MinModRevision != 0 && kv.Mod < q.MinModRevision ||
			q.MaxCreateRevision != 0 && kv.Create > q.MaxCreateRevision || q.MinCreateRevision != 0 && kv.Create < q.MinCreateRevision
	})
	order(kvs, q)
	more := q.Limit > 0 && int64(len(kvs)) > q.Limit
	if more {
		kvs = kvs[:q.Limit]
	}
	r.out = codec.AppendHeader(r.out, 1, r.header())
	for i := range kvs {
		kv := kvs[i]
		if q.KeysOnly {
			kv.Value = nil
			if q.SortTarget != codec.SortByValue {
				kv.Lease = 0
			}
		}
		r.out = codec.AppendKeyValueField(r.out, 2, &kv)
	}
	r.out = codec.AppendRangeTail(r.out, more, count)
}

// order sorts as etcd does, with its unstable sort.
func order(kvs []codec.KeyValue, q *codec.RangeRequest) {
	var less func(a, b *codec.KeyValue) bool
	switch q.SortTarget {
	case codec.SortByKey:
		less = func(a, b *codec.KeyValue) bool { return bytes.Compare(a.Key, b.Key) < 0 }
	case codec.SortByVersion:
		less = func(a, b *codec.KeyValue) bool { return a.Version < b.Version }
	case codec.SortByCreate:
		less = func(a, b *codec.KeyValue) bool { return a.Create < b.Create }
	case codec.SortByMod:
		less = func(a, b *codec.KeyValue) bool { return a.Mod < b.Mod }
	case codec.SortByValue:
		less = func(a, b *codec.KeyValue) bool { return bytes.Compare(a.Value, b.Value) < 0 }
	}
	s := byTarget{kvs, less}
	switch {
	case less == nil || q.SortTarget == codec.SortByKey && q.SortOrder != codec.SortDescend:
	case q.SortOrder == codec.SortDescend:
		sort.Sort(sort.Reverse(s))
	case q.SortOrder == codec.SortNone || q.SortOrder == codec.SortAscend:
		sort.Sort(s)
	}
}

// byTarget sorts key-values by one field.
type byTarget struct {
	kvs  []codec.KeyValue
	less func(a, b *codec.KeyValue) bool
}

func (s byTarget) Len() int           { return len(s.kvs) }
func (s byTarget) Swap(i, j int)      { s.kvs[i], s.kvs[j] = s.kvs[j], s.kvs[i] }
func (s byTarget) Less(i, j int) bool { return s.less(&s.kvs[i], &s.kvs[j]) }
