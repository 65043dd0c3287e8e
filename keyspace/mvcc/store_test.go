package mvcc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

func newSegmentOf(t testing.TB, rng anchormesh.KeyRange) (*Store, *Segment) {
	t.Helper()
	s := mustStore(t, bolt.NewMemory())
	g, err := s.Create(1, rng, Meta{})
	must(t, err)
	return s, g
}

// putAll applies one entry with one transaction a pair.
func putAll(g *Segment, kvs ...string) {
	index, _ := g.Applied()
	b := g.Begin(index+1, 1)
	for i := 0; i < len(kvs); i += 2 {
		x := b.Txn()
		x.Put([]byte(kvs[i]), []byte(kvs[i+1]), 0)
		x.End()
	}
	b.End()
}

func TestRevisionsOfTransactions(t *testing.T) {
	_, g := newSegmentOf(t, anchormesh.KeyRange{})
	if cur, comp := g.Revision(); cur != 1 || comp != -1 {
		t.Fatalf("an empty segment is at %d, compacted %d", cur, comp)
	}
	b := g.Begin(1, 1)
	x := b.Txn()
	if x.Delete([]byte("missing")) || x.DeleteRange([]byte("a"), []byte{0}) != 0 || x.Changed() || x.End() != 1 {
		t.Fatal("deleting nothing took a revision")
	}
	x = b.Txn()
	if m := x.Put([]byte("a"), nil, 0); m != (Revision{2, 0}) || x.Rev() != 2 {
		t.Fatalf("first write is %v", m)
	}
	if m := x.Put([]byte("b"), nil, 0); m != (Revision{2, 1}) {
		t.Fatalf("second write is %v", m)
	}
	res, err := x.Range([]byte("a"), []byte{0}, 0, 0, false)
	if err != nil || res.Count != 2 {
		t.Fatalf("a transaction does not see its writes: %+v %v", res, err)
	}
	if _, err := x.Range([]byte("a"), nil, 3, 0, false); !errors.Is(err, ErrFutureRev) {
		t.Fatalf("got %v", err)
	}
	if res, _ := x.Range([]byte("a"), nil, 1, 0, false); res.Count != 0 {
		t.Fatal("the past has changed")
	}
	if x.End() != 2 {
		t.Fatal("revision did not move by one")
	}
	if _, err := b.TxnAt(2); !errors.Is(err, ErrRevisionOrder) {
		t.Fatalf("got %v", err)
	}
	x, err = b.TxnAt(100)
	must(t, err)
	x.Put([]byte("a"), []byte("v"), 5)
	if x.End() != 100 {
		t.Fatal("the assigned revision was not taken")
	}
	if create, mod, version, ok := b.Txn().Stat([]byte("a")); create != 2 || mod != 100 || version != 2 || !ok {
		t.Fatalf("Stat says %d %d %d %v", create, mod, version, ok)
	}
	b.txn.End()
	b.Raise(7)
	b.Raise(120)
	b.End()
	if cur, _ := g.Revision(); cur != 120 {
		t.Fatalf("raised to %d", cur)
	}
}

func TestCompactErrors(t *testing.T) {
	_, g := newSegmentOf(t, anchormesh.KeyRange{})
	putAll(g, "a", "1", "a", "2", "a", "3")
	b := g.Begin(2, 1)
	for _, c := range []struct {
		rev  int64
		want error
	}{{-1, ErrCompacted}, {5, ErrFutureRev}, {3, nil}, {3, ErrCompacted}, {2, ErrCompacted}, {4, nil}} {
		if err := b.Compact(c.rev); !errors.Is(err, c.want) {
			t.Fatalf("Compact(%d): %v, want %v", c.rev, err, c.want)
		}
	}
	b.End()
}

// A view answers the same while the world changes under it, and holds off the
// scrub that would take its revisions.
func TestViewStandsStill(t *testing.T) {
	s, g := newSegmentOf(t, anchormesh.KeyRange{})
	putAll(g, "a", "old", "b", "old")
	v := g.Read()
	want, err := v.Range([]byte("a"), []byte{0}, 0, 0, false)
	must(t, err)
	must(t, s.Commit())
	putAll(g, "a", "new", "b", "new", "c", "new")
	b := g.Begin(3, 1)
	must(t, b.Compact(6))
	b.End()
	must(t, s.Commit())
	if more, err := s.Scrub(100); more || err != nil {
		t.Fatalf("scrubbed under an old view: %v %v", more, err)
	}
	got, err := v.Range([]byte("a"), []byte{0}, 0, 0, false)
	must(t, err)
	if len(got.KVs) != 2 || !bytes.Equal(got.KVs[0].Raw, want.KVs[0].Raw) || string(got.KVs[1].Value()) != "old" {
		t.Fatalf("the view moved: %+v", got)
	}
	v.Close()
	if _, err := s.Scrub(100); err != nil || g.durable.Load().scrubbed != 6 {
		t.Fatalf("no scrub after the view closed: %v", err)
	}
}

func TestGoneSegment(t *testing.T) {
	s, g := newSegmentOf(t, anchormesh.KeyRange{})
	putAll(g, "a", "1")
	must(t, s.Commit())
	old := g.Read()
	must(t, s.Remove(1))
	if res, err := old.Range([]byte("a"), nil, 0, 0, false); err != nil || string(res.KVs[0].Value()) != "1" {
		t.Fatalf("a view died with its segment: %+v %v", res, err)
	}
	old.Close()
	v := g.Read()
	defer v.Close()
	_, err := v.Range([]byte("a"), nil, 0, 0, false)
	_, _, herr := g.History(1, 0, anchormesh.KeyRange{}, 1)
	_, _, _, sumErr := g.Hash(0)
	_, xerr := g.Export()
	_, found := g.PrevKV([]byte("a"), 9)
	for _, err := range []error{err, herr, sumErr, xerr} {
		if !errors.Is(err, ErrGone) || found {
			t.Fatalf("got %v", err)
		}
	}
	if err := s.Remove(1); !errors.Is(err, ErrUnknown) {
		t.Fatalf("removed twice: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Fatal("applied to a segment that is gone")
		}
	}()
	g.Begin(100, 1)
}

func TestCreateRefusesOverlap(t *testing.T) {
	s, _ := newSegmentOf(t, anchormesh.KeyRange{Start: []byte("c"), End: []byte("f")})
	for _, c := range []struct {
		id   anchormesh.SegmentID
		rng  anchormesh.KeyRange
		want error
	}{
		{1, anchormesh.KeyRange{Start: []byte("x")}, ErrExists},
		{2, anchormesh.KeyRange{Start: []byte("e")}, ErrOverlap},
		{2, anchormesh.KeyRange{}, ErrOverlap},
		{2, anchormesh.KeyRange{Start: []byte("f")}, nil},
		{3, anchormesh.KeyRange{End: []byte("c")}, nil},
	} {
		if _, err := s.Create(c.id, c.rng, Meta{}); !errors.Is(err, c.want) {
			t.Fatalf("Create(%d, %s): %v, want %v", c.id, c.rng, err, c.want)
		}
	}
	if got := s.Segments(); !slices.Equal(got, []anchormesh.SegmentID{1, 2, 3}) {
		t.Fatalf("segments %v", got)
	}
}

// An install retires what lies in its range under other names, and refuses what
// lies there in part.
func TestInstallOverOthers(t *testing.T) {
	source, g := newSegmentOf(t, anchormesh.KeyRange{Start: []byte("a"), End: []byte("m")})
	putAll(g, "b", "new", "h", "new")
	must(t, source.Commit())
	snapshot, meta := chunks(t, g)

	s := mustStore(t, bolt.NewMemory())
	left, err := s.Create(8, anchormesh.KeyRange{Start: []byte("a"), End: []byte("f")}, Meta{})
	must(t, err)
	right, err := s.Create(9, anchormesh.KeyRange{Start: []byte("k"), End: []byte("z")}, Meta{})
	must(t, err)
	putAll(left, "c", "old")
	putAll(right, "p", "stays")
	must(t, s.Commit())
	if _, err := s.Install(1, g.KeyRange()); !errors.Is(err, ErrOverlap) {
		t.Fatalf("got %v", err)
	}
	must(t, s.Remove(9))
	i, err := s.Install(1, g.KeyRange())
	must(t, err)
	if _, err := s.Install(2, anchormesh.KeyRange{Start: []byte("c")}); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	if err := s.Remove(1); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	for _, c := range snapshot {
		must(t, i.Add(c))
	}
	got, err := i.Finish(meta)
	must(t, err)
	if len(s.Segments()) != 1 || len(s.Absent()) != 0 {
		t.Fatalf("segments %v, absent %v", s.Segments(), s.Absent())
	}
	h1, _, _, err := g.Hash(0)
	must(t, err)
	if h2, _, _, err := got.Hash(0); err != nil || h1 != h2 {
		t.Fatalf("hashes %x and %x, %v", h1, h2, err)
	}
}

// A segment whose install was cut short stays absent when another one takes its keys: it
// is known, whatever becomes of the other, and can be installed again beside it.
func TestInstallOverAbsentOnes(t *testing.T) {
	source, g := newSegmentOf(t, anchormesh.KeyRange{Start: []byte("a"), End: []byte("m")})
	putAll(g, "b", "new")
	must(t, source.Commit())
	snapshot, meta := chunks(t, g)
	backend := bolt.NewMemory()
	s := mustStore(t, backend)
	cut, err := s.Install(8, anchormesh.KeyRange{Start: []byte("c")})
	must(t, err)
	cut.Abort()
	other, err := s.Install(1, g.KeyRange())
	must(t, err)
	for _, c := range snapshot {
		must(t, other.Add(c))
	}
	_, err = other.Finish(meta)
	must(t, err)
	for range 2 {
		if !slices.Equal(s.Segments(), []anchormesh.SegmentID{1}) || !slices.Equal(s.Absent(), []anchormesh.SegmentID{8}) {
			t.Fatalf("segments %v, absent %v", s.Segments(), s.Absent())
		}
		s = mustStore(t, backend)
	}
	again, err := s.Install(8, anchormesh.KeyRange{Start: []byte("m")})
	must(t, err)
	again.Abort()
	must(t, s.Remove(8))
	if len(s.Segments()) != 1 || len(s.Absent()) != 0 {
		t.Fatalf("segments %v, absent %v", s.Segments(), s.Absent())
	}
}

func TestInstallRefusesBadSnapshots(t *testing.T) {
	source, g := newSegmentOf(t, worldRange(1))
	putAll(g, "a1", strings.Repeat("x", 50000), "a2", strings.Repeat("y", 100000), "a3", strings.Repeat("z", 40000))
	b := g.Begin(2, 1)
	b.PutAux("t", []byte("k"), []byte("v"))
	b.End()
	must(t, source.Commit())
	snapshot, meta := chunks(t, g)
	if len(snapshot) != 3 {
		t.Fatalf("%d chunks", len(snapshot))
	}
	flip := slices.Clone(snapshot)
	flip[1] = bytes.Clone(flip[1])
	flip[1][777] ^= 1
	swapped := slices.Clone(snapshot)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	late := meta
	late.Applied++
	for name, c := range map[string]struct {
		chunks [][]byte
		meta   Meta
		id     anchormesh.SegmentID
	}{
		"whole": {snapshot, meta, 1}, "cut": {snapshot[:2], meta, 1}, "gap": {[][]byte{snapshot[0], snapshot[2]}, meta, 1},
		"flipped": {flip, meta, 1}, "swapped": {swapped, meta, 1}, "twice": {append(slices.Clone(snapshot), snapshot...), meta, 1},
		"other index": {snapshot, late, 1}, "other segment": {snapshot, meta, 2}, "nothing": {nil, meta, 1},
	} {
		s := mustStore(t, bolt.NewMemory())
		err := install(s, c.id, c.chunks, c.meta)
		if _, there := s.Segment(c.id); there != (name == "whole") || !there && !errors.Is(err, ErrBadSnapshot) {
			t.Errorf("%s: present %v, %v", name, there, err)
		}
	}
}

func FuzzInstallAnyChunk(f *testing.F) {
	source, g := newSegmentOf(f, worldRange(1))
	putAll(g, "a1", "x", "a2", "y")
	must(f, source.Commit())
	e, _ := g.Export()
	c, _ := e.Next()
	e.Close()
	f.Add(c[4:])
	f.Add([]byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, body []byte) {
		s := mustStore(t, bolt.NewMemory())
		i, err := s.Install(1, worldRange(1))
		must(t, err)
		chunk := append(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...)
		if i.Add(chunk) == nil && i.complete {
			g, err := i.Finish(i.header.Meta)
			must(t, err)
			g.Hash(0)
			mustStore(t, s.backend)
		}
	})
}

func TestUnknownFormatIsRefused(t *testing.T) {
	for name, set := range map[string]func(tx bolt.Tx) error{
		"version": func(tx bolt.Tx) error {
			b, _ := tx.Bucket(bucketFormat)
			return b.Put([]byte(keyFormat), []byte{9})
		},
		"data without version": func(tx bolt.Tx) error {
			b, _ := tx.Bucket(bucketRevisions)
			return b.Put([]byte("x"), []byte("y"))
		},
	} {
		mem := bolt.NewMemory()
		must(t, mem.Update(set))
		if _, err := Open(mem, DefaultOptions()); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCorruptStoreIsRefused(t *testing.T) {
	s, g := newSegmentOf(t, worldRange(1))
	putAll(g, "a1", "x")
	must(t, s.Commit())
	key := origins{1}.appendRevKey(nil, revisionOf(&entry{main: 2}), false)
	foreign, _ := appendKV(nil, []byte("zzz"), nil, 2, 2, 1, 0)
	future, _ := appendKV(nil, []byte("a1"), nil, 9, 9, 1, 0)
	for name, set := range map[string][2][]byte{
		"foreign key":     {key, foreign},
		"future":          {origins{1}.appendRevKey(nil, revisionOf(&entry{main: 9}), false), future},
		"bad value":       {key, []byte{0xff, 0xff}},
		"bad key":         {[]byte("short"), foreign},
		"wrong tombstone": {append(bytes.Clone(key), 't'), foreign},
	} {
		mem := s.backend.(*bolt.Memory).Clone()
		must(t, mem.Update(func(tx bolt.Tx) error {
			b, _ := tx.Bucket(bucketRevisions)
			return b.Put(set[0], set[1])
		}))
		if _, err := Open(mem, DefaultOptions()); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The disk format, byte by byte.
func TestFormatIsPinned(t *testing.T) {
	o := origins{0x0102030405060708, 0x1112131415161718}
	mod := revisionOf(&entry{main: 0x2122, sub: 3})
	mod.Sub |= 1 << 32
	if got := fmt.Sprintf("%x", o.appendRevKey(nil, mod, true)); got != "0000000000002122"+"00000003"+"1112131415161718"+"74" {
		t.Errorf("revision key %s", got)
	}
	r := record{position: position{Meta: Meta{Applied: 5, Term: 300, State: []byte("st")}, current: 9, compacted: -1, scrubbed: -1,
		rng: anchormesh.KeyRange{Start: []byte("a")}}, absent: true, clear: []anchormesh.KeyRange{{End: []byte("b")}}}
	if got := fmt.Sprintf("%x", r.encode()); got != "01"+"05"+"ac02"+"09"+"00"+"00"+"0161"+"00"+"027374"+"01"+"00"+"0162" {
		t.Errorf("segment record %s", got)
	}
	if got := fmt.Sprintf("%x", auxPrefix(7, "abc")); got != "0000000000000007"+"03"+"616263" {
		t.Errorf("aux key %s", got)
	}
	if bucketFormat+bucketSegments+bucketAux+bucketRevisions+keyFormat != "formatsegmentsauxrevisionsversion" || formatVersion != 1 {
		t.Error("a name of the format changed")
	}
}

// Apply stops at the hard limit and goes on with the commit.
func TestPendingLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(bolt.NewMemory(), Options{CommitBytes: 1 << 10, MaxPendingBytes: 4 << 10})
		must(t, err)
		g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
		must(t, err)
		applied := 0
		go func() {
			for applied < 100 {
				putAll(g, "k", strings.Repeat("v", 500))
				applied++
			}
		}()
		synctest.Wait()
		select {
		case <-s.Wanted():
		default:
			t.Fatal("nobody asked for a commit")
		}
		if applied > 10 {
			t.Fatalf("%d entries of 500 bytes went through a limit of 4 KiB", applied)
		}
		for rounds := 0; applied < 100; rounds++ {
			if s.Pending() < 4<<10 || s.Pending() > 6<<10 || rounds > 50 {
				t.Fatalf("apply waits at %d pending bytes, %d entries, round %d", s.Pending(), applied, rounds)
			}
			must(t, s.Commit())
			synctest.Wait()
		}
	})
}

// recorder checks that events come in order, complete, and after readers see them.
type recorder struct {
	t      *testing.T
	g      *Segment
	mu     sync.Mutex
	events []Event
}

func (r *recorder) Publish(events []Event, rev int64) {
	if cur, _ := r.g.Revision(); cur != rev || events[len(events)-1].Main > rev {
		r.t.Errorf("published revision %d, readers see %d", rev, cur)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, events...)
}

func TestPublishedIsHistory(t *testing.T) {
	seeds(t, 5, func(t *testing.T, seed int64) {
		w := newWorld(t, seed, bolt.NewMemory())
		g := mustSegment(t, w.store, 1)
		rec := &recorder{t: t, g: g}
		g.SetPublisher(rec)
		for range 100 {
			w.grow(1)
		}
		m := w.models[1]
		if len(rec.events) != len(m.events) {
			t.Fatalf("%d events, want %d", len(rec.events), len(m.events))
		}
		m.compacted = 1 << 40 // no previous values here
		for i, e := range rec.events {
			if w := m.events[i]; e.Main != w.main || e.Sub != w.sub || e.Delete != w.del || string(e.KV.Key) != w.key ||
				!w.del && (!bytes.Equal(e.KV.Raw, w.raw()) || string(e.KV.Value()) != w.val || e.KV.Lease != w.lease) {
				t.Fatalf("event %+v, want %+v", e, w)
			}
			if kv, ok := parseKV(e.KV.Raw); !ok || kv.Mod != e.Main || !bytes.Equal(kv.Key, e.KV.Key) {
				t.Fatalf("event's bytes say %+v", kv)
			}
		}
	})
}

// Marks part the live keys into equal numbers, whatever died between them.
func TestMarks(t *testing.T) {
	_, g := newSegmentOf(t, anchormesh.KeyRange{})
	if g.Keys() != 0 || g.Marks(15) != nil {
		t.Errorf("an empty segment has %d keys, marks %q", g.Keys(), g.Marks(15))
	}
	for i := range 3200 {
		putAll(g, fmt.Sprintf("k%04d", i), "v")
	}
	index, _ := g.Applied()
	b := g.Begin(index+1, 1)
	x := b.Txn()
	x.DeleteRange([]byte("k1600"), []byte("k3184"))
	x.End()
	b.End()
	if n := g.Keys(); n != 3200 {
		t.Errorf("%d keys, 3200 were written", n)
	}
	marks := g.Marks(15)
	if len(marks) != 8 { // 1616 live ones, a mark each 200
		t.Fatalf("marks %q", marks)
	}
	for i, m := range marks {
		want := fmt.Sprintf("k%04d", 200*(i+1)-1)
		if string(m) != want {
			t.Errorf("mark %d is %s, want %s", i, m, want)
		}
	}
	putAll(g, "a", "v")
	if few := g.Marks(3); len(few) != 2 || string(few[0]) != "k0798" {
		t.Errorf("three marks: %q", few)
	}
}
