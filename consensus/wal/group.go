package wal

import (
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// GroupLog is the log of one group as raft.Storage reads it. It stays valid for
// the life of the Log: after the group's removal it is empty, and it is the same
// again if the group comes back. Its methods may be called from any goroutine,
// also during Append; they show what has been written.
type GroupLog struct {
	log *Log
	id  anchormesh.SegmentID

	mu       sync.Mutex
	head     head
	want     Mark   // asked for by Truncate; at or above head.mark, which is durable
	refs     []ref  // refs[i] is entry head.mark.Index+1+i
	headFile uint32 // file of the newest record; 0: nothing is stored

	pending bool // on the list of groups whose mark must be recorded; guarded by log.pendMu

	// Owned by the appender.
	listed uint32 // newest file whose list of groups has this one
	staged stage
}

// stage is a group's state as it will be after the batch that is being built.
type stage struct {
	batch   uint64 // the attempt it belongs to
	stored  bool   // something is or will be stored
	written bool   // the batch has a record of the group
	head    head
	last    uint64
}

// last returns the index of the last entry, or the mark's. Caller holds mu.
func (g *GroupLog) lastLocked() uint64 { return g.head.mark.Index + uint64(len(g.refs)) }

// refLocked returns the entry with an index above head.mark and up to the last.
func (g *GroupLog) refLocked(index uint64) *ref { return &g.refs[index-g.head.mark.Index-1] }

// InitialHardState returns the hard state, or nil if none was stored.
func (g *GroupLog) InitialHardState() *raftpb.HardState {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.head.hasState {
		return nil
	}
	h := g.head
	return &raftpb.HardState{Term: &h.term, Vote: &h.vote, Commit: &h.commit}
}

// Memory reports whether entries of the group may have been acknowledged before
// they were synced: after a crash of the machine they may be gone.
func (g *GroupLog) Memory() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.head.memory
}

// FirstIndex returns the index after the group's mark.
func (g *GroupLog) FirstIndex() (uint64, error) {
	if err := g.log.failed(); err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.want.Index + 1, nil
}

// LastIndex returns the index of the last entry; the mark's if there is none.
func (g *GroupLog) LastIndex() (uint64, error) {
	if err := g.log.failed(); err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lastLocked(), nil
}

// Term returns the term of entry i, from the mark's index up to the last;
// raft.ErrCompacted below, raft.ErrUnavailable above.
func (g *GroupLog) Term(i uint64) (uint64, error) {
	if err := g.log.failed(); err != nil {
		return 0, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case i < g.want.Index:
		return 0, raft.ErrCompacted
	case i == g.want.Index:
		return g.want.Term, nil
	case i > g.lastLocked():
		return 0, raft.ErrUnavailable
	}
	return g.refLocked(i).term, nil
}

// miss is an entry that must be read from its file: out[slot] of a read.
type miss struct {
	slot int
	ref  ref
}

// Entries returns the entries from lo up to, not including, hi: as many as fit
// into maxSize bytes of protobuf, but at least one. The slice is the caller's,
// the entries are shared and must not be changed. It fails with
// raft.ErrCompacted if lo is at or below the mark, with raft.ErrUnavailable if
// hi is above the last index plus one, and with a CorruptError if the file no
// longer holds what was written.
func (g *GroupLog) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	for {
		if err := g.log.failed(); err != nil {
			return nil, err
		}
		out, missing, err := g.collect(lo, hi, maxSize)
		if err != nil || len(missing) == 0 {
			return out, err
		}
		// A file that vanished meanwhile was emptied first: its entries have
		// moved or are compacted, and the index already says which.
		if gone, err := g.load(out, lo, missing); err != nil {
			return nil, err
		} else if !gone {
			return out, nil
		}
	}
}

func (g *GroupLog) collect(lo, hi, maxSize uint64) ([]*raftpb.Entry, []miss, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if lo <= g.want.Index {
		return nil, nil, raft.ErrCompacted
	}
	if hi > g.lastLocked()+1 {
		return nil, nil, raft.ErrUnavailable
	}
	if lo >= hi {
		return nil, nil, nil
	}
	refs := g.refs[lo-g.head.mark.Index-1 : hi-g.head.mark.Index-1]
	size := refs[0].protoBytes(lo)
	n := 1
	for ; n < len(refs); n++ {
		if size += refs[n].protoBytes(lo + uint64(n)); size > maxSize {
			break
		}
	}
	out := make([]*raftpb.Entry, n)
	var missing []miss
	for i := range out {
		if out[i] = refs[i].ent; out[i] == nil {
			missing = append(missing, miss{i, refs[i]})
		}
	}
	return out, missing, nil
}

// truncate raises the mark in memory. It reports whether that must be recorded.
func (g *GroupLog) truncate(upTo Mark) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.headFile == 0 || upTo.Index <= g.want.Index || upTo.Index > g.lastLocked() {
		return false
	}
	if term := g.refLocked(upTo.Index).term; term != upTo.Term {
		invariant.Broken("group %v truncated up to index %d of term %d, but the log has term %d there",
			g.id, upTo.Index, upTo.Term, term)
	}
	g.want = upTo
	return true
}

const (
	readBytesMax = 1 << 20 // per read of a file, unless one entry is larger
	readGapMax   = 4 << 10 // bytes between two entries that are read along
)

// load reads the missing entries of out, whose first has index lo. It reports
// true if a file is gone because everything in it has moved or died.
func (g *GroupLog) load(out []*raftpb.Entry, lo uint64, missing []miss) (gone bool, err error) {
	g.log.misses.Add(uint64(len(missing)))
	room := make([]loaded, len(missing))
	for len(missing) > 0 {
		n := span(missing)
		f := g.log.pin(missing[0].ref.file)
		if f == nil {
			return true, nil
		}
		err := g.loadSpan(f, out, lo, missing[:n], room[:n])
		f.release()
		if err != nil {
			return false, err
		}
		missing, room = missing[n:], room[n:]
	}
	return false, nil
}

// span returns how many of the entries are read at once.
func span(missing []miss) int {
	first := missing[0].ref
	end := int(first.off) + first.diskBytes()
	for i, m := range missing[1:] {
		off := int(m.ref.off)
		next := off + m.ref.diskBytes()
		if m.ref.file != first.file || off < end || off > end+readGapMax || next-int(first.off) > readBytesMax {
			return i + 1
		}
		end = next
	}
	return len(missing)
}

func (g *GroupLog) loadSpan(f *logFile, out []*raftpb.Entry, lo uint64, missing []miss, room []loaded) error {
	first, last := missing[0].ref, missing[len(missing)-1].ref
	buf := make([]byte, int(last.off)+last.diskBytes()-int(first.off))
	if _, err := f.f.ReadAt(buf, int64(first.off)); err != nil {
		return &CorruptError{File: f.name, Offset: int64(first.off), Reason: "entries cannot be read: " + err.Error()}
	}
	for i := range missing {
		m := &missing[i]
		at := int(m.ref.off - first.off)
		b := buf[at : at+m.ref.diskBytes()]
		index := lo + uint64(m.slot)
		if !entryIntact(b, g.id, index, &m.ref) {
			return g.log.rotten(f, &m.ref)
		}
		out[m.slot] = decodeEntry(&room[i], b, index, &m.ref)
	}
	return nil
}

// rotten is the error for an entry that is no longer what was written.
func (l *Log) rotten(f *logFile, r *ref) error {
	return &CorruptError{File: f.name, Offset: int64(r.off), Reason: "an entry fails its checksum"}
}
