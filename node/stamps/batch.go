package stamps

import (
	"errors"
	"sync/atomic"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace/line"
)

// batch is several writes that share one entry: each has a stamp, all are submitted
// together. It is touched on the goroutine of Lines only, but for done.
type batch struct {
	count   int
	payload func([]anchormesh.Revision) []byte
	done    func(consensus.Result)

	seat   line.Seat
	stamps []anchormesh.Revision
	lost   int
	err    error // of what was lost
	ended  atomic.Bool
}

// ProposeBatch puts several writes as one entry into the log of a segment that this node
// leads, each with a stamp of its own. payload makes the entry's command of the stamps,
// which ascend; it is called once, or not at all if the stamps do not come: done tells.
// It must not block either.
func (l *Lines) ProposeBatch(d *anchormesh.Descriptor, count int, payload func(stamps []anchormesh.Revision) []byte, done func(consensus.Result)) {
	b := &batch{count: count, payload: payload, done: done}
	l.mu.Lock()
	switch {
	case l.stopped:
		l.mu.Unlock()
		done(consensus.Result{Err: consensus.ErrStopped})
		return
	case len(l.in.writes)+count > l.cfg.Line.WritesMax:
		l.mu.Unlock()
		done(consensus.Result{Err: consensus.ErrOverloaded})
		return
	}
	for range count {
		w := &write{batch: b, done: func(res consensus.Result) { b.lose(l, res.Err) }}
		l.in.writes = append(l.in.writes, incoming{d.Segment, d.Generation, w})
	}
	l.mu.Unlock()
	l.nudge()
}

// stamped takes the stamp of the batch's next write. One that was given in another seat
// than those before it serves nothing.
func (b *batch) stamped(l *Lines, seat line.Seat, stamp anchormesh.Revision) {
	if len(b.stamps) > 0 && b.seat != seat {
		l.end(ended{seat.Segment, seat.Term, stamp})
		b.lose(l, consensus.ErrDropped)
		return
	}
	b.seat, b.stamps = seat, append(b.stamps, stamp)
	b.settle(l)
}

// lose notes that one of the writes gets no stamp: none of them is proposed then.
func (b *batch) lose(l *Lines, err error) {
	b.lost, b.err = b.lost+1, err
	b.settle(l)
}

// settle ends the batch once every write of it has a stamp or is lost.
func (b *batch) settle(l *Lines) {
	if len(b.stamps)+b.lost < b.count {
		return
	}
	if b.lost > 0 {
		b.end(l)
		b.done(consensus.Result{Err: b.err})
		return
	}
	l.engine.Submit(b.seat.Segment, consensus.Proposal{
		Generation: b.seat.Generation, Term: b.seat.Term, Alone: true, Payload: b.payload(b.stamps),
		Held: func() { b.end(l) },
		Done: func(r consensus.Result) {
			b.done(r)
			if !errors.Is(r.Err, consensus.ErrUnknown) { // what is unknown may still be applied
				b.end(l)
			}
		},
	})
}

// end reports the batch's stamps as applied or thrown away.
func (b *batch) end(l *Lines) {
	if b.ended.Swap(true) {
		return
	}
	for _, stamp := range b.stamps {
		l.end(ended{b.seat.Segment, b.seat.Term, stamp})
	}
}
