package wal

import (
	"sync/atomic"
)

const (
	cacheRunsMax   = 1 << 16 // runs remembered; beyond it the oldest leaves early
	entryHeapBytes = 128     // an entry's memory beside its data, about
)

// cacheCost is what a cached entry counts.
func cacheCost(r *ref) int64 { return int64(r.size) + entryHeapBytes }

// cache decides which entries stay in memory: the newest appended, node-wide.
// The entries themselves hang in their groups' indexes. An append-order queue
// beats LRU here: followers at the head read what was just written, and one that
// lags reads every entry once.
type cache struct {
	bytes atomic.Int64 // of all refs that hold their entry
	runs  []cacheRun   // a ring
	begin int
	count int
}

// cacheRun is a run of entries that were appended together. Some may be gone.
type cacheRun struct {
	g     *GroupLog
	first uint64
	n     uint64
}

func (c *cache) push(run cacheRun) {
	if c.count == len(c.runs) {
		if c.count == cacheRunsMax {
			c.pop()
		} else {
			c.grow()
		}
	}
	c.runs[(c.begin+c.count)%len(c.runs)] = run
	c.count++
}

func (c *cache) grow() {
	bigger := make([]cacheRun, max(64, 2*len(c.runs)))
	n := copy(bigger, c.runs[c.begin:])
	copy(bigger[n:], c.runs[:c.begin])
	c.runs, c.begin = bigger, 0
}

// trim lets the oldest runs go until limit is kept.
func (c *cache) trim(limit int64) {
	for c.count > 0 && c.bytes.Load() > limit {
		c.pop()
	}
}

// pop lets the oldest run go. An entry that has replaced one of the run goes
// with it; it is read back from the file if it is needed.
func (c *cache) pop() {
	run := c.runs[c.begin]
	c.runs[c.begin] = cacheRun{}
	c.begin = (c.begin + 1) % len(c.runs)
	c.count--
	g := run.g
	g.mu.Lock()
	defer g.mu.Unlock()
	lo := max(run.first, g.head.mark.Index+1)
	hi := min(run.first+run.n, g.lastLocked()+1)
	for i := lo; i < hi; i++ {
		if r := g.refLocked(i); r.ent != nil {
			c.bytes.Add(-cacheCost(r))
			r.ent = nil
		}
	}
}
