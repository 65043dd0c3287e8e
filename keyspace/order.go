package keyspace

import (
	"bytes"
	"cmp"
	"sort"

	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

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
