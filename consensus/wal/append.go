package wal

import (
	"fmt"
	"iter"
	"time"

	"github.com/anchormesh/anchormesh/internal/failpoint"
	"github.com/anchormesh/anchormesh/internal/frame"
	"go.etcd.io/raft/v3/raftpb"
)

// marksPerAppend bounds the truncation marks that one Append records for groups
// that have nothing else in the batch.
const marksPerAppend = 256

// writeBytesMax is the most that Write puts into one batch, but for a single larger entry: the
// room in which a batch is built is kept.
const writeBytesMax = 8 << 20

// What a record and an entry take at most, beside the entry's data.
const (
	recordBytesMax = 1 + 8 + 7*10
	entryExtraMax  = entrySumBytes + 10 + 1 + 5
)

// encoder is the batch being built; its room is used again for the next.
type encoder struct {
	attempt uint64 // tells stages of this batch from older ones
	buf     []byte // frame header, then records
	recs    []stagedRecord
	refs    []ref // of all records; offsets count from the beginning of buf
	carried int   // bytes of buf up to which records are carried ones
	updates int
	entries int
}

type stagedRecord struct {
	g        *GroupLog
	flags    uint8
	head     head
	first    uint64
	from, to int // in encoder.refs
}

var noHeader [frame.HeaderBytes]byte

func (e *encoder) reset() {
	e.attempt++
	e.buf = append(e.buf[:0], noHeader[:]...)
	clear(e.recs)
	clear(e.refs) // they hold entries
	e.recs, e.refs = e.recs[:0], e.refs[:0]
	e.carried, e.updates, e.entries = len(e.buf), 0, 0
}

// Append makes a batch durable: one write and one fdatasync. When it returns nil
// everything in it is on disk and visible to reads. ErrBadUpdate and
// ErrBatchTooBig say that nothing was written and the log goes on; after any
// other error its caller must stop the process, and every later call returns
// that error. Append(nil) records pending truncation marks, if there are any.
//
// The log keeps the entries and their data, which must not be changed later.
func (l *Log) Append(batch []Update) error { return l.add(batch, l.Sync) }

// Write is Append without the sync: when it returns nil, everything in the batch is
// visible to reads and outlives the process, but not the machine. Sync makes it
// durable. The same caller as Append's.
//
// What is too much for one batch is written as several, in order; of an update the
// entries are parted where that is needed. After ErrBadUpdate and ErrBatchTooBig
// some of them may be written.
func (l *Log) Write(batch []Update) error {
	const frameRoom = 2 * frame.HeaderBytes // a frame's header, and what pads it
	for part := range parts(batch, min(writeBytesMax, l.batchBytesMax()-frameRoom)) {
		if err := l.add(part, l.failed); err != nil {
			return err
		}
	}
	return nil
}

// bytesMax is the most that an update takes in a batch.
func (u *Update) bytesMax() int64 {
	n := int64(recordBytesMax)
	for _, e := range u.Entries {
		n += entryBytesMax(e)
	}
	return n
}

func entryBytesMax(e *raftpb.Entry) int64 { return int64(entryExtraMax + len(e.GetData())) }

// parts cuts a batch into such that take no more than limit bytes each, but for one that is a
// single entry: a follower that catches up may be sent more at once than a file holds. A batch
// that need not be cut, an empty one too, is its own only part.
func parts(batch []Update, limit int64) iter.Seq[[]Update] {
	return func(yield func([]Update) bool) {
		begin, size := 0, int64(0)
		for i := range batch {
			if size += batch[i].bytesMax(); size <= limit {
				continue
			}
			if begin < i && !yield(batch[begin:i]) {
				return
			}
			begin, size = i, batch[i].bytesMax()
			if size <= limit || len(batch[i].Entries) < 2 {
				continue
			}
			for rest := batch[i]; len(rest.Entries) > 0; {
				var first Update
				first, rest = rest.cut(limit)
				if !yield([]Update{first}) {
					return
				}
			}
			begin, size = i+1, 0
		}
		if begin < len(batch) || begin == 0 {
			yield(batch[begin:])
		}
	}
}

// cut parts the entries of an update in two: as many as take no more than limit bytes, but one
// at least, and the rest, which may be none. Both are what raft could have asked for: the first
// has term and vote, and of the commit index only what it has the entries of.
func (u *Update) cut(limit int64) (first, rest Update) {
	n, size := 1, recordBytesMax+entryBytesMax(u.Entries[0])
	for n < len(u.Entries) && size+entryBytesMax(u.Entries[n]) <= limit {
		size += entryBytesMax(u.Entries[n])
		n++
	}
	first, rest = *u, *u
	first.Entries, rest.Entries = u.Entries[:n:n], u.Entries[n:]
	rest.Snapshot, rest.Promise = nil, Unchanged
	if hs := u.HardState; hs != nil && len(rest.Entries) > 0 {
		commit := min(hs.GetCommit(), u.Entries[n-1].GetIndex())
		first.HardState = &raftpb.HardState{Term: hs.Term, Vote: hs.Vote, Commit: &commit}
	}
	return first, rest
}

func (l *Log) add(batch []Update, settle func() error) error {
	if err := l.failed(); err != nil {
		return err
	}
	next, err := l.build(batch)
	if err != nil {
		return err
	}
	if len(l.enc.recs) == 0 {
		return nil
	}
	if err := l.write(); err != nil {
		return l.die(err)
	}
	l.carry = next
	l.publish()
	if err := settle(); err != nil {
		return err
	}
	l.keepHouse()
	return nil
}

// build encodes the batch: carried records first, because they state what was
// before it. It returns where carrying goes on.
func (l *Log) build(batch []Update) (carrier, error) {
	l.enc.reset()
	next, err := l.stageCarry()
	if err != nil {
		return next, l.die(err)
	}
	l.enc.carried = len(l.enc.buf)
	if err := l.stageBatch(batch); err != nil {
		return next, err
	}
	if l.frameBytes() > l.batchBytesMax() {
		l.enc.reset()
		next = l.carry
		if err := l.stageBatch(batch); err != nil {
			return next, err
		}
	}
	if n := l.frameBytes(); n > l.batchBytesMax() {
		return next, fmt.Errorf("%w: it takes %d bytes, the limit is %d", ErrBatchTooBig, n, l.batchBytesMax())
	}
	l.stageMarks()
	return next, nil
}

func (l *Log) frameBytes() int64    { return int64(frame.Padded(len(l.enc.buf) - frame.HeaderBytes)) }
func (l *Log) batchBytesMax() int64 { return l.opts.FileBytes - fileHeaderBytes }

// stageOf returns the group's state as the batch so far leaves it.
func (l *Log) stageOf(g *GroupLog) *stage {
	s := &g.staged
	if s.batch == l.enc.attempt {
		return s
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	*s = stage{batch: l.enc.attempt, stored: g.headFile != 0, head: g.head, last: g.lastLocked()}
	s.head.mark = g.want
	return s
}

func (l *Log) stageBatch(batch []Update) error {
	for i := range batch {
		u := &batch[i]
		if err := l.stageUpdate(u); err != nil {
			return fmt.Errorf("%w: group %v: %w", ErrBadUpdate, u.Group, err)
		}
	}
	return nil
}

func (l *Log) stageUpdate(u *Update) error {
	if u.Group == 0 {
		return fmt.Errorf("the group ID is zero")
	}
	g := l.Group(u.Group)
	s := l.stageOf(g)
	if u.Remove {
		return l.stageRemove(g, s, u)
	}
	if u.HardState == nil && u.Snapshot == nil && len(u.Entries) == 0 && u.Promise == Unchanged {
		return nil
	}
	var flags uint8
	if u.Snapshot != nil {
		if u.Snapshot.Index == 0 || u.Snapshot.Index < s.head.mark.Index {
			return fmt.Errorf("snapshot at index %d, but the log begins behind %d", u.Snapshot.Index, s.head.mark.Index)
		}
		s.head.mark, s.last = *u.Snapshot, u.Snapshot.Index
		flags |= flagRestart
	}
	if err := checkEntries(s, u); err != nil {
		return err
	}
	if hs := u.HardState; hs != nil {
		s.head.hasState = true
		s.head.term, s.head.vote, s.head.commit = hs.GetTerm(), hs.GetVote(), hs.GetCommit()
	}
	if u.Promise != Unchanged {
		s.head.memory = u.Promise == Memory
	}
	s.stored = true
	l.enc.updates++
	l.stageEntries(g, s, u, flags)
	return nil
}

// checkEntries refuses what would leave a gap or reach below the mark.
func checkEntries(s *stage, u *Update) error {
	if len(u.Entries) == 0 {
		return nil
	}
	next := u.Entries[0].GetIndex()
	if next <= s.head.mark.Index || next > s.last+1 {
		return fmt.Errorf("entries from index %d on, but the log has %d to %d", next, s.head.mark.Index+1, s.last)
	}
	term := uint64(0)
	for _, e := range u.Entries {
		if e.GetIndex() != next || e.GetTerm() < term {
			return fmt.Errorf("entry (index %d, term %d) where index %d of term %d or higher is due",
				e.GetIndex(), e.GetTerm(), next, term)
		}
		next, term = next+1, e.GetTerm()
	}
	return nil
}

func (l *Log) stageRemove(g *GroupLog, s *stage, u *Update) error {
	if u.HardState != nil || u.Snapshot != nil || len(u.Entries) > 0 || u.Promise != Unchanged {
		return fmt.Errorf("a removal stands alone")
	}
	if !s.stored {
		return nil
	}
	e := &l.enc
	e.updates++
	e.buf = appendRecordHead(e.buf, flagRemove, g.id, head{})
	e.recs = append(e.recs, stagedRecord{g: g, flags: flagRemove})
	*s = stage{batch: s.batch}
	return nil
}

func (l *Log) stageEntries(g *GroupLog, s *stage, u *Update, flags uint8) {
	e := &l.enc
	rec := stagedRecord{g: g, flags: flags, head: s.head, from: len(e.refs), to: len(e.refs)}
	if n := len(u.Entries); n > 0 {
		rec.flags |= flagEntries
		rec.first = u.Entries[0].GetIndex()
		rec.to += n
		s.last = rec.first + uint64(n) - 1
		e.entries += n
	}
	e.buf = appendRecordHead(e.buf, rec.flags, g.id, s.head)
	if len(u.Entries) > 0 {
		e.buf = appendEntriesHead(e.buf, rec.first, len(u.Entries))
	}
	for i, ent := range u.Entries {
		r := refOf(ent, len(e.buf))
		e.buf = appendEntry(e.buf, g.id, rec.first+uint64(i), &r, ent.Data)
		e.refs = append(e.refs, r)
	}
	e.recs = append(e.recs, rec)
	s.written = true
}

// stageMarks records truncation marks of groups that are not in the batch.
func (l *Log) stageMarks() {
	const room = 2 * headBytesBudget
	e := &l.enc
	l.pendMu.Lock()
	taken := l.pending[:min(len(l.pending), marksPerAppend)]
	for i, g := range taken {
		if l.frameBytes()+room > l.batchBytesMax() {
			taken = taken[:i]
			break
		}
		g.pending = false
		s := l.stageOf(g)
		g.mu.Lock()
		want, have := g.want.Index, g.head.mark.Index
		g.mu.Unlock()
		switch {
		case !s.stored || want == have:
		case s.head.mark.Index < want:
			// Truncated after the group was staged: next time.
			defer l.pendAgain(g)
		case !s.written:
			e.buf = appendRecordHead(e.buf, 0, g.id, s.head)
			e.recs = append(e.recs, stagedRecord{g: g, head: s.head})
		}
	}
	l.pending = l.pending[:copy(l.pending, l.pending[len(taken):])]
	l.pendMu.Unlock()
}

func (l *Log) pendAgain(g *GroupLog) {
	l.pendMu.Lock()
	defer l.pendMu.Unlock()
	l.pendLocked(g)
}

// write gives the batch to the kernel.
func (l *Log) write() error {
	buf, need := l.enc.buf, l.frameBytes()
	// A file made under another Options.FileBytes may be too small and stay empty.
	for l.active().end+need > l.active().header.size {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.unsynced() >= unsyncedMax {
		if err := l.Sync(); err != nil {
			return err
		}
	}
	f := l.active()
	frame.Seal(buf, f.seed, f.end, l.seq+1, mark{floor: l.floor, unsynced: uint32(l.unsynced())}.word())
	failpoint.Hit("wal/before-write")
	begin := time.Now()
	if _, err := f.f.WriteAt(buf, f.end); err != nil {
		return fmt.Errorf("writing %s: %w", f.name, err)
	}
	failpoint.Hit("wal/after-write")
	l.noteWrite(len(buf), time.Since(begin))
	return nil
}

func (l *Log) noteWrite(bytes int, took time.Duration) {
	l.statMu.Lock()
	s := &l.stats
	s.Batches++
	s.Updates += uint64(l.enc.updates)
	s.Entries += uint64(l.enc.entries)
	s.BytesWritten += uint64(bytes)
	s.BytesCarried += uint64(l.enc.carried - frame.HeaderBytes)
	s.WriteTime += took
	l.statMu.Unlock()
	if f := l.opts.Listener.Wrote; f != nil {
		f(bytes, took)
	}
}

// publish makes the written batch visible.
func (l *Log) publish() {
	e, f := &l.enc, l.active()
	base := uint32(f.end)
	for i := range e.refs {
		e.refs[i].off += base
	}
	for i := range e.recs {
		s := &e.recs[i]
		rec := record{flags: s.flags, group: s.g.id, head: s.head, first: s.first, refs: e.refs[s.from:s.to]}
		if ok := l.apply(s.g, &rec, f); !ok {
			panic(fmt.Sprintf("wal: group %v: a record was staged that contradicts the log", s.g.id))
		}
		if s.flags&(flagEntries|flagCarried) == flagEntries {
			l.cache.push(cacheRun{g: s.g, first: s.first, n: uint64(s.to - s.from)})
		}
	}
	l.cache.trim(l.opts.CacheBytes)
	f.end += l.frameBytes()
	l.seq++
	if l.stated != l.floor {
		l.stated, l.statedAt = l.floor, l.seq
	}
	l.tail.wrote(f, l.seq)
}
