package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// Open recovers the log in dir, or begins one there. See the package's doc for
// what it cuts off and what it refuses. An empty directory is a new log: that
// this node once had another is for its caller to know (its store's applied
// index is above the log's last).
func Open(fs fsys.FS, dir string, opts Options) (*Log, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("making the log directory: %w", err)
	}
	if err := fs.SyncDir(filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("syncing the directory above %s: %w", dir, err)
	}
	lockFile := filepath.Join(dir, lockName)
	lock, err := fs.Lock(lockFile)
	if errors.Is(err, fsys.ErrLocked) {
		return nil, fmt.Errorf("the log in %s is in use by another process, which holds the lock file %s: %w", dir, lockFile, err)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the log: %w", err)
	}
	l := &Log{fs: fs, dir: dir, opts: opts, lock: lock, groups: map[anchormesh.SegmentID]*GroupLog{}}
	if err := l.open(); err != nil {
		l.releaseFiles()
		lock.Close()
		return nil, err
	}
	l.startKeeper()
	l.settleFloor()
	if l.spare.file == nil {
		l.askSpare()
	}
	l.noteState()
	return l, nil
}

func (l *Log) startKeeper() {
	l.keeper = &keeper{
		fs: l.fs, dir: l.dir, inline: l.opts.inline,
		fatal: func(err error) { l.die(err) },
		trouble: func(err error) {
			if f := l.opts.Listener.Trouble; f != nil {
				f(err)
			}
		},
	}
	l.keeper.start()
}

// open fills the Log from the directory.
func (l *Log) open() error {
	names, err := l.fs.List(l.dir)
	if err != nil {
		return fmt.Errorf("listing the log directory: %w", err)
	}
	// A name that a crashed process left may be in the kernel's memory only.
	if err := l.removeTmp(names); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return fmt.Errorf("syncing the log directory: %w", err)
	}
	if l.files, err = openFiles(l.fs, l.dir, names, true); err != nil {
		return err
	}
	if len(l.files) == 0 {
		return l.begin()
	}
	l.id = l.files[0].header.id
	r := &recovery{log: l}
	if err := r.run(); err != nil {
		return err
	}
	return l.dropLeftovers()
}

func (l *Log) removeTmp(names []string) error {
	for _, base := range names {
		if !strings.HasSuffix(base, tmpSuffix) {
			continue
		}
		if err := l.fs.Remove(filepath.Join(l.dir, base)); err != nil {
			return fmt.Errorf("removing an unfinished log file: %w", err)
		}
	}
	return nil
}

// begin makes the first file.
func (l *Log) begin() error {
	if _, err := rand.Read(l.id[:]); err != nil {
		return fmt.Errorf("drawing the log's ID: %w", err)
	}
	failpoint.Hit("wal/before-begin")
	f, err := createFile(l.fs, l.dir, fileHeader{num: 1, size: l.opts.FileBytes, id: l.id})
	if err != nil {
		return fmt.Errorf("making the first log file of %d bytes in %s: %w", l.opts.FileBytes, l.dir, err)
	}
	l.files, l.floor, l.recorded, l.stated = []*logFile{f}, 1, 1, 1
	return nil
}

// dropLeftovers removes files below the recorded floor, which a crash left.
func (l *Log) dropLeftovers() error {
	for l.files[0].num() < l.recorded {
		f := l.files[0]
		if f.live != 0 {
			return &CorruptError{File: f.name, Reason: fmt.Sprintf("later files call it needless, but %d records in it are needed", f.live)}
		}
		l.files = l.files[1:]
		if err := errors.Join(f.release(), l.fs.Remove(f.name)); err != nil {
			return fmt.Errorf("removing an old log file: %w", err)
		}
		if err := l.fs.SyncDir(l.dir); err != nil {
			return fmt.Errorf("syncing the log directory: %w", err)
		}
	}
	return nil
}

// openFiles opens the log files among the names of dir, in order. The numbers
// must be dense: files are made at one end and removed at the other.
func openFiles(fs fsys.FS, dir string, names []string, write bool) (files []*logFile, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				f.release()
			}
			files = nil
		}
	}()
	for _, base := range names { // sorted, and so are the numbers in them
		if !strings.HasSuffix(base, fileSuffix) {
			continue
		}
		name := filepath.Join(dir, base)
		num, ok := parseFileName(base)
		if !ok {
			return files, fmt.Errorf("%s: %w: its name has no number of a log file", name, ErrForeign)
		}
		f, err := openFile(fs, name, write)
		if err != nil {
			return files, err
		}
		files = append(files, f)
		if err := checkSequel(files, num); err != nil {
			return files, err
		}
	}
	return files, nil
}

// checkSequel compares the newest opened file with its name and its neighbour.
func checkSequel(files []*logFile, num uint32) error {
	f := files[len(files)-1]
	if f.num() != num {
		return &CorruptError{File: f.name, Reason: fmt.Sprintf("the header names it file %d", f.num())}
	}
	if len(files) == 1 {
		return nil
	}
	before := files[len(files)-2]
	if before.header.id != f.header.id {
		return fmt.Errorf("%s: %w: it belongs to another log than %s", f.name, ErrForeign, before.name)
	}
	if before.num()+1 != num {
		return &CorruptError{File: fileName(filepath.Dir(f.name), before.num()+1), Reason: "the file is missing"}
	}
	return nil
}

func openFile(fs fsys.FS, name string, write bool) (*logFile, error) {
	open := fs.Open
	if write {
		open = fs.OpenFile
	}
	f, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("opening a log file: %w", err)
	}
	lf, err := readHeader(name, f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return lf, nil
}

func readHeader(name string, f fsys.File) (*logFile, error) {
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("opening a log file: %w", err)
	}
	b := make([]byte, min(size, fileHeaderBytes))
	if _, err := f.ReadAt(b, 0); err != nil && len(b) > 0 {
		return nil, fmt.Errorf("reading the header of %s: %w", name, err)
	}
	h, err := parseHeader(name, b)
	if err != nil {
		return nil, err
	}
	if size != h.size {
		return nil, &CorruptError{File: name, Offset: min(size, h.size),
			Reason: fmt.Sprintf("it has %d bytes, its header says %d", size, h.size)}
	}
	return newLogFile(name, *h, f), nil
}
