package mvcc

import (
	"errors"
	"io"
	"math/rand"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

var errPower = errors.New("power failed")

// failing is a backend that fails at its nth update from now and ever after: before
// the transaction, or after it took effect but before anybody heard of it.
type failing struct {
	*bolt.Memory
	left  int
	after bool
}

func (f *failing) Update(fn func(tx bolt.Tx) error) error {
	f.left--
	switch {
	case f.left > 0:
		return f.Memory.Update(fn)
	case f.left == 0 && f.after:
		if err := f.Memory.Update(fn); err != nil {
			return err
		}
	}
	return errPower
}

// A power failure at any commit, then replay from the applied index: the state is
// that of a replica that never failed.
func TestCrashAtAnyCommit(t *testing.T) {
	seeds(t, 30, func(t *testing.T, seed int64) {
		rng := rand.New(rand.NewSource(seed))
		mem := bolt.NewMemory()
		w := newWorld(t, seed, mem)
		for range 6 {
			f := &failing{Memory: mem, left: 1 + rng.Intn(12), after: rng.Intn(2) == 0}
			w.recover(f)
			for w.store.failed == nil {
				w.grow(w.someID())
				switch rng.Intn(4) {
				case 0:
					w.store.Commit()
				case 1:
					w.store.Scrub(1 + rng.Intn(10))
				}
			}
			w.check() // reads of a failed store still work
			if err := w.store.Commit(); !errors.Is(err, errPower) {
				t.Fatalf("a failed store commits: %v", err)
			}
			mem = mem.Clone()
		}
		w.recover(mem)
		w.check()
	})
}

// chunks exports a segment.
func chunks(t *testing.T, g *Segment) (out [][]byte, meta Meta) {
	t.Helper()
	e, err := g.Export()
	must(t, err)
	defer e.Close()
	for {
		c, err := e.Next()
		if errors.Is(err, io.EOF) {
			return out, e.Meta()
		}
		must(t, err)
		out = append(out, c)
	}
}

// An install that dies at any of its transactions leaves the old segment, or none,
// or the new one; what came before does not shine through, and the other segment
// of the store is not touched.
func TestCrashDuringInstall(t *testing.T) {
	seeds(t, 5, func(t *testing.T, seed int64) {
		source := newWorld(t, seed, bolt.NewMemory())
		target := newWorld(t, seed+1, bolt.NewMemory())
		for range 60 {
			source.grow(1)
			target.grow(1)
			target.grow(2)
		}
		must(t, source.store.Commit())
		must(t, target.store.Commit())
		snapshot, meta := chunks(t, mustSegment(t, source.store, 1))
		for n := 1; ; n++ {
			f := &failing{Memory: target.store.backend.(*bolt.Memory).Clone(), left: n, after: n%2 == 0}
			err := install(mustStore(t, f), 1, snapshot, meta)
			s := mustStore(t, f.Memory.Clone())
			target.models[2].check(t, mustSegment(t, s, 2), target.rng, "b")
			switch g, there := s.Segment(1); {
			case !there:
				if len(s.Absent()) != 1 || s.Absent()[0] != 1 {
					t.Fatalf("seed %d: absent are %v", seed, s.Absent())
				}
				must(t, install(s, 1, snapshot, meta))
				source.models[1].check(t, mustSegment(t, s, 1), source.rng, "a")
			case n == 1 && !f.after:
				target.models[1].check(t, g, target.rng, "a")
			default:
				source.models[1].check(t, g, source.rng, "a")
			}
			if err == nil {
				return
			}
		}
	})
}

func install(s *Store, id anchormesh.SegmentID, snapshot [][]byte, meta Meta) error {
	i, err := s.Install(id, worldRange(id))
	if err != nil {
		return err
	}
	for _, c := range snapshot {
		if err := i.Add(c); err != nil {
			return err
		}
	}
	_, err = i.Finish(meta)
	return err
}

// A removal that dies leaves the segment whole or absent, never in part; repeated
// it leaves nothing.
func TestCrashDuringRemove(t *testing.T) {
	w := newWorld(t, 7, bolt.NewMemory())
	for range 80 {
		w.grow(1)
		w.grow(2)
	}
	must(t, w.store.Commit())
	for n := 1; ; n++ {
		f := &failing{Memory: w.store.backend.(*bolt.Memory).Clone(), left: n}
		err := mustStore(t, f).Remove(1)
		s := mustStore(t, f.Memory.Clone())
		w.models[2].check(t, mustSegment(t, s, 2), w.rng, "b")
		if g, there := s.Segment(1); there {
			w.models[1].check(t, g, w.rng, "a")
		}
		if err == nil {
			if len(s.Segments()) != 1 || len(s.Absent()) != 0 {
				t.Fatalf("after a removal: %v, absent %v", s.Segments(), s.Absent())
			}
			must(t, s.Remove(2))
			if _, used := s.SizeBytes(); used > 20 {
				t.Fatalf("%d bytes left by nobody", used)
			}
			return
		}
		if _, err := s.Create(9, worldRange(1), Meta{}); !errors.Is(err, ErrOverlap) {
			t.Fatalf("a segment was created over waste: %v", err)
		}
		must(t, s.Remove(1))
		_, err = s.Create(1, worldRange(1), Meta{})
		must(t, err)
	}
}
