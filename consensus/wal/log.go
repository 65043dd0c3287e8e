package wal

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// Log is the write-ahead log of a node. Append has one caller at a time, "the
// appender"; all other methods may be called from any goroutine.
type Log struct {
	fs   fsys.FS
	dir  string
	opts Options
	lock io.Closer
	id   logID
	lost bool                  // see Lost
	dead atomic.Pointer[error] // what every call returns once set

	groupsMu sync.RWMutex
	groups   map[anchormesh.SegmentID]*GroupLog // grows only

	filesMu sync.RWMutex // the appender alone changes files and reads it without
	files   []*logFile   // dense numbers; the last one is being written

	pendMu  sync.Mutex
	pending []*GroupLog // groups whose mark must be recorded

	tail   tail
	keeper *keeper
	misses atomic.Uint64
	statMu sync.Mutex
	stats  Stats

	appender
}

// appender is what the appender alone reads and writes.
type appender struct {
	seq      uint64 // of the last frame
	recorded uint32 // first needed file, as a synced frame says
	stated   uint32 // first needed file, as the last frame says
	statedAt uint64 // the first frame that says so
	floor    uint32 // first needed file, as the next frame will say
	stored   int    // groups that something is stored of
	lastOwn  int    // bytes of the last batch
	rotated  bool   // since the floor was settled
	spare    spare
	enc      encoder
	carry    carrier
	cache    cache // its size is read by all
}

// spare is the next file: there, asked for, or failed.
type spare struct {
	file    *logFile
	asked   bool
	err     error
	retryAt int64 // end of the active file from which a failed one is asked for again
}

// failed returns the error that ended the log, if one did.
func (l *Log) failed() error {
	if p := l.dead.Load(); p != nil {
		return *p
	}
	return nil
}

// die ends the log with err, unless it has ended before, and returns the error
// that ended it.
func (l *Log) die(err error) error {
	err = fmt.Errorf("the log in %s has failed and takes nothing more: %w", l.dir, err)
	l.dead.CompareAndSwap(nil, &err)
	return l.failed()
}

// Group returns the log of a group; an empty one if nothing is stored of it.
func (l *Log) Group(id anchormesh.SegmentID) *GroupLog {
	if g := l.find(id); g != nil {
		return g
	}
	l.groupsMu.Lock()
	defer l.groupsMu.Unlock()
	g := l.groups[id]
	if g == nil {
		g = &GroupLog{log: l, id: id}
		l.groups[id] = g
	}
	return g
}

// Lost reports whether Open cut off batches behind one that was not whole. Their writes
// had returned, so only a crash of the machine can have done that.
func (l *Log) Lost() bool { return l.lost }

func (l *Log) find(id anchormesh.SegmentID) *GroupLog {
	l.groupsMu.RLock()
	defer l.groupsMu.RUnlock()
	return l.groups[id]
}

// Groups returns the groups that something is stored of, sorted.
func (l *Log) Groups() []anchormesh.SegmentID {
	l.groupsMu.RLock()
	defer l.groupsMu.RUnlock()
	var ids []anchormesh.SegmentID
	for id, g := range l.groups {
		g.mu.Lock()
		if g.headFile != 0 {
			ids = append(ids, id)
		}
		g.mu.Unlock()
	}
	slices.Sort(ids)
	return ids
}

// Truncate says that a group's entries up to a position are no longer needed:
// what was built from them is synced elsewhere. Reads see it at once; it is
// recorded with the next Append, and the room is given back after that. A
// position that is already truncated, or above the last index, changes nothing;
// one with another term than the log has is a broken invariant.
func (l *Log) Truncate(group anchormesh.SegmentID, upTo Mark) {
	g := l.find(group)
	if g == nil || !g.truncate(upTo) {
		return
	}
	l.pendMu.Lock()
	defer l.pendMu.Unlock()
	l.pendLocked(g)
}

func (l *Log) pendLocked(g *GroupLog) {
	if !g.pending {
		g.pending = true
		l.pending = append(l.pending, g)
	}
}

// file returns an open file by its number. Appender only.
func (l *Log) file(num uint32) *logFile { return l.files[num-l.files[0].num()] }

// active returns the file that is being written. Appender only.
func (l *Log) active() *logFile { return l.files[len(l.files)-1] }

// pin returns a file for reading, until its release; nil if it is gone.
func (l *Log) pin(num uint32) *logFile {
	l.filesMu.RLock()
	defer l.filesMu.RUnlock()
	if len(l.files) == 0 {
		return nil
	}
	i := int64(num) - int64(l.files[0].num())
	if i < 0 || i >= int64(len(l.files)) {
		return nil
	}
	l.files[i].users.Add(1)
	return l.files[i]
}

// Stats returns the counters.
func (l *Log) Stats() Stats {
	l.statMu.Lock()
	s := l.stats
	l.statMu.Unlock()
	s.CachedBytes = l.cache.bytes.Load()
	s.CacheMisses = l.misses.Load()
	return s
}

// Close ends the log: it waits for housekeeping, closes the files and gives the
// lock back. The appender must have stopped. Everything appended is durable
// already. A second Close returns ErrClosed.
func (l *Log) Close() error {
	err := ErrClosed
	first := l.dead.CompareAndSwap(nil, &err)
	if !first && l.failed() == ErrClosed {
		return ErrClosed
	}
	closed := ErrClosed
	l.dead.Store(&closed)
	if f := l.keeper.stop(); f != nil {
		f.release()
	}
	l.releaseFiles()
	return l.lock.Close()
}

// releaseFiles closes all files, each when its last reader is done.
func (l *Log) releaseFiles() {
	files := l.files
	l.setFiles(nil)
	if l.spare.file != nil {
		files = append(files, l.spare.file)
	}
	for _, f := range files {
		f.release()
	}
}
