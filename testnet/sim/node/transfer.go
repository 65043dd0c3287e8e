package node

import (
	"errors"
	"io"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/shard"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// transfer is a snapshot on its way: package node/transfer's stream, one step at a
// time. Export and install are the real ones.
type transfer struct {
	from, to *Process
	segment  anchormesh.SegmentID
	replica  anchormesh.ReplicaID
	export   *mvcc.Export
	into     *installing
	done     func(ok bool)
	over     bool
}

// sendSnapshot streams a segment's state. The log behind it is kept until the
// replica has had an election timeout to connect to it.
func (p *Process) sendSnapshot(s shard.Snapshot) {
	g := p.Groups[s.Segment]
	if g == nil {
		return
	}
	g.pins[s.To] = s.Index
	t := &transfer{from: p, segment: s.Segment, replica: s.To}
	t.done = func(ok bool) {
		if p.Proc != p {
			return
		}
		p.With(s.Segment, func(r *replica.Replica) { r.SnapshotDone(s.To, ok) })
		p.After(p.Mesh.electionTimeout(), func() { delete(g.pins, s.To) })
	}
	n := p.Mesh.Find(s.Node)
	r := p.Host.Held[s.Segment]
	if n == nil || n.Proc == nil || r == nil {
		p.After(p.Moment(), func() { t.done(false) })
		return
	}
	t.to = n.Proc
	export, err := r.Machine.Segment().Export()
	if err != nil {
		p.After(p.Moment(), func() { t.done(false) })
		return
	}
	t.export = export
	t.step(t.offer)
	t.watch()
}

// watch ends the transfer if a side is gone in the middle of a step.
func (t *transfer) watch() {
	t.from.Mesh.K.After(time.Second, func() {
		switch {
		case t.over:
		case t.from.Proc != t.from || t.to.Proc != t.to:
			t.end(false)
		default:
			t.watch()
		}
	})
}

// step goes on after the time that bytes take. If one side or the connection is
// Gone by then, both give up.
func (t *transfer) step(f func()) {
	m := t.from.Mesh
	wait := m.Net.Latency()
	if m.Rng.IntN(10) == 0 {
		wait += time.Duration(m.Rng.Int64N(int64(3 * time.Second))) // a slow stream
	}
	m.K.After(wait, func() {
		whole := t.from.Proc == t.from && t.to.Proc == t.to && m.Net.Open(t.from.Index, t.to.Index) && m.Net.Open(t.to.Index, t.from.Index)
		if !whole {
			t.end(false)
			return
		}
		t.to.Do(f)
	})
}

func (t *transfer) end(ok bool) {
	if t.over {
		return
	}
	t.over = true
	t.export.Close()
	if !ok && t.into != nil && t.to.Proc == t.to {
		into := t.into
		t.into = nil
		t.to.Do(into.abort)
	}
	t.from.Do(func() { t.done(ok) })
}

func (t *transfer) offer() {
	t.to.install(t.replica, t.export.Meta(), func(into *installing, err error) {
		switch {
		case err != nil:
			t.refused(err)
		case into == nil:
			t.end(true)
		case t.over: // the sender was gone before the receiver's turn came
			t.to.Do(into.abort)
		default:
			t.into = into
			t.step(t.chunk)
		}
	})
}

func (t *transfer) chunk() {
	if t.over { // the sender was gone while the receiver was paused
		return
	}
	chunk, err := t.export.Next()
	if errors.Is(err, io.EOF) {
		into := t.into
		t.into = nil // it is whole: who sent it is not needed any more
		into.finish(func(err error) {
			if err != nil {
				t.into = into
				t.refused(err)
				return
			}
			t.end(true)
		})
		return
	}
	if err == nil {
		err = t.into.into.Add(chunk)
	}
	if err != nil {
		t.refused(err)
		return
	}
	t.step(t.chunk)
}

// refused ends a transfer that the receiver cannot take. Only what a busy or
// retired receiver says is no defect.
func (t *transfer) refused(err error) {
	known := false
	for _, e := range []error{errRetired, errUninvited, errOlder, errOverlap, errBegins, mvcc.ErrOverlap, mvcc.ErrBusy, mvcc.ErrGone, mvcc.ErrUnknown} {
		known = known || errors.Is(err, e)
	}
	if !known {
		t.to.broken("install", err)
	}
	t.end(false)
}
