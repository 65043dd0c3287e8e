package fsys

import (
	"io"
	"io/fs"
)

// memFile is an open file of Mem. It outlives its name, as on Unix.
type memFile struct {
	mem    *Mem
	n      *node
	name   string
	write  bool
	closed bool // guarded by mem.mu
}

func (f *memFile) begin(op string, write bool) error {
	f.mem.mu.Lock()
	if f.closed {
		f.mem.mu.Unlock()
		return pathError(op, f.name, fs.ErrClosed)
	}
	if write && !f.write {
		f.mem.mu.Unlock()
		return pathError(op, f.name, fs.ErrPermission)
	}
	return nil
}

func (f *memFile) end() { f.mem.mu.Unlock() }

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if err := f.begin("read", false); err != nil {
		return 0, err
	}
	defer f.end()
	if off < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	if off >= int64(len(f.n.data)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if err := f.begin("write", true); err != nil {
		return 0, err
	}
	defer f.end()
	if off < 0 {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	if len(p) == 0 {
		return 0, nil
	}
	c := change{off: off, data: append([]byte(nil), p...)}
	f.n.data = c.apply(f.n.data)
	f.n.writes = append(f.n.writes, c)
	return len(p), nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.begin("size", false); err != nil {
		return 0, err
	}
	defer f.end()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.begin("truncate", true); err != nil {
		return err
	}
	defer f.end()
	if size < 0 {
		return pathError("truncate", f.name, fs.ErrInvalid)
	}
	f.n.truncate(size)
	return nil
}

func (f *memFile) Preallocate(size int64) error {
	if err := f.begin("preallocate", true); err != nil {
		return err
	}
	defer f.end()
	if size > int64(len(f.n.data)) {
		f.n.truncate(size)
	}
	return nil
}

func (n *node) truncate(size int64) {
	c := change{off: size}
	n.data = c.apply(n.data)
	n.writes = append(n.writes, c)
}

// apply returns data after the change. Bytes between an old end and the change
// are zeros.
func (c change) apply(data []byte) []byte {
	end := c.off + int64(len(c.data))
	if c.data == nil && end < int64(len(data)) {
		clear(data[end:])
		return data[:end]
	}
	data = extend(data, end)
	copy(data[c.off:], c.data)
	return data
}

// extend returns data with at least size bytes, new ones zero.
func extend(data []byte, size int64) []byte {
	if grow := size - int64(len(data)); grow > 0 {
		data = append(data, make([]byte, grow)...)
	}
	return data
}

func (f *memFile) Sync() error {
	if err := f.begin("sync", false); err != nil {
		return err
	}
	defer f.end()
	for _, c := range f.n.writes {
		f.n.syncedData = c.apply(f.n.syncedData)
	}
	f.n.writes = nil
	return nil
}

// Datasync keeps what lies beyond the synced length unsynced: a real fdatasync
// may save the length too, but only Sync is bound to.
func (f *memFile) Datasync() error {
	if err := f.begin("datasync", false); err != nil {
		return err
	}
	defer f.end()
	n, size := f.n, int64(len(f.n.syncedData))
	kept := n.writes[:0]
	for _, c := range n.writes {
		switch {
		case c.data == nil:
			kept = append(kept, c)
			continue
		case c.off+int64(len(c.data)) > size:
			kept = append(kept, c)
		}
		if c.off < size {
			copy(n.syncedData[c.off:], c.data)
		}
	}
	n.writes = kept
	return nil
}

func (f *memFile) Close() error {
	if err := f.begin("close", false); err != nil {
		return err
	}
	defer f.end()
	f.closed = true
	return nil
}
