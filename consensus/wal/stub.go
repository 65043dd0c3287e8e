package wal

import (
	"io"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"go.etcd.io/raft/v3/raftpb"
)

// Log is the write-ahead log of a node.
type Log struct{}

// GroupLog is the log of one group.
type GroupLog struct{}

// Open recovers the log in dir, or begins one.
func Open(fs fsys.FS, dir string, opts Options) (*Log, error) { panic("not yet") }

// Append makes a batch durable; one caller at a time.
func (l *Log) Append(batch []Update) error { panic("not yet") }

// Truncate says that entries up to a position are no longer needed.
func (l *Log) Truncate(group anchormesh.SegmentID, upTo Mark) { panic("not yet") }

// Groups returns the groups that have something in the log, sorted.
func (l *Log) Groups() []anchormesh.SegmentID { panic("not yet") }

// Group returns the log of a group; an empty one if there is none yet.
func (l *Log) Group(id anchormesh.SegmentID) *GroupLog { panic("not yet") }

// Stats returns the counters.
func (l *Log) Stats() Stats { panic("not yet") }

// Close ends the log.
func (l *Log) Close() error { panic("not yet") }

// InitialHardState returns the group's hard state, nil if it has none.
func (g *GroupLog) InitialHardState() *raftpb.HardState { panic("not yet") }

// Entries is raft.Storage's.
func (g *GroupLog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) { panic("not yet") }

// Term is raft.Storage's.
func (g *GroupLog) Term(i uint64) (uint64, error) { panic("not yet") }

// FirstIndex is raft.Storage's.
func (g *GroupLog) FirstIndex() (uint64, error) { panic("not yet") }

// LastIndex is raft.Storage's.
func (g *GroupLog) LastIndex() (uint64, error) { panic("not yet") }

// Dump writes what is in a log file or directory as lines.
func Dump(fs fsys.FS, path string, w io.Writer) error { panic("not yet") }

// DumpJSON is Dump with one JSON object per line.
func DumpJSON(fs fsys.FS, path string, w io.Writer) error { panic("not yet") }
