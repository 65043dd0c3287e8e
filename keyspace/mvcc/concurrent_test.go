package mvcc

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/bolt"
)

// pairs is a segment in which every batch writes one value to all of a few keys, in
// two transactions: whoever sees two values in one view saw half a batch.
type pairs struct {
	t    *testing.T
	s    *Store
	g    *Segment
	done chan struct{}
	wg   sync.WaitGroup
}

var pairKeys = []string{"k1", "k2", "k3", "k4"}

func (p *pairs) until(f func(rng *rand.Rand)) {
	p.wg.Go(func() {
		rng := rand.New(rand.NewSource(1))
		for {
			select {
			case <-p.done:
				return
			default:
				f(rng)
			}
		}
	})
}

func (p *pairs) apply(index uint64, rng *rand.Rand) {
	b := p.g.Begin(index, 1)
	val := fmt.Appendf(nil, "%d", index)
	for _, keys := range [][]string{pairKeys[:2], pairKeys[2:]} {
		x := b.Txn()
		for _, k := range keys {
			x.Put([]byte(k), val, 0)
		}
		x.End()
	}
	if index%8 == 0 {
		b.Compact(p.g.head.current - int64(rng.Intn(20)))
	}
	b.End()
}

func (p *pairs) readNow(*rand.Rand) {
	v := p.g.Read()
	defer v.Close()
	res, err := v.Range([]byte("k"), []byte("l"), 0, 0, false)
	if err != nil || len(res.KVs) != 0 && len(res.KVs) != len(pairKeys) {
		p.t.Errorf("%d keys, %v", len(res.KVs), err)
		return
	}
	for i := range res.KVs {
		if !bytes.Equal(res.KVs[i].Value(), res.KVs[0].Value()) {
			p.t.Errorf("half a batch: %q and %q", res.KVs[i].Value(), res.KVs[0].Value())
		}
	}
}

func (p *pairs) readPast(rng *rand.Rand) {
	v := p.g.Read()
	defer v.Close()
	rev := max(1, v.Compacted(), v.Rev()-rng.Int63n(30))
	a, err := v.Range([]byte("k1"), []byte("k3"), rev, 0, false)
	if err != nil {
		p.t.Errorf("range at %d of %d, compacted %d: %v", rev, v.Rev(), v.Compacted(), err)
		return
	}
	for _, kv := range a.KVs {
		if kv.Mod > rev || !bytes.Equal(kv.Value(), a.KVs[0].Value()) {
			p.t.Errorf("at %d: %q modified at %d", rev, kv.Value(), kv.Mod)
		}
	}
}

// follow reads history as a watch does, and misses nothing.
func (p *pairs) follow() func(*rand.Rand) {
	next, last := int64(2), Revision{}
	return func(*rand.Rand) {
		events, n, err := p.g.History(next, 0, anchormesh.KeyRange{}, 500)
		if errors.Is(err, ErrCompacted) {
			_, next = p.g.Revision()
			last = Revision{}
			return
		}
		if err != nil {
			p.t.Errorf("history from %d: %v", next, err)
			return
		}
		for _, e := range events {
			follows := e.Main == last.Main && e.Sub == last.Sub+1 || e.Main == last.Main+1 && e.Sub == 0
			if last != (Revision{}) && !follows {
				p.t.Errorf("event %d.%d after %d.%d", e.Main, e.Sub, last.Main, last.Sub)
			}
			last = Revision{e.Main, e.Sub}
		}
		next = n
	}
}

func (p *pairs) commit(*rand.Rand) {
	if err := p.s.Commit(); err != nil {
		p.t.Error(err)
	}
}

func (p *pairs) scrub(rng *rand.Rand) {
	if _, err := p.s.Scrub(1 + rng.Intn(50)); err != nil {
		p.t.Error(err)
	}
}

func (p *pairs) hash(*rand.Rand) {
	a, compA, rev, err := p.g.Hash(0)
	b, compB, _, err2 := p.g.Hash(rev)
	if err != nil || err2 != nil && !errors.Is(err2, ErrCompacted) {
		p.t.Errorf("hash: %v, %v", err, err2)
	}
	if compA == compB && a != b {
		p.t.Errorf("two hashes of revision %d: %x and %x", rev, a, b)
	}
}

func TestEverybodyAtOnce(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) bolt.Backend{
		"memory": func(*testing.T) bolt.Backend { return bolt.NewMemory() },
		"file": func(t *testing.T) bolt.Backend {
			f, err := bolt.OpenFile(bolt.DefaultFileConfig(filepath.Join(t.TempDir(), "scope.db")))
			must(t, err)
			return f
		},
		"small map": func(t *testing.T) bolt.Backend { // remaps under readers
			cfg := bolt.DefaultFileConfig(filepath.Join(t.TempDir(), "scope.db"))
			cfg.MapBytes = 1 << 20
			f, err := bolt.OpenFile(cfg)
			must(t, err)
			return f
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustStore(t, open(t))
			g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
			must(t, err)
			p := &pairs{t: t, s: s, g: g, done: make(chan struct{})}
			for _, f := range []func(*rand.Rand){p.readNow, p.readPast, p.follow(), p.commit, p.scrub, p.hash} {
				p.until(f)
			}
			if name != "memory" {
				p.until(func(*rand.Rand) {
					if err := s.Defrag(); err != nil {
						t.Error(err)
					}
				})
			}
			rng := rand.New(rand.NewSource(2))
			for index := uint64(1); index < 600; index++ {
				p.apply(index, rng)
				if name == "small map" && index%50 == 0 {
					index++
					b := g.Begin(index, 1) // outgrow the map
					b.PutAux("t", fmt.Append(nil, index), make([]byte, 1<<20))
					b.End()
				}
			}
			close(p.done)
			p.wg.Wait()
			h1, _, _, err := g.Hash(0)
			must(t, err)
			must(t, s.Commit())
			again := mustStore(t, s.backend)
			if h2, _, _, err := mustSegment(t, again, 1).Hash(0); err != nil || h1 != h2 {
				t.Fatalf("hash %x, after opening %x, %v", h1, h2, err)
			}
			must(t, s.Close())
		})
	}
}

// A commit of any size does not stop reads or apply: while one is held up in the
// backend both go on.
func TestApplyAndReadsDuringCommit(t *testing.T) {
	slow := &heldUp{Memory: bolt.NewMemory(), entered: make(chan struct{}), leave: make(chan struct{})}
	s := mustStore(t, slow)
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	putAll(g, "a", "1", "b", "1")
	slow.hold.Store(true)
	done := make(chan error)
	go func() { done <- s.Commit() }()
	<-slow.entered
	putAll(g, "b", "2")
	v := g.Read()
	res, err := v.Range([]byte("a"), []byte{0}, 0, 0, false)
	if err != nil || string(res.KVs[0].Value()) != "1" || string(res.KVs[1].Value()) != "2" {
		t.Fatalf("during a commit: %+v %v", res, err)
	}
	v.Close()
	if d := g.Durable(); d != 0 || s.Pending() == 0 {
		t.Fatalf("durable %d with a commit under way", d)
	}
	slow.hold.Store(false)
	close(slow.leave)
	must(t, <-done)
	if d := g.Durable(); d != 1 {
		t.Fatalf("durable %d, the commit began at 1", d)
	}
	if len(g.sealed) != 0 || g.active.n != 1 {
		t.Fatalf("%d sealed buffers and %d active writes after the commit", len(g.sealed), g.active.n)
	}
}

type heldUp struct {
	*bolt.Memory
	hold           atomic.Bool
	entered, leave chan struct{}
}

func (h *heldUp) Update(fn func(tx bolt.Tx) error) error {
	if h.hold.Load() {
		close(h.entered)
		<-h.leave
	}
	return h.Memory.Update(fn)
}

// A commit that finishes between the moment a reader took its backend snapshot and
// the moment it looks at the buffers must not fall through the gap.
func TestCommitWhileAReaderOpens(t *testing.T) {
	between := &interleaved{Memory: bolt.NewMemory()}
	s := mustStore(t, between)
	g, err := s.Create(1, anchormesh.KeyRange{}, Meta{})
	must(t, err)
	commit := func() { must(t, s.Commit()) }
	for i, open := range []func() (Result, error){
		func() (Result, error) {
			v := g.Read()
			defer v.Close()
			return v.Range([]byte("k"), nil, 0, 0, false)
		},
		func() (Result, error) {
			index, _ := g.Applied()
			b := g.Begin(index+1, 1)
			x := b.Txn()
			defer func() { x.End(); b.End() }()
			return x.Range([]byte("k"), nil, 0, 0, false)
		},
		func() (res Result, err error) {
			g.ForEachAux("t", func(_, v []byte) { res.KVs = append(res.KVs, KV{Raw: v, ValueLen: len(v)}) })
			return res, nil
		},
	} {
		want := fmt.Sprint(i)
		putAll(g, "k", want)
		index, _ := g.Applied()
		b := g.Begin(index+1, 1)
		b.PutAux("t", []byte("k"), []byte(want))
		b.End()
		between.hook = commit
		res, err := open()
		if err != nil || len(res.KVs) != 1 || string(res.KVs[0].Value()) != want {
			t.Fatalf("reader %d: %+v, %v", i, res, err)
		}
	}
}

// interleaved runs a hook once, right after a snapshot was taken.
type interleaved struct {
	*bolt.Memory
	hook func()
}

func (i *interleaved) Snapshot() bolt.Snapshot {
	s := i.Memory.Snapshot()
	if hook := i.hook; hook != nil {
		i.hook = nil
		hook()
	}
	return s
}
