package wal

import (
	"slices"

	"github.com/anchormesh/anchormesh/internal/invariant"
)

// holesMax bounds the unknown entries of a group while the log is recovered;
// more is taken as damage.
const holesMax = 1 << 24

// apply puts a record that stands in f into the index. The appender calls it
// for records that are synced, recovery for those it finds; so both arrive at
// the same state. It reports false for a record that contradicts the ones
// before, which recovery takes as damage.
func (l *Log) apply(g *GroupLog, r *record, f *logFile) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r.is(flagRemove) {
		l.forgetLocked(g)
		return true
	}
	if r.head.mark.Index < g.head.mark.Index {
		return false
	}
	if r.is(flagRestart) {
		l.cutLocked(g, 0)
	}
	l.dropLocked(g, r.head.mark.Index-g.head.mark.Index)
	l.moveHeadLocked(g, f)
	g.head = r.head
	if g.want.Index < g.head.mark.Index || r.is(flagRestart) {
		g.want = g.head.mark
	}
	if !r.is(flagEntries) {
		return true
	}
	return l.putLocked(g, r, f)
}

// forgetLocked leaves nothing of the group. Its older records need no deleting:
// files go oldest first, so the removal outlives them.
func (l *Log) forgetLocked(g *GroupLog) {
	l.cutLocked(g, 0)
	if g.headFile != 0 {
		old := l.file(g.headFile)
		old.live--
		old.liveBytes -= headBytesBudget
		l.stored--
	}
	g.headFile, g.head, g.want, g.refs = 0, head{}, Mark{}, nil
}

// moveHeadLocked makes f the file of the group's newest record.
func (l *Log) moveHeadLocked(g *GroupLog, f *logFile) {
	if g.headFile == f.num() {
		return
	}
	if g.headFile != 0 {
		old := l.file(g.headFile)
		old.live--
		old.liveBytes -= headBytesBudget
	} else {
		l.stored++
	}
	g.headFile = f.num()
	f.live++
	f.liveBytes += headBytesBudget
	if g.listed != f.num() {
		g.listed = f.num()
		f.groups = append(f.groups, g)
	}
}

// putLocked stores the record's entries. Appended ones replace everything from
// their first index on; carried ones replace only themselves.
func (l *Log) putLocked(g *GroupLog, r *record, f *logFile) bool {
	at := r.first - g.head.mark.Index - 1
	have := uint64(len(g.refs))
	if at > have && at-have > holesMax {
		return false
	}
	for ; have < at; have++ {
		g.refs = append(g.refs, ref{})
	}
	if !r.is(flagCarried) {
		l.cutLocked(g, int(at))
	}
	for i := range r.refs {
		e := r.refs[i]
		e.file = f.num()
		f.live++
		f.liveBytes += int64(e.diskBytes())
		if e.ent != nil {
			l.cache.bytes.Add(cacheCost(&e))
		}
		if slot := int(at) + i; slot < len(g.refs) {
			l.freeRef(&g.refs[slot])
			g.refs[slot] = e
		} else {
			g.refs = append(g.refs, e)
		}
	}
	return true
}

// cutLocked drops the entries from g.refs[at] on.
func (l *Log) cutLocked(g *GroupLog, at int) {
	for i := at; i < len(g.refs); i++ {
		l.freeRef(&g.refs[i])
	}
	if at < len(g.refs) {
		g.refs = g.refs[:at]
	}
}

// dropLocked drops the first n entries, or all. Memory that a burst took is
// given back, so that idle groups stay small.
func (l *Log) dropLocked(g *GroupLog, n uint64) {
	n = min(n, uint64(len(g.refs)))
	if n == 0 {
		return
	}
	for i := range g.refs[:n] {
		l.freeRef(&g.refs[i])
	}
	left := copy(g.refs, g.refs[n:])
	clear(g.refs[left:])
	g.refs = g.refs[:left]
	if cap(g.refs) > 32 && left < cap(g.refs)/8 {
		g.refs = slices.Clone(g.refs)
	}
}

// freeRef takes an entry off the accounts of its file and of the cache.
func (l *Log) freeRef(r *ref) {
	if r.file != 0 {
		f := l.file(r.file)
		f.live--
		f.liveBytes -= int64(r.diskBytes())
		if f.live < 0 {
			invariant.Broken("log file %d has %d live records", r.file, f.live)
		}
	}
	if r.ent != nil {
		l.cache.bytes.Add(-cacheCost(r))
	}
	*r = ref{}
}
