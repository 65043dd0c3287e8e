package keyspace

import (
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
)

// Cut cuts the segment inside b, the batch of the entry that says so: see
// mvcc.Batch.Cut. The child takes over the alarms and the marks of leases. Where this
// is the leases' home, those with keys in the child's range are registered for it and
// open there, so that nothing is asked for twice. It costs some microseconds, and one
// for each lease.
func (s *Space) Cut(b *mvcc.Batch, id anchormesh.SegmentID, at []byte, meta mvcc.Meta) *mvcc.Segment {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.seg.KeyRange()
	share := s.cutGovern(b, at)
	index, rest, rng := b.Index(), anchormesh.KeyRange{Start: all.Start, End: at}, anchormesh.KeyRange{Start: at, End: all.End}
	child := b.Cut(id, at, meta)
	for _, id := range s.leases.ids() {
		row := s.leases.byID[id]
		if row.home {
			if !s.leases.hangs(id, rng) {
				continue
			}
			row.register(rng, index)
			b.PutAux(spreadBucket, leaseKey(id), encodeSpread(row))
		} else if s.leases.byID[id] = row.clipped(rest); s.leases.byID[id] == nil {
			delete(s.leases.byID, id)
			b.DeleteAux(markBucket, leaseKey(id))
		} else {
			b.PutAux(markBucket, leaseKey(id), encodeSpread(s.leases.byID[id]))
		}
		if right := row.clipped(rng); right != nil {
			child.PutAux(markBucket, leaseKey(id), encodeSpread(right))
		}
	}
	floor := s.leases.floor
	if s.isHome() {
		floor = index
	}
	child.PutAux(markBucket, leaseKey(0), encodeFloor(floor))
	for _, m := range s.alarms {
		child.PutAux(alarmBucket, alarmKey(m), nil)
	}
	for _, r := range s.govern.signers.Rows() {
		child.PutAux(signerTable, r.Key, r.Value)
	}
	if share != nil {
		child.PutAux(shareTable, []byte{}, share.encode())
	}
	s.leases.trimming = true
	s.cutCommits(b, child, at)
	s.recountReserved(b)
	return child.Segment()
}

// Absorb takes in the segment to the right inside b: see mvcc.Batch.Absorb. Alarms and
// marks of leases are united. The right's Space is used up.
func (s *Space) Absorb(b *mvcc.Batch, right *Space, current int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	right.mu.Lock()
	defer right.mu.Unlock()
	for _, id := range right.leases.ids() {
		if s.unite(right.leases.byID[id]) {
			b.PutAux(markBucket, leaseKey(id), encodeSpread(s.leases.byID[id]))
		}
	}
	if floor := right.leases.floor; floor > s.leases.floor && !s.isHome() {
		s.leases.floor = floor
		b.PutAux(markBucket, leaseKey(0), encodeFloor(floor))
	}
	s.leases.join(&right.leases, s.seg.KeyRange(), right.seg.KeyRange())
	for _, m := range right.alarms {
		if i, there := slices.BinarySearchFunc(s.alarms, m, compareAlarms); !there {
			s.alarms = slices.Insert(s.alarms, i, m)
			b.PutAux(alarmBucket, alarmKey(m), nil)
		}
	}
	s.absorbGovern(b, right)
	b.Absorb(right.seg, current)
	s.commits.Absorb(&right.commits.Participant)
	s.rehold(b)
}

// unite takes over the right's mark of a lease and reports whether it is to be stored.
// The home knows better: what it does not know has ended and was finished. Of two leases of one ID the later counts; of one lease a mark
// that ended on either side ends it: its other keys go with the OpLeaseEnd for their
// range, which is still to come.
func (s *Space) unite(theirs *leaseRow) bool {
	ours := s.leases.byID[theirs.ID]
	switch {
	case s.isHome(), ours != nil && ours.home:
		return false
	case ours == nil || ours.since < theirs.since:
		s.leases.byID[theirs.ID] = theirs
		return true
	case ours.since > theirs.since:
		return false
	}
	ours.ending = ours.ending || theirs.ending
	for _, rng := range theirs.ranges {
		ours.cover(rng)
	}
	return true
}

// join takes over what hangs on leases in the right's range. The smaller side moves.
func (t *leaseTable) join(right *leaseTable, ours, theirs anchormesh.KeyRange) {
	for _, side := range []struct {
		t   *leaseTable
		rng anchormesh.KeyRange
	}{{t, ours}, {right, theirs}} {
		for side.t.trimming {
			side.t.trim(side.rng)
		}
	}
	if right.byKey.Len() > t.byKey.Len() {
		t.byKey, right.byKey = right.byKey, t.byKey
		t.byLease, right.byLease = right.byLease, t.byLease
	}
	right.byKey.Ascend(func(a attachment) bool {
		t.byKey.ReplaceOrInsert(a)
		t.byLease.ReplaceOrInsert(a)
		return true
	})
}

// FoldHash makes the HashKV of several segments of the sum of their HashParts.
func FoldHash(sum uint64, rev, compacted int64) HashKV {
	return HashKV{Hash: mvcc.Fold(sum), Revision: rev, Compacted: compacted}
}

// HashPart is this segment's share of the HashKV of several: see mvcc.Segment.HashPart.
func (s *Space) HashPart(rev, floor int64) (uint64, error) { return s.seg.HashPart(rev, floor) }
