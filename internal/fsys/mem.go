package fsys

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
)

// Mem is a file system in memory that knows what has been synced.
type Mem struct {
	mu    sync.Mutex
	root  *node
	locks map[string]bool
}

// node is a file or a directory. A file's data and a directory's names are kept
// twice: as they are, and as they were when last synced, with the changes since
// then in order.
type node struct {
	data, syncedData []byte
	writes           []change

	names, syncedNames map[string]*node // nil for a file
	moves              []move
}

// change is an unsynced write, or with nil data an unsynced truncation to off.
type change struct {
	off  int64
	data []byte
}

// move is an unsynced change of a directory: the name in gone disappears, name
// leads to what. Either may be empty.
type move struct {
	gone, name string
	what       *node
}

// NewMem returns an empty file system with a root directory.
func NewMem() *Mem { return &Mem{root: newDir(), locks: map[string]bool{}} }

func newDir() *node {
	return &node{names: map[string]*node{}, syncedNames: map[string]*node{}}
}

func (n *node) isDir() bool { return n.names != nil }

func (n *node) move(m move) {
	m.apply(n.names)
	n.moves = append(n.moves, m)
}

func (m move) apply(names map[string]*node) {
	if m.gone != "" {
		delete(names, m.gone)
	}
	if m.name != "" {
		names[m.name] = m.what
	}
}

// split cleans a path into its parts; relative and absolute paths are the same.
func split(name string) []string {
	clean := strings.Trim(path.Clean("/"+name), "/")
	if clean == "" {
		return nil
	}
	return strings.Split(clean, "/")
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func (m *Mem) findLocked(parts []string) *node {
	n := m.root
	for _, p := range parts {
		if n == nil || !n.isDir() {
			return nil
		}
		n = n.names[p]
	}
	return n
}

// parentLocked returns the directory that name is in and its last part.
func (m *Mem) parentLocked(op, name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", pathError(op, name, fs.ErrInvalid)
	}
	dir := m.findLocked(parts[:len(parts)-1])
	if dir == nil || !dir.isDir() {
		return nil, "", pathError(op, name, fs.ErrNotExist)
	}
	return dir, parts[len(parts)-1], nil
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("create", name)
	if err != nil {
		return nil, err
	}
	n := dir.names[base]
	switch {
	case n == nil:
		n = &node{}
		dir.move(move{name: base, what: n})
	case n.isDir():
		return nil, pathError("create", name, fs.ErrExist)
	default:
		n.truncate(0)
	}
	return &memFile{mem: m, n: n, name: name, write: true}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// OpenFile implements FS.
func (m *Mem) OpenFile(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, write bool) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.findLocked(split(name))
	if n == nil || n.isDir() {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{mem: m, n: n, name: name, write: write}, nil
}

// Rename implements FS. Both names are in one directory or the move is two
// operations to a power cut.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	src, srcBase, err := m.parentLocked("rename", from)
	if err != nil {
		return err
	}
	dst, dstBase, err := m.parentLocked("rename", to)
	if err != nil {
		return err
	}
	n := src.names[srcBase]
	if n == nil {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if old := dst.names[dstBase]; old == n {
		return nil
	} else if old != nil && (old.isDir() || n.isDir()) {
		return pathError("rename", to, fs.ErrExist)
	}
	if src == dst {
		src.move(move{gone: srcBase, name: dstBase, what: n})
		return nil
	}
	dst.move(move{name: dstBase, what: n})
	src.move(move{gone: srcBase})
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil {
		return err
	}
	n := dir.names[base]
	if n == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	if n.isDir() && len(n.names) > 0 {
		return pathError("remove", name, fs.ErrExist)
	}
	dir.move(move{gone: base})
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.findLocked(split(dir))
	if n == nil || !n.isDir() {
		return nil, pathError("list", dir, fs.ErrNotExist)
	}
	return sortedKeys(n.names), nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.root
	for _, p := range split(dir) {
		next := n.names[p]
		if next == nil {
			next = newDir()
			n.move(move{name: p, what: next})
		} else if !next.isDir() {
			return pathError("mkdir", dir, fs.ErrExist)
		}
		n = next
	}
	return nil
}

// SyncDir implements FS.
func (m *Mem) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.findLocked(split(dir))
	if n == nil || !n.isDir() {
		return pathError("syncdir", dir, fs.ErrNotExist)
	}
	for _, mv := range n.moves {
		mv.apply(n.syncedNames)
	}
	n.moves = nil
	return nil
}

type memLock struct {
	m    *Mem
	name string
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	f, err := m.OpenFile(name)
	if err != nil {
		if f, err = m.Create(name); err != nil {
			return nil, err
		}
	}
	f.Close()
	key := path.Join(split(name)...)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.locks[key] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	m.locks[key] = true
	return &memLock{m, key}, nil
}

func (l *memLock) Close() error {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	if !l.m.locks[l.name] {
		return fs.ErrClosed
	}
	delete(l.m.locks, l.name)
	return nil
}

// FreeLocks gives all locks back, as the end of a process does.
func (m *Mem) FreeLocks() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.locks)
}

// FreeBytes implements FS; memory is taken as a disk of 1 GiB.
func (m *Mem) FreeBytes(string) (uint64, error) { return 1 << 30, nil }
