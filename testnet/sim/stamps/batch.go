package stamps

import (
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/keyspace/line"
)

// batch is several writes that become one entry. This file is node/stamps/batch.go.
type batch struct {
	count   int
	payload func(stamps []anchormesh.Revision) []byte
	done    func(consensus.Result)

	seat   line.Seat
	stamps []anchormesh.Revision
	lost   int
	err    error
}

// ProposeBatch puts several writes as one entry into the log of a segment that is led
// here, each with a stamp of its own. payload makes the entry's command of the stamps.
func (l *Lines) ProposeBatch(d *anchormesh.Descriptor, count int, payload func(stamps []anchormesh.Revision) []byte, done func(consensus.Result)) {
	b := &batch{count: count, payload: payload, done: done}
	for range count {
		w := &stampedWrite{batch: b, done: func(r consensus.Result) { b.lose(l, r.Err) }}
		l.in.writes = append(l.in.writes, incoming{d.Segment, d.Generation, w})
	}
	l.nudge()
}

// stamped takes the stamp of the batch's next write. One that was given in another seat
// than those before it serves nothing.
func (b *batch) stamped(l *Lines, seat line.Seat, stamp anchormesh.Revision) {
	if len(b.stamps) > 0 && b.seat != seat {
		l.end(seat, stamp)
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
	l.p.Submit(b.seat.Segment, replica.Proposal{
		Generation: b.seat.Generation, Term: b.seat.Term, Alone: true, Payload: b.payload(b.stamps),
		Done: func(r consensus.Result) {
			b.done(r)
			if !errors.Is(r.Err, consensus.ErrUnknown) {
				b.end(l)
			}
		},
	})
}

// end reports the batch's stamps as applied or thrown away.
func (b *batch) end(l *Lines) {
	for _, stamp := range b.stamps {
		l.end(b.seat, stamp)
	}
}

// end reports a stamp as applied or thrown away.
func (l *Lines) end(seat line.Seat, stamp anchormesh.Revision) {
	l.in.ended = append(l.in.ended, ended{seat.Segment, seat.Term, stamp})
	l.nudge()
}
