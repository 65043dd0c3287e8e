package watches

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
	"github.com/anchormesh/anchormesh/node/stamps"
)

// Pauses after a home or a leader that did not answer.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// questionWait bounds one try to ask the home.
const questionWait = 3 * time.Second

// frontier asks what the weaves over the same lines on this node want to know, and
// repeats it until it is answered.
type frontier struct {
	watches *Watches
	lines   [][]byte // as they were when it was made: see current
	over    bool     // barriers come at numbers of several lines

	mu      sync.Mutex // taken inside the members' locks, never around them
	core    *weave.Frontier
	members map[uint64]member
	last    uint64
}

// member is who asks: a weave here, or the threads of another node's.
type member interface {
	// The lines are those that were asked.
	told(t weave.Told, lines [][]byte)
	// mark says that a barrier at the revision was answered for keys of a segment,
	// on a line, and that all its leader had then is published here.
	mark(on *anchormesh.Descriptor, revision int64, threads []int64)
}

// questions is how many questions to the homes may be under way.
const questions = 2

func newFrontier(w *Watches, lines [][]byte, over bool) *frontier {
	return &frontier{watches: w, lines: lines, over: over, core: weave.NewFrontier(questions), members: make(map[uint64]member)}
}

func (f *frontier) join(m member) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.members[f.last] = m
	return f.last
}

func (f *frontier) leave(id uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.members, id)
	f.core.Closed(id)
}

func (f *frontier) member(id uint64) member {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.members[id]
}

func (f *frontier) ask(id uint64, a weave.Ask) {
	f.mu.Lock()
	q, ok := f.core.Ask(id, a)
	f.mu.Unlock()
	if ok {
		f.watches.run(func(ctx context.Context) { f.question(ctx, q) })
	}
}

// question asks the home until it answers, and then what gathered meanwhile.
func (f *frontier) question(ctx context.Context, q weave.Question) {
	for ok := true; ok; {
		revision, ranges, lines, err := f.home(ctx, q.Since)
		if err != nil {
			return // the node stops
		}
		var tell []weave.Tell
		f.mu.Lock()
		tell, q, ok = f.core.Answer(q, revision, ranges)
		f.mu.Unlock()
		for _, t := range tell {
			if m := f.member(t.Weave); m != nil {
				m.told(t.Told, lines)
			}
		}
	}
}

// current names the lines on which the keys are now: one that is no more went over to
// another.
func (f *frontier) current() [][]byte {
	var now []*anchormesh.Descriptor
	for _, line := range f.lines {
		if d, ok := f.watches.table.Lookup(line); ok {
			now = append(now, d)
		}
	}
	return stamps.LinesOf(now)
}

func (f *frontier) home(ctx context.Context, since int64) (revision int64, ranges []anchormesh.KeyRange, lines [][]byte, err error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		short, cancel := context.WithTimeout(ctx, questionWait)
		told, err := stamps.Told{}, stamps.ErrNoHome
		if lines = f.current(); len(lines) > 0 {
			told, err = f.watches.lines.ToldOver(short, lines, since)
		}
		cancel()
		switch {
		case err == nil && told.Spread.All:
			return told.T, []anchormesh.KeyRange{{}}, lines, nil
		case err == nil:
			return told.T, told.Spread.Ranges, lines, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return 0, nil, nil, err
		}
	}
}

func (f *frontier) barrier(id uint64, b weave.Barrier) {
	f.mu.Lock()
	bar, ok := f.core.Barrier(id, b)
	f.mu.Unlock()
	if ok {
		f.watches.run(func(ctx context.Context) { f.bars(ctx, bar) })
	}
}

// bars has a barrier answered, and then those that gathered meanwhile. It gives up
// when the segment has left this node: its hub has stopped, so its threads have ended.
func (f *frontier) bars(ctx context.Context, bar weave.Bar) {
	for ok := true; ok; {
		on, err := f.bar(ctx, bar)
		if err != nil {
			f.mu.Lock()
			f.core.Left(bar.Segment)
			f.mu.Unlock()
			return
		}
		var marks []weave.Mark
		f.mu.Lock()
		marks, bar, ok = f.core.Barred(bar)
		f.mu.Unlock()
		for _, m := range marks {
			if to := f.member(m.Weave); to != nil {
				to.mark(on, m.Revision, m.Threads)
			}
		}
	}
}

// bar returns when nothing at or below the revision can appear in the segment any
// more, and all that its leader had then is applied and published here; and what the
// segment is of which that is true. If it is cut meanwhile, it is asked anew. Its line is
// raised before, if the revision may be another's.
func (f *frontier) bar(ctx context.Context, bar weave.Bar) (*anchormesh.Descriptor, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		r, here := f.watches.host.Get(bar.Segment)
		if !here {
			return nil, errAbsent
		}
		d := r.Machine.Descriptor()
		index, err := uint64(0), error(nil)
		if f.over || len(f.lines) != 1 || !bytes.Equal(f.lines[0], d.Line) {
			err = f.watches.raise(ctx, d.Line, bar.Revision)
		}
		if err == nil {
			index, err = f.watches.lines.Barrier(ctx, d, bar.Revision)
		}
		if err == nil {
			err = f.applied(ctx, bar.Segment, index)
		}
		if err == nil {
			return d, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func (f *frontier) applied(ctx context.Context, segment anchormesh.SegmentID, index uint64) error {
	done := make(chan error, 1)
	f.watches.engine.WhenApplied(segment, index, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
