package mvcc

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// auxTable maps keys of the aux bucket to values that are not committed yet; nil
// is a deletion.
type auxTable map[string][]byte

// pendingAux is the write buffer of the side tables, and of Meta.State's bytes.
type pendingAux struct {
	active, frozen auxTable
	bytes          int
}

func (p *pendingAux) set(key string, val []byte) {
	if p.active == nil { // most segments write nothing here
		p.active = auxTable{}
	}
	p.active[key] = val
	p.bytes += len(key) + len(val) + entryOverhead
}

// PutAux sets a key of a side table of the segment (leases, alarms): small tables
// that are committed with the data and travel in snapshots. The name has 1 to 255
// bytes. Key and value are copied.
func (b *Batch) PutAux(table string, key, val []byte) {
	k := append(auxPrefix(b.g.id, table), key...)
	b.g.aux.set(string(k), append([]byte{}, val...))
}

// DeleteAux removes a key of a side table.
func (b *Batch) DeleteAux(table string, key []byte) {
	k := append(auxPrefix(b.g.id, table), key...)
	b.g.aux.set(string(k), nil)
}

// ForEachAux calls fn for the keys of a side table in order, as of the last ended
// batch. The slices are valid during the call only. It must not be called between
// Begin and End.
func (g *Segment) ForEachAux(table string, fn func(key, val []byte)) {
	prefix := auxPrefix(g.id, table)
	snap := g.snapshot(g.mu.RLocker())
	recent := auxTable{}
	for _, t := range []auxTable{g.aux.frozen, g.aux.active} {
		for k, v := range t {
			if strings.HasPrefix(k, string(prefix)) {
				recent[k] = v
			}
		}
	}
	gone := g.gone
	g.mu.RUnlock()
	defer snap.Release()
	if gone {
		return
	}
	mergeAux(snap.Bucket(bucketAux).Cursor(), prefix, recent, fn)
}

// mergeAux walks the stored table with the recent changes laid over it.
func mergeAux(c bolt.Cursor, prefix []byte, recent auxTable, fn func(key, val []byte)) {
	changed := slices.Sorted(maps.Keys(recent))
	emit := func(k string) {
		if v := recent[k]; v != nil {
			fn([]byte(k[len(prefix):]), v)
		}
	}
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		for len(changed) > 0 && changed[0] < string(k) {
			emit(changed[0])
			changed = changed[1:]
		}
		if len(changed) > 0 && changed[0] == string(k) {
			emit(changed[0])
			changed = changed[1:]
			continue
		}
		fn(k[len(prefix):], v)
	}
	for _, k := range changed {
		emit(k)
	}
}
