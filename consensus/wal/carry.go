package wal

import (
	"github.com/anchormesh/anchormesh/internal/invariant"
)

// carryBytesMin is what an Append carries at least while there is something to
// carry, however small its own batch is.
const carryBytesMin = 4 << 10

// carrier is the place up to which the oldest file has been emptied: what groups
// still need of it is written again, at the head of new batches, so that it can
// go. The zero carrier rests.
type carrier struct {
	file  uint32 // the file being emptied
	group int    // in its list of groups
	index uint64 // in that group's log
}

// oldest returns the first file that is needed.
func (l *Log) oldest() *logFile { return l.file(l.floor) }

// stageCarry adds live records of the oldest file to the batch: twice as many
// bytes as the last batch had of its own, so that emptying outruns writing, and
// within the limits.
func (l *Log) stageCarry() (carrier, error) {
	c := l.carry
	if c.file == 0 {
		return c, nil
	}
	f := l.file(c.file)
	limit := min(l.opts.CarryBytes, max(carryBytesMin, 2*l.lastOwn))
	for c.group < len(f.groups) && len(l.enc.buf) < limit {
		done, err := l.carryGroup(f, f.groups[c.group], &c, limit)
		if err != nil {
			return c, err
		}
		if done {
			c.group, c.index = c.group+1, 0
		}
	}
	return c, nil
}

// carryGroup adds what one group needs of the file, run by run, and reports
// whether that was all.
func (l *Log) carryGroup(f *logFile, g *GroupLog, c *carrier, limit int) (done bool, err error) {
	s := l.stageOf(g)
	if !s.stored {
		return true, nil
	}
	for index := max(c.index, s.head.mark.Index+1); index <= s.last; index++ {
		if g.refLocked(index).file != f.num() {
			continue
		}
		n, err := l.carryRun(f, g, s, index, limit)
		if err != nil {
			return false, err
		}
		c.index = index + n
		if len(l.enc.buf) >= limit {
			return false, nil
		}
		index += n - 1
	}
	// A mark that is not durable yet keeps dead entries on the accounts.
	if !s.written && (g.headFile == f.num() || g.head.mark != s.head.mark) {
		l.enc.buf = appendRecordHead(l.enc.buf, flagCarried, g.id, s.head)
		l.enc.recs = append(l.enc.recs, stagedRecord{g: g, flags: flagCarried, head: s.head})
		s.written = true
	}
	return true, nil
}

// carryRun adds the entries from index on that lie in the file next to each
// other in the group's log. The appender reads the index without its lock:
// nobody else changes it.
func (l *Log) carryRun(f *logFile, g *GroupLog, s *stage, index uint64, limit int) (uint64, error) {
	e := &l.enc
	n, size := uint64(0), len(e.buf)
	for index+n <= s.last && size < limit {
		r := g.refLocked(index + n)
		if r.file != f.num() {
			break
		}
		size += r.diskBytes()
		n++
	}
	const flags = flagCarried | flagEntries
	e.buf = appendRecordHead(e.buf, flags, g.id, s.head)
	e.buf = appendEntriesHead(e.buf, index, int(n))
	rec := stagedRecord{g: g, flags: flags, head: s.head, first: index, from: len(e.refs)}
	for i := range n {
		r := *g.refLocked(index + i)
		at := len(e.buf)
		if err := l.copyEntry(f, g, index+i, &r); err != nil {
			return 0, err
		}
		r.off = uint32(at)
		e.refs = append(e.refs, r)
	}
	rec.to = len(e.refs)
	e.recs = append(e.recs, rec)
	s.written = true
	return n, nil
}

// copyEntry adds an entry's encoded bytes to the batch, from memory or as they
// stand in the file.
func (l *Log) copyEntry(f *logFile, g *GroupLog, index uint64, r *ref) error {
	e := &l.enc
	if r.ent != nil {
		e.buf = appendEntry(e.buf, g.id, index, r, r.ent.Data)
		return nil
	}
	at, size := len(e.buf), r.diskBytes()
	e.buf = append(e.buf, make([]byte, size)...)
	b := e.buf[at:]
	if _, err := f.f.ReadAt(b, int64(r.off)); err != nil {
		return &CorruptError{File: f.name, Offset: int64(r.off), Reason: "entries cannot be read: " + err.Error()}
	}
	if !entryIntact(b, g.id, index, r) {
		return l.rotten(f, r)
	}
	return nil
}

// settleFloor moves the floor over files that nothing is needed of. All that
// made them needless is synced: the accounts change only in publish. The floor
// is recorded in the next frame, and the files go after that one is synced.
func (l *Log) settleFloor() {
	before := l.floor
	for l.floor < l.active().num() && l.oldest().live == 0 {
		l.floor++
	}
	if l.carry.file != 0 && l.carry.file < l.floor {
		l.carry = carrier{}
	}
	if l.carry.file != 0 {
		if f := l.file(l.carry.file); l.carry.group >= len(f.groups) {
			invariant.Broken("log file %d was emptied and has %d live records", f.num(), f.live)
		}
	}
	if l.floor != before || l.rotated {
		l.decideCarry()
	}
	l.rotated = false
}

// decideCarry begins to empty the oldest file if half a file or more would be
// won and at least as much of the log is dead as is live. So files take at most
// about twice the room of what is needed, and carrying at most doubles what is
// written.
func (l *Log) decideCarry() {
	if l.carry.file != 0 || l.oldest() == l.active() {
		return
	}
	var room, live int64
	for _, f := range l.files[l.floor-l.files[0].num() : len(l.files)-1] {
		room += f.header.size
		live += f.liveBytes
	}
	if dead := room - live; dead >= live && dead >= l.opts.FileBytes/2 {
		l.carry = carrier{file: l.floor}
	}
}

// dropNeedless hands files below the recorded floor to the keeper.
func (l *Log) dropNeedless() {
	for l.files[0].num() < l.recorded {
		old := l.files
		l.setFiles(old[1:]) // nobody begins to read it from here on
		if !l.keeper.offer(job{remove: old[0]}) {
			l.setFiles(old) // the mailbox is full: with the next Append
			return
		}
	}
}

func (l *Log) setFiles(files []*logFile) {
	l.filesMu.Lock()
	l.files = files
	l.filesMu.Unlock()
}
