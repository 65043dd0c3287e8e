package watches

import (
	"context"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

// Pauses after a home or a leader that did not answer.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 200 * time.Millisecond
)

// questionWait bounds one try to ask the home.
const questionWait = 3 * time.Second

// frontier asks what the weaves of one scope on this node want to know, and repeats it
// until it is answered.
type frontier struct {
	watches *Watches
	scope   []byte

	mu      sync.Mutex // taken inside the members' locks, never around them
	core    *weave.Frontier
	members map[uint64]member
	last    uint64
}

// member is who asks: a weave here, or the threads of another node's.
type member interface {
	told(t weave.Told)
	// mark says that a barrier at the revision was answered for keys of a segment,
	// and that all its leader had then is published here.
	mark(segment anchormesh.SegmentID, keys anchormesh.KeyRange, revision int64, threads []int64)
}

// questions is how many questions to the home of one scope may be under way.
const questions = 2

func newFrontier(w *Watches, scope []byte) *frontier {
	return &frontier{watches: w, scope: scope, core: weave.NewFrontier(questions), members: make(map[uint64]member)}
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
		revision, ranges, err := f.home(ctx, q.Since)
		if err != nil {
			return // the node stops
		}
		var tell []weave.Tell
		f.mu.Lock()
		tell, q, ok = f.core.Answer(q, revision, ranges)
		f.mu.Unlock()
		for _, t := range tell {
			if m := f.member(t.Weave); m != nil {
				m.told(t.Told)
			}
		}
	}
}

func (f *frontier) home(ctx context.Context, since int64) (revision int64, ranges []anchormesh.KeyRange, err error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		short, cancel := context.WithTimeout(ctx, questionWait)
		told, err := f.watches.lines.Told(short, f.scope, since)
		cancel()
		switch {
		case err == nil && told.Spread.All:
			return told.T, []anchormesh.KeyRange{{}}, nil
		case err == nil:
			return told.T, told.Spread.Ranges, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return 0, nil, err
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
		keys, err := f.bar(ctx, bar)
		if err != nil {
			f.mu.Lock()
			f.core.Left(bar.Segment)
			f.mu.Unlock()
			return
		}
		var marks []weave.Mark
		segment := bar.Segment
		f.mu.Lock()
		marks, bar, ok = f.core.Barred(bar)
		f.mu.Unlock()
		for _, m := range marks {
			if to := f.member(m.Weave); to != nil {
				to.mark(segment, keys, m.Revision, m.Threads)
			}
		}
	}
}

// bar returns when nothing at or below the revision can appear in the segment any
// more, and all that its leader had then is applied and published here; and the keys of
// which that is true. If the segment is cut meanwhile, it is asked anew.
func (f *frontier) bar(ctx context.Context, bar weave.Bar) (anchormesh.KeyRange, error) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		r, here := f.watches.host.Get(bar.Segment)
		if !here {
			return anchormesh.KeyRange{}, errAbsent
		}
		d := r.Machine.Descriptor()
		index, err := f.watches.lines.Barrier(ctx, d, bar.Revision)
		if err == nil {
			err = f.applied(ctx, bar.Segment, index)
		}
		if err == nil {
			return d.Range, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return anchormesh.KeyRange{}, err
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
