package wal

import (
	"errors"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
	"go.etcd.io/raft/v3/raftpb"
)

var (
	// ErrClosed is returned by every call after Close.
	ErrClosed = errors.New("the log is closed")
	// ErrBadUpdate is returned by Append for a batch that contradicts the log,
	// such as entries that leave a gap. Nothing of the batch was written and
	// the log goes on.
	ErrBadUpdate = errors.New("bad log update")
	// ErrBatchTooBig is returned by Append for a batch that does not fit into
	// one log file, and by Write for an entry that does not. Nothing of it was
	// written and the log goes on.
	ErrBatchTooBig = errors.New("batch does not fit into a log file")
	// ErrForeign is returned by Open and Dump for a file that is no log file.
	ErrForeign = errors.New("not an AnchorMesh log file")
	// ErrNewer is returned by Open and Dump for a file of a newer format.
	ErrNewer = errors.New("log file of a newer format")
)

// CorruptError says that stored bytes are not what was written. The log is
// refused as a whole: its acknowledged entries are promises to other nodes.
type CorruptError struct {
	File   string // path of the file
	Offset int64  // where the damage begins
	Reason string // what is wrong there
}

// Error says where the damage is and what to do about it.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("log file %s is damaged at offset %d (%s): restore this node from its peers by "+
		"removing its data directory and joining again, or look at it with \"anchormesh inspect %s\"",
		e.File, e.Offset, e.Reason, e.File)
}

// Mark is a position in a group's log.
type Mark struct{ Index, Term uint64 }

// Update is what one group wants durable.
type Update struct {
	Group     anchormesh.SegmentID
	HardState *raftpb.HardState // nil: unchanged
	Entries   []*raftpb.Entry   // consecutive; replace everything from Entries[0].Index on
	Snapshot  *Mark             // not nil: the group's log restarts after this position, before Entries
	Remove    bool              // the group leaves this node; stands alone in its Update
	Promise   Promise           // zero: unchanged
}

// Promise is what an acknowledged entry of a group means from a record on. The log
// keeps it for whoever looks after a crash; to sync is the caller's.
type Promise uint8

const (
	// Unchanged leaves a group's promise as it is; a new group begins with Disk.
	Unchanged Promise = iota
	// Disk: nothing is acknowledged that is not synced.
	Disk
	// Memory: entries may be acknowledged before they are synced. It has to be synced
	// itself before the first of them is.
	Memory
)

// Options tunes a log; start from DefaultOptions.
type Options struct {
	// FileBytes is the size of a new log file. It bounds a batch and is the
	// unit in which room is given back; two files are always allocated.
	FileBytes int64
	// CacheBytes bounds the memory of recent entries, node-wide. The oldest
	// appended leave first and are then read back from the files.
	CacheBytes int64
	// CarryBytes bounds what one Append adds to its batch to move live records
	// out of the oldest file.
	CarryBytes int
	// Listener hears about what the log does; nil funcs are skipped.
	Listener Listener

	inline bool // housekeeping runs inside Append: exact I/O order for tests
}

// DefaultOptions returns what a node uses.
func DefaultOptions() Options {
	return Options{FileBytes: 64 << 20, CacheBytes: 16 << 20, CarryBytes: 256 << 10}
}

// Validate says what is wrong with the options.
func (o *Options) Validate() error {
	switch {
	case o.FileBytes < minFileBytes || o.FileBytes > maxFileBytes || o.FileBytes%4096 != 0:
		return fmt.Errorf("log file size %d: want a multiple of 4096 from %d to %d", o.FileBytes, int64(minFileBytes), int64(maxFileBytes))
	case o.CacheBytes < 0:
		return fmt.Errorf("log cache size %d: want zero or more bytes", o.CacheBytes)
	case o.CarryBytes < minCarryBytes:
		return fmt.Errorf("log carry limit %d: want at least %d bytes", o.CarryBytes, minCarryBytes)
	}
	return nil
}

const (
	minFileBytes  = 8 << 10
	maxFileBytes  = 1 << 30
	minCarryBytes = 512
)

// Listener is told about events, from inside the call that causes them; its
// funcs must be quick and must not call the log.
type Listener struct {
	// Wrote is called once per batch with its bytes and the time that the write took.
	Wrote func(bytes int, took time.Duration)
	// Synced is called once per fdatasync.
	Synced func(took time.Duration)
	// Trouble is called when housekeeping failed in a way that Append may still
	// repair, such as a full disk while the next file is prepared.
	Trouble func(error)
}

// Stats is a snapshot of the log's counters.
type Stats struct {
	Batches, Updates, Entries uint64        // appended since Open
	BytesWritten              uint64        // by Append, with carried records
	BytesCarried              uint64        // part of BytesWritten that moved old records
	WriteTime, SyncTime       time.Duration // spent in write and in fdatasync
	Syncs                     uint64
	SyncMax                   time.Duration // slowest fdatasync
	Rotations, RotationWaits  uint64        // files begun; of these, those that waited for the file
	Files                     int           // on disk, with the prepared one
	DiskBytes, LiveBytes      int64         // size of the files; of what groups still need in them
	CachedBytes               int64         // recent entries in memory
	CacheMisses               uint64        // entries read back from files
	Groups                    int
	Spare                     bool  // the next file is ready
	SpareErr                  error // why it is not; rotation will fail unless this is cured
}
