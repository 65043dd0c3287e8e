package keyspace

import (
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
	case a.s.leases.has(r.ID):
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
	return a.endLease(id)
}

func (a *applier) leaseExpire(raw []byte) Outcome {
	var e codec.LeaseExpiry
	if err := codec.ParseLeaseExpiry(raw, &e); err != nil {
		return Outcome{Err: err}
	}
	if row := a.s.leases.byID[e.ID]; row != nil && (e.Term != a.term || e.Epoch != row.Epoch) {
		return Outcome{Err: ErrLeaseExpiryStale}
	}
	return a.endLease(e.ID)
}

// endLease removes the lease and deletes its keys, in key order and in one
// revision.
func (a *applier) endLease(id int64) Outcome {
	if id == 0 || !a.s.leases.has(id) {
		return Outcome{Err: ErrLeaseNotFound}
	}
	t := a.open()
	for _, key := range a.s.leases.remove(id) {
		t.Delete([]byte(key))
	}
	a.rev = t.End()
	a.b.DeleteAux(leaseBucket, leaseKey(id))
	a.changed(lease.Revoked{ID: id})
	start := a.begin()
	if a.want {
		a.buf = codec.AppendHeaderResponse(a.buf, a.header(a.shown()))
	}
	return a.answer(start)
}

// leaseCheckpoint persists remaining times, or clears them. What is stale, or
// speaks of a lease that has ended, changes nothing and is no error.
func (a *applier) leaseCheckpoint(raw []byte) Outcome {
	cps, err := codec.ParseLeaseCheckpoints(raw, a.s.scratch.cps[:0])
	a.s.scratch.cps = cps
	if err != nil {
		return Outcome{Err: err}
	}
	for _, c := range cps {
		row := a.s.leases.byID[c.ID]
		switch {
		case row == nil:
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
	start := a.begin()
	if a.want {
		a.buf = codec.AppendHeaderResponse(a.buf, a.header(a.shown()))
	}
	return a.answer(start)
}

func (a *applier) saveLease(l lease.Lease) {
	a.b.PutAux(leaseBucket, leaseKey(l.ID), encodeLease(l))
}

func (a *applier) changed(e lease.Event) {
	a.s.scratch.changes = append(a.s.scratch.changes, e)
}

// Leases returns all leases by ID. Taken by the goroutine of Apply, between two
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
	if row == nil {
		return lease.Lease{}, false
	}
	return row.Lease, true
}

// LeaseKeys returns the keys that hang on a lease, in order.
func (s *Space) LeaseKeys(id int64) [][]byte {
	s.mu.RLock()
	row := s.leases.byID[id]
	var keys []string
	if row != nil {
		keys = row.sorted()
	}
	s.mu.RUnlock()
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = []byte(k)
	}
	return out
}
