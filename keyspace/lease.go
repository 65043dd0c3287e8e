package keyspace

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
)

func (a *applier) leaseGrant(raw []byte) Outcome {
	var r codec.LeaseGrantRequest
	if err := codec.ParseLeaseGrant(raw, &r); err != nil {
		return Outcome{Err: err}
	}
	switch {
	case a.s.alarms.noSpace():
		return Outcome{Err: ErrNoSpace}
	case r.ID == 0:
		return Outcome{Err: ErrLeaseNotFound}
	case r.TTL > LeaseTTLMax:
		return Outcome{Err: ErrLeaseTTLTooLarge}
	case a.s.leases.byID[r.ID] != nil:
		return Outcome{Err: ErrLeaseExists}
	}
	l := lease.Lease{ID: r.ID, TTL: max(r.TTL, 1), Epoch: a.index}
	a.s.leases.add(l)
	a.saveLease(l)
	a.changed(lease.Granted{Lease: l})
	start := a.begin()
	if a.want {
		a.buf = codec.AppendLeaseGrantResponse(a.buf, a.header(a.shown()), l.ID, l.TTL)
	}
	return a.answer(start)
}

func (a *applier) leaseRevoke(raw []byte) Outcome {
	id, err := codec.ParseLeaseID(raw)
	if err != nil {
		return Outcome{Err: err}
	}
	return a.revoke(id)
}

func (a *applier) leaseExpire(raw []byte) Outcome {
	var e codec.LeaseExpiry
	if err := codec.ParseLeaseExpiry(raw, &e); err != nil {
		return Outcome{Err: err}
	}
	if row := a.s.leases.byID[e.ID]; row != nil && row.home && (e.Term != a.term || e.Epoch != row.Epoch) {
		return Outcome{Err: ErrLeaseExpiryStale}
	}
	return a.revoke(e.ID)
}

// revoke removes a lease all of whose keys are here, and deletes them.
func (a *applier) revoke(id int64) Outcome {
	row := a.s.leases.byID[id]
	switch {
	case row == nil || !row.home || row.ending:
		return Outcome{Err: ErrLeaseNotFound}
	case len(row.ranges) > 0:
		return Outcome{Err: ErrLeaseSpread}
	}
	a.deleteKeys(id)
	a.dropLease(row)
	a.changed(lease.Revoked{ID: id})
	return a.done()
}

// deleteKeys deletes the lease's keys, in key order and in one revision.
func (a *applier) deleteKeys(id int64) {
	t := a.open()
	for _, key := range a.s.leases.detach(id, a.s.seg.KeyRange()) {
		a.drop(t, []byte(key))
	}
	a.end(t)
}

// dropLease forgets a lease at its home.
func (a *applier) dropLease(row *leaseRow) {
	delete(a.s.leases.byID, row.ID)
	a.b.DeleteAux(leaseBucket, leaseKey(row.ID))
	if row.since != 0 || row.ending {
		a.b.DeleteAux(spreadBucket, leaseKey(row.ID))
	}
}

// done is the answer that holds nothing but a header.
func (a *applier) done() Outcome {
	start := a.begin()
	if a.want {
		a.buf = codec.AppendHeaderResponse(a.buf, a.header(a.shown()))
	}
	return a.answer(start)
}

// leaseCheckpoint persists remaining times, or clears them. What is stale, or
// speaks of a lease that has ended, changes nothing and is no error.
func (a *applier) leaseCheckpoint(raw []byte) Outcome {
	cps, err := codec.ParseLeaseCheckpoints(raw, a.scratch.cps[:0])
	a.scratch.cps = cps
	if err != nil {
		return Outcome{Err: err}
	}
	for _, c := range cps {
		row := a.s.leases.byID[c.ID]
		switch {
		case row == nil || !row.home || row.ending:
			continue
		case c.Remaining == 0:
			row.Remaining, row.Epoch = 0, a.index
		case c.Remaining < 0 || c.Term != a.term || c.Epoch != row.Epoch:
			continue
		default:
			row.Remaining = c.Remaining
		}
		a.saveLease(row.Lease)
		a.changed(lease.Checkpointed{Lease: row.Lease})
	}
	return a.done()
}

func (a *applier) saveLease(l lease.Lease) {
	a.b.PutAux(leaseBucket, leaseKey(l.ID), encodeLease(l))
}

func (a *applier) changed(e lease.Event) {
	a.scratch.changes = append(a.scratch.changes, e)
}

// Leases returns all leases whose home is here and that do not end, by ID. Taken by the goroutine of Apply, between two
// entries, it is what lease.Lead needs: the events of OnLeases go on from there.
func (s *Space) Leases() []lease.Lease {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.leases.list()
}

// Lease returns one lease.
func (s *Space) Lease(id int64) (lease.Lease, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	row := s.leases.byID[id]
	if row == nil || !row.home || row.ending {
		return lease.Lease{}, false
	}
	return row.Lease, true
}

// LeaseKeys returns the keys of this segment that hang on a lease, in order, wherever
// its home is.
func (s *Space) LeaseKeys(id int64) [][]byte {
	s.mu.RLock()
	keys := s.leases.keys(id, s.seg.KeyRange())
	s.mu.RUnlock()
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = []byte(k)
	}
	return out
}

// countStep is how many keys LeasesIn visits under the lock at once: some tens of
// microseconds, so that apply does not wait for it.
const countStep = 1024

// LeasesIn returns how many leases keys of a range hang on.
func (s *Space) LeasesIn(keys anchormesh.KeyRange) int {
	seen := make(map[int64]struct{})
	for from, more := string(keys.Start), true; more; {
		from, more = s.leasesFrom(from, keys.End, seen)
	}
	return len(seen)
}

func (s *Space) leasesFrom(from string, end []byte, seen map[int64]struct{}) (next string, more bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	rng, visited := s.seg.KeyRange().Intersect(anchormesh.KeyRange{Start: []byte(from), End: end}), 0
	if rng.Empty() {
		return "", false
	}
	s.leases.byKey.AscendGreaterOrEqual(attachment{key: string(rng.Start)}, func(a attachment) bool {
		if more = visited == countStep; more || !rng.Contains([]byte(a.key)) {
			next = a.key
			return false
		}
		seen[a.lease] = struct{}{}
		visited++
		return true
	})
	return next, more
}
