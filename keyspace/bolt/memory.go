package bolt

import (
	"bytes"
	"sync"

	"github.com/google/btree"
)

// memoryDegree trades copying on write against the depth of a tree.
const memoryDegree = 32

// Memory is a Backend whose contents die with the process. A snapshot and a
// running Update share all nodes that the Update did not touch.
type Memory struct {
	writeMu sync.Mutex

	mu     sync.Mutex
	state  memoryState
	closed bool
}

// memoryState is immutable once committed.
type memoryState struct {
	buckets map[string]*btree.BTreeG[record]
	bytes   int64
}

type record struct{ key, value []byte }

func recordLess(a, b record) bool { return bytes.Compare(a.key, b.key) < 0 }

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{} }

// Clone is a store with the contents of the last commit: for a simulated machine
// what its disk holds after a crash.
func (m *Memory) Clone() *Memory {
	m.writeMu.Lock() // trees must not be cloned from two sides at once
	defer m.writeMu.Unlock()
	tx := &memoryTx{base: m.committed(), own: make(map[string]*btree.BTreeG[record])}
	for name := range tx.base.buckets {
		tx.open(name)
	}
	return &Memory{state: tx.result()}
}

func (m *Memory) committed() memoryState {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state
}

// Update implements Backend.
func (m *Memory) Update(fn func(tx Tx) error) error {
	m.writeMu.Lock()
	defer m.writeMu.Unlock()
	if m.closed {
		return ErrClosed
	}
	tx := &memoryTx{base: m.committed(), own: make(map[string]*btree.BTreeG[record])}
	if err := fn(tx); err != nil {
		return err
	}
	next := tx.result()
	m.mu.Lock()
	m.state = next
	m.mu.Unlock()
	return nil
}

// Snapshot implements Backend.
func (m *Memory) Snapshot() Snapshot { return memorySnapshot{m.committed()} }

// Size implements Backend: the bytes of keys and values.
func (m *Memory) Size() (total, inUse int64) {
	n := m.committed().bytes
	return n, n
}

// Defrag implements Backend: there is nothing to do.
func (m *Memory) Defrag() error { return nil }

// Close implements Backend.
func (m *Memory) Close() error {
	m.writeMu.Lock()
	defer m.writeMu.Unlock()
	m.closed = true
	return nil
}

// memoryTx copies a bucket's tree (lazily, node by node) when it is first touched.
type memoryTx struct {
	base  memoryState
	own   map[string]*btree.BTreeG[record]
	delta int64
}

func (t *memoryTx) open(name string) *btree.BTreeG[record] {
	tree, ok := t.own[name]
	if !ok {
		if old := t.base.buckets[name]; old != nil {
			tree = old.Clone()
		} else {
			tree = btree.NewG(memoryDegree, recordLess)
		}
		t.own[name] = tree
	}
	return tree
}

func (t *memoryTx) result() memoryState {
	next := memoryState{buckets: make(map[string]*btree.BTreeG[record]), bytes: t.base.bytes + t.delta}
	for name, tree := range t.base.buckets {
		next.buckets[name] = tree
	}
	for name, tree := range t.own {
		next.buckets[name] = tree
	}
	return next
}

func (t *memoryTx) Bucket(name string) (Bucket, error) {
	return &memoryBucket{memoryReader{t.open(name)}, t}, nil
}

func (t *memoryTx) Appending(name string) (Bucket, error) { return t.Bucket(name) }

type memoryBucket struct {
	memoryReader
	tx *memoryTx
}

// Put copies: the caller's slices may be parts of far larger blocks.
func (b *memoryBucket) Put(key, value []byte) error {
	if len(key) == 0 {
		return ErrEmptyKey
	}
	both := make([]byte, len(key)+len(value))
	copy(both[copy(both, key):], value)
	r := record{key: both[:len(key):len(key)], value: both[len(key):]}
	old, _ := b.tree.ReplaceOrInsert(r)
	b.tx.delta += int64(len(both) - len(old.key) - len(old.value))
	return nil
}

func (b *memoryBucket) Delete(key []byte) error {
	old, _ := b.tree.Delete(record{key: key})
	b.tx.delta -= int64(len(old.key) + len(old.value))
	return nil
}

type memoryReader struct{ tree *btree.BTreeG[record] }

func (r memoryReader) Get(key []byte) []byte {
	rec, ok := r.tree.Get(record{key: key})
	if !ok {
		return nil
	}
	return rec.value
}

func (r memoryReader) Cursor() Cursor { return &memoryCursor{tree: r.tree} }

type memorySnapshot struct{ state memoryState }

func (s memorySnapshot) Bucket(name string) Reader {
	if tree := s.state.buckets[name]; tree != nil {
		return memoryReader{tree}
	}
	return empty{}
}

func (s memorySnapshot) Release() {}

// memoryCursor reads ahead: one descent serves several steps.
type memoryCursor struct {
	tree  *btree.BTreeG[record]
	ahead []record
	pos   int
	batch int
}

const memoryReadAhead = 64

func (c *memoryCursor) Seek(key []byte) (k, v []byte) {
	c.batch = 1 // a seek is often a lookup
	return c.fill(key, false)
}

func (c *memoryCursor) Next() (k, v []byte) {
	if c.pos < len(c.ahead) {
		r := c.ahead[c.pos]
		c.pos++
		return r.key, r.value
	}
	if len(c.ahead) == 0 {
		return nil, nil
	}
	c.batch = min(2*c.batch, memoryReadAhead)
	return c.fill(c.ahead[len(c.ahead)-1].key, true)
}

func (c *memoryCursor) fill(from []byte, after bool) (k, v []byte) {
	next := c.ahead[:0]
	c.tree.AscendGreaterOrEqual(record{key: from}, func(r record) bool {
		if after && bytes.Equal(r.key, from) {
			return true
		}
		next = append(next, r)
		return len(next) < c.batch
	})
	c.ahead, c.pos = next, 0
	if len(next) == 0 {
		return nil, nil
	}
	c.pos = 1
	return next[0].key, next[0].value
}
