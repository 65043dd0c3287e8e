package wal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh/internal/failpoint"
)

// unsyncedMax bounds the batches that wait for a sync; Write syncs the log itself
// before one more.
const unsyncedMax = 1 << 16

// tail is where the log ends, for Sync, which runs beside the appender.
type tail struct {
	confirmed atomic.Uint64 // the last frame that is synced

	syncing sync.Mutex // one fdatasync at a time: the kernel tells a failure once

	mu   sync.Mutex
	file *logFile
	seq  uint64 // of the last frame
}

func (t *tail) wrote(f *logFile, seq uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.file, t.seq = f, seq
}

// restart is for a log that was read and confirmed as a whole.
func (t *tail) restart(seq uint64) {
	t.seq = seq
	t.confirmed.Store(seq)
}

// unsynced returns how many batches were written and are not known to be synced.
func (l *Log) unsynced() uint64 { return l.seq - l.tail.confirmed.Load() }

// Sync makes everything durable that was written before the call. It may run on
// another goroutine than Write and beside it. After an error the caller must stop the
// process, and every later call of the log returns that error.
//
// One file is synced: a file is begun only when the one before it is synced.
func (l *Log) Sync() error {
	if err := l.failed(); err != nil {
		return err
	}
	t := &l.tail
	t.syncing.Lock()
	defer t.syncing.Unlock()
	t.mu.Lock()
	f, seq := t.file, t.seq
	t.mu.Unlock()
	if seq == t.confirmed.Load() {
		return nil
	}
	failpoint.Hit("wal/before-sync")
	begin := time.Now()
	if err := f.f.Datasync(); err != nil {
		return l.die(fmt.Errorf("syncing %s: %w", f.name, err))
	}
	failpoint.Hit("wal/after-sync")
	t.confirmed.Store(seq)
	l.noteSync(time.Since(begin))
	return nil
}

func (l *Log) noteSync(took time.Duration) {
	l.statMu.Lock()
	l.stats.Syncs++
	l.stats.SyncTime += took
	l.stats.SyncMax = max(l.stats.SyncMax, took)
	l.statMu.Unlock()
	if f := l.opts.Listener.Synced; f != nil {
		f(took)
	}
}

// mark is the word of the log in a frame's header: the first file that is needed, and
// how many of the frames before this one were not known to be synced when it was
// written. All before those were.
type mark struct {
	floor    uint32
	unsynced uint32
}

func (m mark) word() uint64 { return uint64(m.unsynced)<<32 | uint64(m.floor) }

func parseMark(word uint64) mark { return mark{floor: uint32(word), unsynced: uint32(word >> 32)} }

// confirms returns the last frame that was synced when the one numbered seq was
// written.
func (m mark) confirms(seq uint64) uint64 {
	if uint64(m.unsynced) >= seq {
		return 0
	}
	return seq - 1 - uint64(m.unsynced)
}
