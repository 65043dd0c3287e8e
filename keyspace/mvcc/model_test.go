package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand"
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// logEntry is one entry of a replicated log, concrete enough to be replayed.
type logEntry struct {
	txns    [][]op
	compact int64 // after the txns; zero is none
	aux     map[string]string
	auxDel  string
	state   string
}

type op struct {
	kind       byte // 'p'ut, 'd'elete, 'r'ange delete
	key, other string
	lease      int64
}

// model is a segment as a list of everything that ever happened.
type model struct {
	events             []modelEvent
	current, compacted int64
	applied            uint64
	aux                map[string]string
	state              string
}

type modelEvent struct {
	main, sub           int64
	key, val            string
	lease               int64
	del                 bool
	create, prior, vers int64
}

func newModel() *model { return &model{current: 1, compacted: -1, aux: map[string]string{}} }

func (m *model) at(key string, rev int64) (modelEvent, bool) {
	for i := len(m.events) - 1; i >= 0; i-- {
		if e := m.events[i]; e.key == key && e.main <= rev {
			return e, !e.del
		}
	}
	return modelEvent{}, false
}

func (m *model) live(start, end string, rev int64) (out []modelEvent) {
	keys := map[string]bool{}
	for _, e := range m.events {
		keys[e.key] = true
	}
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		if e, ok := m.at(k, rev); ok && k >= start && (end == "" || k < end) {
			out = append(out, e)
		}
	}
	return out
}

func (m *model) apply(e logEntry) {
	m.applied++
	for _, txn := range e.txns {
		main, sub := m.current+1, int64(0)
		write := func(ev modelEvent) {
			ev.main, ev.sub = main, sub
			m.events = append(m.events, ev)
			m.current = main
			sub++
		}
		for _, o := range txn {
			switch o.kind {
			case 'p':
				ev := modelEvent{key: o.key, val: o.other, lease: o.lease, create: main, vers: 1}
				if prev, ok := m.at(o.key, main); ok {
					ev.create, ev.vers = prev.create, prev.vers+1
				}
				write(ev)
			case 'd':
				if _, ok := m.at(o.key, main); ok {
					write(modelEvent{key: o.key, del: true})
				}
			case 'r':
				for _, prev := range m.live(o.key, o.other, main) {
					write(modelEvent{key: prev.key, del: true})
				}
			}
		}
	}
	if e.compact != 0 && e.compact > m.compacted && e.compact <= m.current {
		m.compacted = e.compact
	}
	maps.Copy(m.aux, e.aux)
	delete(m.aux, e.auxDel)
	if e.state != "" {
		m.state = e.state
	}
}

// hash is etcd's HashKV over the model.
func (m *model) hash(rev int64) uint32 {
	sum := crc32.Update(0, castagnoli, []byte("key"))
	keepAt := rev
	if len(m.live("", "", rev)) == 0 {
		keepAt = m.compacted
	}
	for _, e := range m.events {
		if e.main > rev {
			break
		}
		if e.main <= m.compacted {
			if kept, ok := m.at(e.key, keepAt); !ok || kept.main != e.main || kept.sub != e.sub {
				continue
			}
		}
		k := binary.BigEndian.AppendUint64(nil, uint64(e.main))
		k = binary.BigEndian.AppendUint64(append(k, '_'), uint64(e.sub))
		raw := e.raw()
		if e.del {
			k = append(k, 't')
			raw, _ = appendKV(nil, []byte(e.key), nil, 0, 0, 0, 0)
		}
		sum = crc32.Update(crc32.Update(sum, castagnoli, k), castagnoli, raw)
	}
	return sum
}

func (e modelEvent) raw() []byte {
	raw, _ := appendKV(nil, []byte(e.key), []byte(e.val), e.create, e.main, e.vers, e.lease)
	return raw
}

// generate draws the next entry. Keys begin with prefix and end with a digit pair.
func (m *model) generate(rng *rand.Rand, prefix string) logEntry {
	key := func() string { return fmt.Sprintf("%s%02d", prefix, rng.Intn(25)) }
	var e logEntry
	for range rng.Intn(4) {
		used := map[string]bool{}
		var txn []op
		for range 1 + rng.Intn(3) {
			k := key()
			switch r := rng.Intn(10); {
			case used[k]:
			case r < 7:
				size := []int{0, 10, 300, 2000}[rng.Intn(4)]
				val := string(bytes.Repeat([]byte{byte('a' + rng.Intn(26))}, size))
				txn = append(txn, op{kind: 'p', key: k, other: val, lease: int64(rng.Intn(3)) * 1001})
			case r < 9:
				txn = append(txn, op{kind: 'd', key: k})
			case len(used) == 0:
				txn = append(txn, op{kind: 'r', key: k, other: k + "~"})
			}
			used[k] = true
		}
		e.txns = append(e.txns, txn)
	}
	if rng.Intn(12) == 0 {
		e.compact = max(1, m.current-int64(rng.Intn(12)))
	}
	if rng.Intn(5) == 0 {
		e.aux = map[string]string{fmt.Sprint("lease", rng.Intn(6)): fmt.Sprint(m.applied)}
		e.auxDel = fmt.Sprint("lease", rng.Intn(6))
		if e.aux[e.auxDel] != "" {
			e.auxDel = ""
		}
	}
	if rng.Intn(9) == 0 {
		e.state = fmt.Sprint("state ", m.applied)
	}
	return e
}

// applyTo replays an entry on a segment.
func (e logEntry) applyTo(g *Segment, index uint64) {
	b := g.Begin(index, 1+index/10)
	for _, ops := range e.txns {
		t := b.Txn()
		for _, o := range ops {
			switch o.kind {
			case 'p':
				t.Put([]byte(o.key), []byte(o.other), o.lease)
			case 'd':
				t.Delete([]byte(o.key))
			case 'r':
				t.DeleteRange([]byte(o.key), []byte(o.other))
			}
		}
		t.End()
	}
	if e.compact != 0 {
		b.Compact(e.compact)
	}
	for k, v := range e.aux {
		b.PutAux("leases", []byte(k), []byte(v))
	}
	if e.auxDel != "" {
		b.DeleteAux("leases", []byte(e.auxDel))
	}
	if e.state != "" {
		b.SetState([]byte(e.state))
	}
	b.End()
}

// check compares everything that a segment answers with the model.
func (m *model) check(t *testing.T, g *Segment, rng *rand.Rand, prefix string) {
	t.Helper()
	if cur, comp := g.Revision(); cur != m.current || comp != m.compacted {
		t.Fatalf("revision %d, compacted %d, want %d, %d", cur, comp, m.current, m.compacted)
	}
	if idx, _ := g.Applied(); idx != m.applied || string(g.Meta().State) != m.state {
		t.Fatalf("applied %d in state %q, want %d in %q", idx, g.Meta().State, m.applied, m.state)
	}
	aux := map[string]string{}
	g.ForEachAux("leases", func(k, v []byte) { aux[string(k)] = string(v) })
	if !maps.Equal(aux, m.aux) {
		t.Fatalf("aux %v, want %v", aux, m.aux)
	}
	v := g.Read()
	defer v.Close()
	for range 4 {
		m.checkRange(t, v.Range, rng, prefix)
	}
	m.checkHistory(t, g, rng, prefix)
	rev := m.compacted + rng.Int63n(m.current-m.compacted+1)
	if rev > 0 {
		if got, comp, at, err := g.Hash(rev); err != nil || got != m.hash(rev) || comp != m.compacted || at != rev {
			t.Fatalf("Hash(%d) = %08x %d %d %v, want %08x %d", rev, got, comp, at, err, m.hash(rev), m.compacted)
		}
	}
}

type rangeFunc func(key, end []byte, atRev, limit int64, countOnly bool) (Result, error)

func (m *model) checkRange(t *testing.T, read rangeFunc, rng *rand.Rand, prefix string) {
	t.Helper()
	rev := m.current + 1 - rng.Int63n(min(m.current-max(m.compacted, 0), 40)+2)
	start, end := fmt.Sprintf("%s%02d", prefix, rng.Intn(25)), fmt.Sprintf("%s%02d", prefix, rng.Intn(26))
	stop := end
	switch rng.Intn(4) {
	case 0:
		end, stop = "", start+"\x00"
	case 1:
		end, stop = "\x00", ""
	}
	limit, countOnly := rng.Int63n(4), rng.Intn(4) == 0
	res, err := read([]byte(start), []byte(end), rev, limit, countOnly)
	switch {
	case rev > m.current:
		if !errors.Is(err, ErrFutureRev) {
			t.Fatalf("range at %d of %d: %v", rev, m.current, err)
		}
		return
	case rev > 0 && rev < m.compacted:
		if !errors.Is(err, ErrCompacted) {
			t.Fatalf("range at %d, compacted %d: %v", rev, m.compacted, err)
		}
		return
	case err != nil:
		t.Fatalf("range at %d: %v", rev, err)
	}
	if rev <= 0 {
		rev = m.current
	}
	want := m.live(start, stop, rev)
	if res.Count != int64(len(want)) {
		t.Fatalf("range %s..%s at %d counts %d, want %d", start, stop, rev, res.Count, len(want))
	}
	if limit > 0 {
		want = want[:min(int(limit), len(want))]
	}
	if countOnly {
		want = nil
	}
	if len(res.KVs) != len(want) {
		t.Fatalf("range %s..%s at %d limit %d: %d keys, want %d", start, stop, rev, limit, len(res.KVs), len(want))
	}
	for i, kv := range res.KVs {
		e := want[i]
		if !bytes.Equal(kv.Raw, e.raw()) || string(kv.Key) != e.key || string(kv.Value()) != e.val ||
			kv.Create != e.create || kv.Mod != e.main || kv.Version != e.vers || kv.Lease != e.lease {
			t.Fatalf("range at %d: got %q %+v, want %+v", rev, kv.Raw, kv, e)
		}
	}
}

func (m *model) checkHistory(t *testing.T, g *Segment, rng *rand.Rand, prefix string) {
	t.Helper()
	r := anchormesh.KeyRange{Start: fmt.Appendf(nil, "%s%02d", prefix, rng.Intn(25)), End: []byte(prefix + "99")}
	if rng.Intn(2) == 0 {
		r = anchormesh.RequestRange(r.Start, nil)
	}
	from := max(1, m.current+2-rng.Int63n(min(m.current-max(m.compacted, 0), 60)+3))
	if from < m.compacted {
		if _, _, err := g.History(from, 0, r, 100); !errors.Is(err, ErrCompacted) {
			t.Fatalf("history from %d, compacted %d: %v", from, m.compacted, err)
		}
		return
	}
	to := from + rng.Int63n(30)
	var want []modelEvent
	for _, e := range m.events {
		if e.main >= from && e.main <= to && r.Contains([]byte(e.key)) {
			want = append(want, e)
		}
	}
	var got []Event
	for next := from; next <= min(to, m.current); {
		events, n, err := g.History(next, to, r, rng.Intn(1000))
		if err != nil || n <= next {
			t.Fatalf("history %d..%d from %d goes on at %d: %v", from, to, next, n, err)
		}
		if len(events) > 0 && len(got) > 0 && events[0].Main == got[len(got)-1].Main {
			t.Fatalf("history cuts revision %d", events[0].Main)
		}
		got, next = append(got, events...), n
	}
	if len(got) != len(want) {
		t.Fatalf("history %d..%d of %s has %d events, want %d", from, to, r, len(got), len(want))
	}
	for i, e := range got {
		m.checkEvent(t, g, e, want[i])
	}
}

func (m *model) checkEvent(t *testing.T, g *Segment, e Event, w modelEvent) {
	t.Helper()
	if e.Main != w.main || e.Sub != w.sub || e.Delete != w.del || string(e.KV.Key) != w.key || e.KV.Mod != w.main {
		t.Fatalf("event %+v, want %+v", e, w)
	}
	if !w.del && !bytes.Equal(e.KV.Raw, w.raw()) {
		t.Fatalf("event %q, want %q", e.KV.Raw, w.raw())
	}
	prev, ok := m.at(w.key, w.main-1)
	ok = ok && w.main-1 >= m.compacted && w.main > 1
	kv, found := g.PrevKV([]byte(w.key), w.main)
	if found != ok || ok && !bytes.Equal(kv.Raw, prev.raw()) {
		t.Fatalf("PrevKV(%s, %d) = %q %v, want %+v %v", w.key, w.main, kv.Raw, found, prev, ok)
	}
}

func mustStore(t testing.TB, b bolt.Backend) *Store {
	t.Helper()
	s, err := Open(b, DefaultOptions())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustSegment(t testing.TB, s *Store, id anchormesh.SegmentID) *Segment {
	t.Helper()
	g, ok := s.Segment(id)
	if !ok {
		t.Fatalf("segment %s is not there; segments %v, absent %v", id, s.Segments(), s.Absent())
	}
	return g
}
