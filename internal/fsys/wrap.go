package fsys

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// OpKind names an operation of FS or File.
type OpKind string

// The operations that a Hook sees.
const (
	OpCreate      OpKind = "create"
	OpOpen        OpKind = "open"
	OpRename      OpKind = "rename"
	OpRemove      OpKind = "remove"
	OpList        OpKind = "list"
	OpMkdir       OpKind = "mkdir"
	OpSyncDir     OpKind = "syncdir"
	OpLock        OpKind = "lock"
	OpFree        OpKind = "free"
	OpRead        OpKind = "read"
	OpWrite       OpKind = "write"
	OpTruncate    OpKind = "truncate"
	OpPreallocate OpKind = "preallocate"
	OpSync        OpKind = "sync"
	OpDatasync    OpKind = "datasync"
	OpClose       OpKind = "close"
)

// Op is one operation that is about to happen.
type Op struct {
	Kind   OpKind
	Path   string
	To     string // of a rename
	Offset int64  // of a read or write; the size of a truncate or preallocate
	Bytes  int    // of a read or write
}

// String is the line of a golden trace.
func (o Op) String() string {
	switch o.Kind {
	case OpRename:
		return fmt.Sprintf("%s %s -> %s", o.Kind, o.Path, o.To)
	case OpRead, OpWrite:
		return fmt.Sprintf("%s %s %d+%d", o.Kind, o.Path, o.Offset, o.Bytes)
	case OpTruncate, OpPreallocate:
		return fmt.Sprintf("%s %s %d", o.Kind, o.Path, o.Offset)
	}
	return fmt.Sprintf("%s %s", o.Kind, o.Path)
}

// Changes reports whether the operation can alter what a power cut leaves.
func (o Op) Changes() bool {
	switch o.Kind {
	case OpOpen, OpList, OpLock, OpFree, OpRead, OpClose:
		return false
	}
	return true
}

// Fault says what becomes of an operation. The zero Fault lets it through.
type Fault struct {
	Err   error         // returned instead of carrying the operation out
	Short int           // of a failing write: bytes written before Err
	Delay time.Duration // slept before anything else
}

// Hook is asked before every operation. It may be called concurrently.
type Hook func(Op) Fault

// Wrap returns fs with hooks in front of every operation, asked in order until
// one returns an error. Delays add up.
func Wrap(fs FS, hooks ...Hook) FS {
	return &wrapped{fs: fs, hooks: hooks, open: map[*wrappedFile]bool{}}
}

// Trace returns a hook that writes one line per operation that changes the
// disk.
func Trace(w io.Writer) Hook {
	var mu sync.Mutex
	return func(op Op) Fault {
		if op.Changes() {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprintln(w, op)
		}
		return Fault{}
	}
}

// FailNth returns a hook that fails the nth (from 1) operation of a kind whose
// path contains part, and every later one.
func FailNth(kind OpKind, part string, n int, err error) Hook {
	var mu sync.Mutex
	return func(op Op) Fault {
		if op.Kind != kind || !strings.Contains(op.Path, part) {
			return Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if n--; n > 0 {
			return Fault{}
		}
		return Fault{Err: err}
	}
}

// NoSpaceAfter returns a hook that lets budget bytes of writes through and then
// fails with ErrNoSpace, the first time after a short write.
func NoSpaceAfter(budget int) Hook {
	var mu sync.Mutex
	return func(op Op) Fault {
		if op.Kind != OpWrite {
			return Fault{}
		}
		mu.Lock()
		defer mu.Unlock()
		if op.Bytes <= budget {
			budget -= op.Bytes
			return Fault{}
		}
		short := budget
		budget = 0
		return Fault{Err: ErrNoSpace, Short: short}
	}
}

// Slow returns a hook that delays every operation of a kind.
func Slow(kind OpKind, delay time.Duration) Hook {
	return func(op Op) Fault {
		if op.Kind != kind {
			return Fault{}
		}
		return Fault{Delay: delay}
	}
}

type wrapped struct {
	fs    FS
	hooks []Hook

	mu   sync.Mutex
	open map[*wrappedFile]bool // so that a renamed file is shown by its new name
}

// ask returns what the first failing hook wants, after all delays.
func (w *wrapped) ask(op Op) Fault {
	for _, hook := range w.hooks {
		f := hook(op)
		if f.Delay > 0 {
			time.Sleep(f.Delay)
		}
		if f.Err != nil {
			return f
		}
	}
	return Fault{}
}

func (w *wrapped) file(op Op, open func(string) (File, error)) (File, error) {
	if f := w.ask(op); f.Err != nil {
		return nil, f.Err
	}
	f, err := open(op.Path)
	if err != nil {
		return nil, err
	}
	wf := &wrappedFile{f: f, w: w}
	wf.path.Store(&op.Path)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[wf] = true
	return wf, nil
}

func (w *wrapped) Create(name string) (File, error) {
	return w.file(Op{Kind: OpCreate, Path: name}, w.fs.Create)
}

func (w *wrapped) Open(name string) (File, error) {
	return w.file(Op{Kind: OpOpen, Path: name}, w.fs.Open)
}

func (w *wrapped) OpenFile(name string) (File, error) {
	return w.file(Op{Kind: OpOpen, Path: name}, w.fs.OpenFile)
}

func (w *wrapped) Rename(from, to string) error {
	if f := w.ask(Op{Kind: OpRename, Path: from, To: to}); f.Err != nil {
		return f.Err
	}
	if err := w.fs.Rename(from, to); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for f := range w.open {
		if f.name() == from {
			f.path.Store(&to)
		}
	}
	return nil
}

func (w *wrapped) Remove(name string) error {
	if f := w.ask(Op{Kind: OpRemove, Path: name}); f.Err != nil {
		return f.Err
	}
	return w.fs.Remove(name)
}

func (w *wrapped) List(dir string) ([]string, error) {
	if f := w.ask(Op{Kind: OpList, Path: dir}); f.Err != nil {
		return nil, f.Err
	}
	return w.fs.List(dir)
}

func (w *wrapped) MkdirAll(dir string) error {
	if f := w.ask(Op{Kind: OpMkdir, Path: dir}); f.Err != nil {
		return f.Err
	}
	return w.fs.MkdirAll(dir)
}

func (w *wrapped) SyncDir(dir string) error {
	if f := w.ask(Op{Kind: OpSyncDir, Path: dir}); f.Err != nil {
		return f.Err
	}
	return w.fs.SyncDir(dir)
}

func (w *wrapped) Lock(name string) (io.Closer, error) {
	if f := w.ask(Op{Kind: OpLock, Path: name}); f.Err != nil {
		return nil, f.Err
	}
	return w.fs.Lock(name)
}

func (w *wrapped) FreeBytes(dir string) (uint64, error) {
	if f := w.ask(Op{Kind: OpFree, Path: dir}); f.Err != nil {
		return 0, f.Err
	}
	return w.fs.FreeBytes(dir)
}

type wrappedFile struct {
	f    File
	w    *wrapped
	path atomic.Pointer[string]
}

func (f *wrappedFile) name() string { return *f.path.Load() }

func (f *wrappedFile) ReadAt(p []byte, off int64) (int, error) {
	if fault := f.w.ask(Op{Kind: OpRead, Path: f.name(), Offset: off, Bytes: len(p)}); fault.Err != nil {
		return 0, fault.Err
	}
	return f.f.ReadAt(p, off)
}

func (f *wrappedFile) WriteAt(p []byte, off int64) (int, error) {
	fault := f.w.ask(Op{Kind: OpWrite, Path: f.name(), Offset: off, Bytes: len(p)})
	if fault.Err == nil {
		return f.f.WriteAt(p, off)
	}
	if fault.Short == 0 {
		return 0, fault.Err
	}
	n, err := f.f.WriteAt(p[:min(fault.Short, len(p))], off)
	if err != nil {
		return n, err
	}
	return n, fault.Err
}

func (f *wrappedFile) Size() (int64, error) { return f.f.Size() }

func (f *wrappedFile) Truncate(size int64) error {
	if fault := f.w.ask(Op{Kind: OpTruncate, Path: f.name(), Offset: size}); fault.Err != nil {
		return fault.Err
	}
	return f.f.Truncate(size)
}

func (f *wrappedFile) Preallocate(size int64) error {
	if fault := f.w.ask(Op{Kind: OpPreallocate, Path: f.name(), Offset: size}); fault.Err != nil {
		return fault.Err
	}
	return f.f.Preallocate(size)
}

func (f *wrappedFile) Sync() error {
	if fault := f.w.ask(Op{Kind: OpSync, Path: f.name()}); fault.Err != nil {
		return fault.Err
	}
	return f.f.Sync()
}

func (f *wrappedFile) Datasync() error {
	if fault := f.w.ask(Op{Kind: OpDatasync, Path: f.name()}); fault.Err != nil {
		return fault.Err
	}
	return f.f.Datasync()
}

func (f *wrappedFile) Close() error {
	if fault := f.w.ask(Op{Kind: OpClose, Path: f.name()}); fault.Err != nil {
		return fault.Err
	}
	f.w.mu.Lock()
	delete(f.w.open, f)
	f.w.mu.Unlock()
	return f.f.Close()
}
