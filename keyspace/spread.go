package keyspace

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// Side tables of leases whose keys lie in several segments; see the package comment.
const (
	spreadBucket = "lease-spread"
	markBucket   = "lease-mark"
)

// leaseRow is a lease at its home, or elsewhere the mark that keys may hang on it.
type leaseRow struct {
	lease.Lease // at home; of a mark the ID only
	home        bool
	ending      bool   // no key may be hung on it any more
	since       uint64 // see codec.LeaseMark; zero if it was never registered
	changed     uint64 // at home: log index of the last change of ranges
	// ranges are registered: at home those of other segments where keys may hang on
	// it, elsewhere those inside the segment where puts may name it, or might have
	// before it ended. An absorb makes a segment wider than what was registered for it.
	ranges []anchormesh.KeyRange
}

// takes reports whether a put of the key may name the lease.
func (r *leaseRow) takes(key []byte) bool {
	return !r.ending && (r.home || slices.ContainsFunc(r.ranges, func(have anchormesh.KeyRange) bool { return have.Contains(key) }))
}

func (r *leaseRow) mark(at uint64) codec.LeaseMark {
	return codec.LeaseMark{ID: r.ID, Since: r.since, At: at}
}

// register adds a range at the home.
func (r *leaseRow) register(rng anchormesh.KeyRange, index uint64) {
	if !r.cover(rng) {
		return
	}
	if r.changed = index; r.since == 0 {
		r.since = index
	}
}

// cover adds a range; those that it overlaps or touches become one with it. It
// reports false if there is nothing to add.
func (r *leaseRow) cover(rng anchormesh.KeyRange) bool {
	if slices.ContainsFunc(r.ranges, func(have anchormesh.KeyRange) bool { return have.Covers(rng) }) {
		return false
	}
	rng = anchormesh.KeyRange{Start: append([]byte(nil), rng.Start...), End: append([]byte(nil), rng.End...)}
	var out []anchormesh.KeyRange
	for _, have := range r.ranges {
		if have.Overlaps(rng) || bytes.Equal(have.End, rng.Start) || bytes.Equal(rng.End, have.Start) {
			rng = have.Hull(rng)
		} else {
			out = append(out, have)
		}
	}
	out = append(out, rng)
	slices.SortFunc(out, func(a, b anchormesh.KeyRange) int { return bytes.Compare(a.Start, b.Start) })
	r.ranges = out
	return true
}

// clipped is a mark for the part of the ranges that lies in rng, or nil.
func (r *leaseRow) clipped(rng anchormesh.KeyRange) *leaseRow {
	out := &leaseRow{Lease: r.Lease, ending: r.ending, since: r.since}
	for _, have := range r.ranges {
		if have.Overlaps(rng) {
			out.ranges = append(out.ranges, have.Intersect(rng))
		}
	}
	if len(out.ranges) == 0 {
		return nil
	}
	return out
}

// isHome reports whether this is the home of the leases: the segment at the beginning
// of the root scope. It alone knows which leases there are.
func (s *Space) isHome() bool { return len(s.seg.KeyRange().Start) == 0 }

// leaseMark applies what home and other segments tell each other of a lease.
func (a *applier) leaseMark(op Op, raw []byte) Outcome {
	var m codec.LeaseMark
	if err := codec.ParseLeaseMark(raw, &m); err != nil {
		return Outcome{Err: err}
	}
	if m.ID == 0 {
		return Outcome{Err: ErrLeaseNotFound}
	}
	row := a.s.leases.byID[m.ID]
	switch op {
	case OpLeaseRegister:
		return a.leaseRegister(row, anchormesh.KeyRange{Start: m.Start, End: m.End})
	case OpLeaseFinish:
		return a.leaseFinish(row, m)
	case OpLeaseOpen:
		return a.leaseOpen(row, m)
	case OpLeaseEnd:
		return a.leaseEnd(row, m)
	}
	return a.leaseForget(row, m)
}

func (a *applier) leaseRegister(row *leaseRow, rng anchormesh.KeyRange) Outcome {
	switch {
	case row == nil || !row.home || row.ending:
		return Outcome{Err: ErrLeaseNotFound}
	case rng.Empty():
		return Outcome{Err: codec.ErrMalformed}
	}
	row.register(rng, a.index)
	a.saveSpread(row)
	m := row.mark(a.index)
	m.Start, m.End = rng.Start, rng.End
	return a.marked(m)
}

// marked is the answer that is itself the next segment's command.
func (a *applier) marked(m codec.LeaseMark) Outcome {
	start := a.begin()
	if a.want {
		a.buf = codec.AppendLeaseMark(a.buf, m)
	}
	return a.answer(start)
}

// leaseEnding ends a lease at its home: nothing is hung on it any more, and what hangs
// on it here goes. Repeated it does nothing.
func (a *applier) leaseEnding(raw []byte) Outcome {
	var e codec.LeaseExpiry
	if err := codec.ParseLeaseExpiry(raw, &e); err != nil {
		return Outcome{Err: err}
	}
	row := a.s.leases.byID[e.ID]
	switch {
	case row == nil || !row.home:
		return Outcome{Err: ErrLeaseNotFound}
	case row.ending:
		return a.done()
	case e.Term != 0 && (e.Term != a.term || e.Epoch != row.Epoch):
		return Outcome{Err: ErrLeaseExpiryStale}
	}
	row.ending = true
	a.saveSpread(row)
	a.deleteKeys(e.ID)
	a.changed(lease.Revoked{ID: e.ID})
	return a.done()
}

// leaseFinish removes a lease that has ended in all of its ranges, as of log index
// m.At. If one was added since, it has not.
func (a *applier) leaseFinish(row *leaseRow, m codec.LeaseMark) Outcome {
	switch {
	case row == nil || !row.home || !row.ending || row.since != m.Since:
		return Outcome{Err: ErrLeaseNotFound}
	case row.changed > m.At || a.s.leases.hangs(row.ID, a.s.seg.KeyRange()):
		return Outcome{Err: ErrLeaseSpread}
	}
	a.dropLease(row)
	return a.marked(row.mark(a.index))
}

func (a *applier) leaseOpen(row *leaseRow, m codec.LeaseMark) Outcome {
	rng, own := anchormesh.KeyRange{Start: m.Start, End: m.End}, a.s.seg.KeyRange()
	same := row != nil && row.since == m.Since && !row.ending
	switch {
	case rng.Empty():
		return Outcome{Err: codec.ErrMalformed}
	case same && row.home:
		return a.done()
	case a.s.isHome() || row != nil && row.home:
		return Outcome{Err: ErrLeaseNotFound}
	case !rng.Overlaps(own):
		return Outcome{Err: ErrWrongSegment}
	case m.At <= a.s.leases.floor:
		return Outcome{Err: ErrLeaseStale}
	case row != nil && !same && (row.since >= m.Since || !row.ending):
		return Outcome{Err: ErrLeaseNotFound}
	case !same:
		row = a.putMark(m, false)
	}
	if row.cover(rng.Intersect(own)) {
		a.saveMark(row)
	}
	return a.done()
}

// leaseEnd deletes the lease's keys and refuses it from now on, also if it was never
// opened here: the word of its registration may still be on the way. The command
// names the registered range that it comes for.
func (a *applier) leaseEnd(row *leaseRow, m codec.LeaseMark) Outcome {
	rng, own := anchormesh.KeyRange{Start: m.Start, End: m.End}, a.s.seg.KeyRange()
	switch {
	case rng.Empty():
		return Outcome{Err: codec.ErrMalformed}
	case !rng.Overlaps(own):
		return Outcome{Err: ErrWrongSegment}
	case row != nil && row.home:
		if !row.ending || row.since != m.Since {
			return Outcome{Err: ErrLeaseNotFound}
		}
	case row != nil && row.since > m.Since: // the next lease of this ID
		return a.done()
	case !a.s.isHome():
		ended := a.putMark(m, true)
		if row != nil && row.since == m.Since {
			ended.ranges = row.ranges
		}
		ended.cover(rng.Intersect(own))
		a.saveMark(ended)
	}
	a.deleteKeys(m.ID)
	return a.done()
}

// leaseForget removes the mark of a lease that is gone at its home, at log index m.At.
// A registration from before it opens nothing here any more.
func (a *applier) leaseForget(row *leaseRow, m codec.LeaseMark) Outcome {
	if row != nil && !row.home && row.ending && row.since == m.Since {
		if a.s.leases.hangs(row.ID, a.s.seg.KeyRange()) {
			return Outcome{Err: ErrLeaseSpread}
		}
		delete(a.s.leases.byID, m.ID)
		a.b.DeleteAux(markBucket, leaseKey(m.ID))
	}
	if m.At > a.s.leases.floor {
		a.s.leases.floor = m.At
		a.b.PutAux(markBucket, leaseKey(0), encodeFloor(m.At))
	}
	return a.done()
}

func (a *applier) putMark(m codec.LeaseMark, ended bool) *leaseRow {
	row := &leaseRow{Lease: lease.Lease{ID: m.ID}, since: m.Since, ending: ended}
	a.s.leases.byID[m.ID] = row
	return row
}

func (a *applier) saveMark(row *leaseRow) {
	a.b.PutAux(markBucket, leaseKey(row.ID), encodeSpread(row))
}

func (a *applier) saveSpread(row *leaseRow) {
	a.b.PutAux(spreadBucket, leaseKey(row.ID), encodeSpread(row))
}

// LeaseSpread is where a lease's keys may lie outside of its home.
type LeaseSpread struct {
	Mark   codec.LeaseMark // for OpLeaseEnd and OpLeaseFinish: At is the last change of Ranges
	Ending bool
	Ranges []anchormesh.KeyRange
}

// LeaseSpread returns what the home knows of a lease; ok is false if this is not its
// home or there is no such lease.
func (s *Space) LeaseSpread(id int64) (out LeaseSpread, ok bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	row := s.leases.byID[id]
	if row == nil || !row.home {
		return out, false
	}
	return LeaseSpread{Mark: row.mark(row.changed), Ending: row.ending, Ranges: slices.Clone(row.ranges)}, true
}

// EndingLeases lists the leases that a leader of the home has to finish, by ID.
func (s *Space) EndingLeases() (ids []int64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, id := range s.leases.ids() {
		if row := s.leases.byID[id]; row.home && row.ending {
			ids = append(ids, id)
		}
	}
	return ids
}

// LeaseUsable reports whether a put of the key may name the lease now. If not, it has
// ended or must be registered at its home and opened here first.
func (s *Space) LeaseUsable(id int64, key []byte) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.leases.has(id, key)
}

const spreadFormat = 1

func flagOf(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// encodeFloor is a mark of lease 0.
func encodeFloor(at uint64) []byte { return encodeSpread(&leaseRow{since: at}) }

func encodeSpread(r *leaseRow) []byte {
	b := binary.AppendUvarint([]byte{spreadFormat, flagOf(r.ending)}, r.since)
	b = binary.AppendUvarint(b, r.changed)
	for _, rng := range r.ranges {
		for _, end := range [][]byte{rng.Start, rng.End} {
			b = append(binary.AppendUvarint(b, uint64(len(end))), end...)
		}
	}
	return b
}

// decodeSpread reads marks and spread rows; the floor is a mark of lease 0.
func decodeSpread(k, v []byte, home bool) (*leaseRow, error) {
	bad := fmt.Errorf("stored mark of lease %x cannot be read: restore this replica from another", k)
	if len(k) != 8 || len(v) < 2 || v[0] != spreadFormat || v[1] > 1 {
		return nil, bad
	}
	r := &leaseRow{home: home, ending: v[1] == 1, Lease: lease.Lease{ID: int64(binary.BigEndian.Uint64(k))}}
	rest, ok := v[2:], true
	number := func() uint64 {
		n, size := binary.Uvarint(rest)
		if ok = ok && size > 0; !ok {
			return 0
		}
		rest = rest[size:]
		return n
	}
	key := func() []byte {
		n := number()
		if ok = ok && n <= uint64(len(rest)); !ok {
			return nil
		}
		out := rest[:n]
		rest = rest[n:]
		return append([]byte(nil), out...)
	}
	r.since, r.changed = number(), number()
	for ok && len(rest) > 0 {
		rng := anchormesh.KeyRange{Start: key(), End: key()}
		r.ranges = append(r.ranges, rng)
		ok = ok && !rng.Empty()
	}
	if !ok || len(rest) > 0 {
		return nil, bad
	}
	return r, nil
}

// loadSpread reads both tables onto the leases that were loaded.
func (t *leaseTable) loadSpread(seg *mvcc.Segment) (err error) {
	seg.ForEachAux(spreadBucket, func(k, v []byte) {
		r, bad := decodeSpread(k, v, true)
		switch {
		case bad != nil:
			err = bad
		case t.byID[r.ID] == nil:
			err = fmt.Errorf("stored ranges are of lease %016x, which does not exist: restore this replica from another", r.ID)
		default:
			r.Lease = t.byID[r.ID].Lease
			t.byID[r.ID] = r
		}
	})
	if err != nil {
		return err
	}
	seg.ForEachAux(markBucket, func(k, v []byte) {
		r, bad := decodeSpread(k, v, false)
		switch {
		case bad != nil:
			err = bad
		case r.ID == 0:
			t.floor = r.since
		case t.byID[r.ID] != nil:
			err = fmt.Errorf("stored mark is of lease %016x, whose home this is: restore this replica from another", r.ID)
		default:
			t.byID[r.ID] = r
		}
	})
	return err
}
