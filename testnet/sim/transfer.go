package sim

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
	from, to *process
	segment  anchormesh.SegmentID
	replica  anchormesh.ReplicaID
	export   *mvcc.Export
	into     *installing
	done     func(ok bool)
	over     bool
}

// sendSnapshot streams a segment's state. The log behind it is kept until the
// replica has had an election timeout to connect to it.
func (p *process) sendSnapshot(s shard.Snapshot) {
	g := p.groups[s.Segment]
	if g == nil {
		return
	}
	g.pins[s.To] = s.Index
	t := &transfer{from: p, segment: s.Segment, replica: s.To}
	t.done = func(ok bool) {
		if p.proc != p {
			return
		}
		p.with(s.Segment, func(r *replica.Replica) { r.SnapshotDone(s.To, ok) })
		p.after(p.mesh.electionTimeout(), func() { delete(g.pins, s.To) })
	}
	n := p.mesh.find(s.Node)
	r := p.host.held[s.Segment]
	if n == nil || n.proc == nil || r == nil {
		p.after(p.moment(), func() { t.done(false) })
		return
	}
	t.to = n.proc
	export, err := r.machine.Segment().Export()
	if err != nil {
		p.after(p.moment(), func() { t.done(false) })
		return
	}
	t.export = export
	t.step(t.offer)
	t.watch()
}

// watch ends the transfer if a side is gone in the middle of a step.
func (t *transfer) watch() {
	t.from.mesh.k.After(time.Second, func() {
		switch {
		case t.over:
		case t.from.proc != t.from || t.to.proc != t.to:
			t.end(false)
		default:
			t.watch()
		}
	})
}

// step goes on after the time that bytes take. If one side or the connection is
// gone by then, both give up.
func (t *transfer) step(f func()) {
	m := t.from.mesh
	wait := m.net.Latency()
	if m.rng.IntN(10) == 0 {
		wait += time.Duration(m.rng.Int64N(int64(3 * time.Second))) // a slow stream
	}
	m.k.After(wait, func() {
		whole := t.from.proc == t.from && t.to.proc == t.to && m.net.Open(t.from.idx, t.to.idx) && m.net.Open(t.to.idx, t.from.idx)
		if !whole {
			t.end(false)
			return
		}
		t.to.do(f)
	})
}

func (t *transfer) end(ok bool) {
	if t.over {
		return
	}
	t.over = true
	t.export.Close()
	if !ok && t.into != nil && t.to.proc == t.to {
		into := t.into
		t.into = nil
		t.to.do(into.abort)
	}
	t.from.do(func() { t.done(ok) })
}

func (t *transfer) offer() {
	t.to.install(t.replica, t.export.Meta(), func(into *installing, err error) {
		switch {
		case err != nil:
			t.refused(err)
		case into == nil:
			t.end(true)
		default:
			t.into = into
			t.step(t.chunk)
		}
	})
}

func (t *transfer) chunk() {
	chunk, err := t.export.Next()
	if errors.Is(err, io.EOF) {
		t.into.finish(func(err error) {
			if err != nil {
				t.refused(err)
				return
			}
			t.into = nil
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
	for _, e := range []error{errRetired, errUninvited, errOlder, errOverlap, errBegins, mvcc.ErrOverlap, mvcc.ErrBusy, mvcc.ErrGone} {
		known = known || errors.Is(err, e)
	}
	if !known {
		t.to.broken("install", err)
	}
	t.end(false)
}
