package wal

import (
	"go.etcd.io/raft/v3/raftpb"
)

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
