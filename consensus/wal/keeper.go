package wal

import (
	"errors"
	"fmt"
	"sync"

	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// mailboxJobs bounds the jobs that wait for the keeper. One is to prepare a
// file; a removal that finds no room is offered again by the next Append.
const mailboxJobs = 8

// keeper does the slow work that no batch should wait for, in one goroutine: it
// prepares the next file and removes old ones.
type keeper struct {
	fs      fsys.FS
	dir     string
	fatal   func(error) // ends the log
	trouble func(error) // tells of what may still be repaired

	jobs   chan job
	ready  chan prepared // holds one: a file is asked for only when there is none
	joined sync.WaitGroup
	inline bool
}

// job is either a header of a file to prepare or a file to remove.
type job struct {
	prepare *fileHeader
	remove  *logFile
}

type prepared struct {
	file *logFile
	err  error
}

func (k *keeper) start() {
	k.jobs = make(chan job, mailboxJobs)
	k.ready = make(chan prepared, 1)
	if k.inline {
		return
	}
	k.joined.Go(func() {
		for j := range k.jobs {
			k.do(j)
		}
	})
}

// stop waits until all jobs are done and returns a prepared file that nobody
// took.
func (k *keeper) stop() *logFile {
	close(k.jobs)
	k.joined.Wait()
	select {
	case p := <-k.ready:
		return p.file
	default:
		return nil
	}
}

// offer gives the keeper a job and reports whether it had room for it.
func (k *keeper) offer(j job) bool {
	if k.inline {
		k.do(j)
		return true
	}
	select {
	case k.jobs <- j:
		return true
	default:
		return false
	}
}

func (k *keeper) do(j job) {
	if j.remove != nil {
		k.remove(j.remove)
		return
	}
	failpoint.Hit("wal/before-prepare")
	f, err := createFile(k.fs, k.dir, *j.prepare)
	if errors.Is(err, errDirSync) {
		k.fatal(err)
	}
	k.ready <- prepared{f, err}
}

// remove deletes a file. The directory is synced after each one, so that the
// numbers of the files that are left have no gap after a power cut.
func (k *keeper) remove(f *logFile) {
	failpoint.Hit("wal/before-remove")
	if err := errors.Join(f.release(), k.fs.Remove(f.name)); err != nil {
		// It stays below the floor, and the next Open removes it. Files after
		// it must not go first.
		k.fatal(fmt.Errorf("removing an old log file: %w", err))
		return
	}
	if err := k.fs.SyncDir(k.dir); err != nil {
		k.fatal(fmt.Errorf("%w: %w", errDirSync, err))
	}
}

// keepHouse does what is due after a batch.
func (l *Log) keepHouse() {
	l.lastOwn = len(l.enc.buf) - l.enc.carried
	if l.tail.confirmed.Load() >= l.statedAt {
		l.recorded = l.stated
	}
	l.dropNeedless()
	l.settleFloor()
	l.pollSpare(false)
	if l.spare.file == nil && !l.spare.asked && l.active().end >= l.spare.retryAt {
		l.askSpare()
	}
	l.noteState()
}

// askSpare lets the keeper prepare the next file.
func (l *Log) askSpare() {
	l.spare.asked = l.keeper.offer(l.nextFile())
}

func (l *Log) nextFile() job {
	return job{prepare: &fileHeader{num: l.active().num() + 1, size: l.opts.FileBytes, id: l.id}}
}

// pollSpare takes the prepared file if it is there, or waits for it.
func (l *Log) pollSpare(wait bool) {
	if !l.spare.asked {
		return
	}
	var p prepared
	if wait {
		p = <-l.keeper.ready
	} else {
		select {
		case p = <-l.keeper.ready:
		default:
			return
		}
	}
	l.spare = spare{file: p.file, err: p.err}
	if p.err != nil {
		l.spare.retryAt = l.active().end + l.active().header.size/8
		l.keeper.trouble(fmt.Errorf("preparing the next log file: %w", p.err))
	}
}

// rotate goes on in the next file. All before it is synced, so that only the newest
// file can end in batches that are not.
func (l *Log) rotate() error {
	if err := l.Sync(); err != nil {
		return err
	}
	failpoint.Hit("wal/before-rotate")
	l.pollSpare(false)
	waited := l.spare.file == nil
	// A file that failed while it was prepared is tried once more: room may
	// have come free since.
	for try := 0; l.spare.file == nil && try < 2; try++ {
		if !l.spare.asked {
			l.keeper.demand(l.nextFile())
			l.spare.asked = true
		}
		l.pollSpare(true)
	}
	if l.spare.file == nil {
		return fmt.Errorf("no next log file of %d bytes could be made in %s (%w): free space there and start the node again",
			l.opts.FileBytes, l.dir, l.spare.err)
	}
	l.setFiles(append(l.files, l.spare.file))
	l.spare = spare{}
	l.rotated = true
	l.statMu.Lock()
	defer l.statMu.Unlock()
	l.stats.Rotations++
	if waited {
		l.stats.RotationWaits++
	}
	return nil
}

// demand gives the keeper a job, waiting for room.
func (k *keeper) demand(j job) {
	if k.inline {
		k.do(j)
		return
	}
	k.jobs <- j
}

func (l *Log) noteState() {
	l.statMu.Lock()
	defer l.statMu.Unlock()
	s := &l.stats
	s.Groups, s.Files, s.DiskBytes, s.LiveBytes = l.stored, len(l.files), 0, 0
	for _, f := range l.files {
		s.DiskBytes += f.header.size
		s.LiveBytes += f.liveBytes
	}
	if s.Spare, s.SpareErr = l.spare.file != nil, l.spare.err; s.Spare {
		s.Files++
		s.DiskBytes += l.spare.file.header.size
	}
}
