package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// backends are the implementations that must behave the same.
func backends(t *testing.T, f func(t *testing.T, open func() Backend)) {
	t.Run("memory", func(t *testing.T) { f(t, func() Backend { return NewMemory() }) })
	t.Run("file", func(t *testing.T) {
		n := 0
		f(t, func() Backend {
			n++
			return mustOpen(t, filepath.Join(t.TempDir(), fmt.Sprintf("s%d.db", n)))
		})
	})
}

func mustOpen(t testing.TB, path string) *File {
	t.Helper()
	f, err := OpenFile(DefaultFileConfig(path))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func put(t testing.TB, b Backend, bucket string, kvs ...string) {
	t.Helper()
	err := b.Update(func(tx Tx) error {
		bk, err := tx.Bucket(bucket)
		for i := 0; i < len(kvs) && err == nil; i += 2 {
			err = bk.Put([]byte(kvs[i]), []byte(kvs[i+1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func dump(r Reader) map[string]string {
	out := map[string]string{}
	c := r.Cursor()
	for k, v := c.Seek(nil); k != nil; k, v = c.Next() {
		out[string(k)] = string(v)
	}
	return out
}

func dumpNow(b Backend, bucket string) map[string]string {
	s := b.Snapshot()
	defer s.Release()
	return dump(s.Bucket(bucket))
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	backends(t, func(t *testing.T, open func() Backend) {
		b := open()
		put(t, b, "x", "a", "1")
		boom := errors.New("boom")
		err := b.Update(func(tx Tx) error {
			bk, _ := tx.Bucket("x")
			if err := bk.Put([]byte("a"), []byte("2")); err != nil {
				t.Fatal(err)
			}
			if err := bk.Delete([]byte("nothing there")); err != nil {
				t.Fatal(err)
			}
			if got := bk.Get([]byte("a")); string(got) != "2" {
				t.Fatalf("a transaction does not read its own write: %q", got)
			}
			return boom
		})
		if !errors.Is(err, boom) || errors.Is(err, ErrFatal) {
			t.Fatalf("got %v", err)
		}
		if got := dumpNow(b, "x"); !maps.Equal(got, map[string]string{"a": "1"}) {
			t.Fatalf("a failed update left %v", got)
		}
		err = b.Update(func(tx Tx) error {
			bk, _ := tx.Bucket("x")
			return bk.Put(nil, []byte("v"))
		})
		if !errors.Is(err, ErrEmptyKey) {
			t.Fatalf("empty key: got %v", err)
		}
	})
}

func TestSnapshotDoesNotMove(t *testing.T) {
	backends(t, func(t *testing.T, open func() Backend) {
		b := open()
		none := b.Snapshot()
		if k, _ := none.Bucket("x").Cursor().Seek(nil); k != nil || none.Bucket("x").Get([]byte("a")) != nil {
			t.Fatal("a bucket that does not exist holds something")
		}
		put(t, b, "x", "a", "1", "b", "2")
		s, s2 := b.Snapshot(), b.Snapshot()
		put(t, b, "x", "a", "3", "c", "4")
		if err := b.Defrag(); err != nil {
			t.Fatal(err)
		}
		s2.Release()
		if got := dump(s.Bucket("x")); !maps.Equal(got, map[string]string{"a": "1", "b": "2"}) {
			t.Fatalf("snapshot moved: %v", got)
		}
		if got := dumpNow(b, "x"); !maps.Equal(got, map[string]string{"a": "3", "b": "2", "c": "4"}) {
			t.Fatalf("newest is %v", got)
		}
		none.Release()
		s.Release()
	})
}

func TestAgainstModel(t *testing.T) {
	seed := rand.Int63()
	t.Logf("seed %d", seed)
	backends(t, func(t *testing.T, open func() Backend) {
		rng := rand.New(rand.NewSource(seed))
		b, model := open(), map[string]string{}
		for round := range 60 {
			next := maps.Clone(model)
			fail := rng.Intn(5) == 0
			err := b.Update(func(tx Tx) error {
				bk, err := tx.Appending("r")
				for range rng.Intn(200) {
					k := fmt.Sprintf("%04d", rng.Intn(2000))
					if rng.Intn(3) == 0 {
						delete(next, k)
						err = errors.Join(err, bk.Delete([]byte(k)))
					} else {
						v := string(bytes.Repeat([]byte{byte(round)}, rng.Intn(900)))
						next[k] = v
						err = errors.Join(err, bk.Put([]byte(k), []byte(v)))
					}
				}
				if fail {
					return errors.New("change of mind")
				}
				return err
			})
			if fail != (err != nil) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if !fail {
				model = next
			}
			if round%7 == 3 {
				if err := b.Defrag(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			checkModel(t, seed, rng, b, model)
		}
	})
}

func checkModel(t *testing.T, seed int64, rng *rand.Rand, b Backend, model map[string]string) {
	t.Helper()
	s := b.Snapshot()
	defer s.Release()
	r := s.Bucket("r")
	if got := dump(r); !maps.Equal(got, model) {
		t.Fatalf("seed %d: %d keys, model has %d", seed, len(got), len(model))
	}
	keys := slices.Sorted(maps.Keys(model))
	c := r.Cursor()
	for range 20 {
		from := fmt.Sprintf("%04d", rng.Intn(2100))
		i, _ := slices.BinarySearch(keys, from)
		if got := r.Get([]byte(from)); got == nil != (i == len(keys) || keys[i] != from) {
			t.Fatalf("seed %d: Get(%s) = %v", seed, from, got)
		}
		k, _ := c.Seek([]byte(from))
		for range 5 {
			want := ""
			if i < len(keys) {
				want = keys[i]
			}
			if string(k) != want {
				t.Fatalf("seed %d: cursor from %s is at %q, want %q", seed, from, k, want)
			}
			if k == nil {
				break
			}
			if string(r.Get(k)) != model[want] {
				t.Fatalf("seed %d: value of %s", seed, want)
			}
			i++
			k, _ = c.Next()
		}
	}
}

// Trees of every depth, values of several pages, and all their keys.
func TestGetFindsEveryKey(t *testing.T) {
	backends(t, func(t *testing.T, open func() Backend) {
		b := open()
		for n := 1; n <= 30000; n *= 30 {
			err := b.Update(func(tx Tx) error {
				bk, err := tx.Bucket("x")
				for i := range n {
					val := bytes.Repeat([]byte("v"), i%100)
					if i%5000 == 17 {
						val = make([]byte, 50000)
					}
					err = errors.Join(err, bk.Put(fmt.Appendf(nil, "%d.%d", i*7919%n, i), val))
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			s := b.Snapshot()
			r := s.Bucket("x")
			seen := 0
			c := r.Cursor()
			for k, v := c.Seek(nil); k != nil; k, v = c.Next() {
				if got := r.Get(k); got == nil || !bytes.Equal(got, v) {
					t.Fatalf("Get(%s) has %d bytes, the cursor %d", k, len(got), len(v))
				}
				if r.Get(append(k[:len(k):len(k)], 0)) != nil {
					t.Fatalf("found a key that is not there, near %s", k)
				}
				seen++
			}
			if seen < n {
				t.Fatalf("%d keys, want %d", seen, n)
			}
			s.Release()
		}
	})
}

func TestReadersAndWriterTogether(t *testing.T) {
	backends(t, func(t *testing.T, open func() Backend) {
		b := open()
		put(t, b, "x", "a", "0", "b", "0")
		done := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					s := b.Snapshot()
					r := s.Bucket("x")
					if x, y := r.Get([]byte("a")), r.Get([]byte("b")); !bytes.Equal(x, y) {
						t.Errorf("half a transaction: %q and %q", x, y)
					}
					s.Release()
				}
			})
		}
		for i := range 50 {
			v := fmt.Sprint(i)
			put(t, b, "x", "a", v, "b", v)
			if i%20 == 10 {
				if err := b.Defrag(); err != nil {
					t.Error(err)
				}
			}
		}
		close(done)
		wg.Wait()
	})
}

func TestClosed(t *testing.T) {
	backends(t, func(t *testing.T, open func() Backend) {
		b := open()
		put(t, b, "x", "a", "1")
		s := b.Snapshot()
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if err := b.Update(func(Tx) error { return nil }); !errors.Is(err, ErrClosed) {
			t.Fatalf("got %v", err)
		}
		if got := s.Bucket("x").Get([]byte("a")); string(got) != "1" {
			t.Fatalf("a snapshot died with Close: %q", got)
		}
		s.Release()
	})
}
