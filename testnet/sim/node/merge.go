package node

import (
	"bytes"
	"errors"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/machine"
)

// This file is node/host/merge.go.

var (
	errMerged    = errors.New("sim: the segment was merged into its left neighbour")
	errNotFrozen = errors.New("sim: the replica here is not frozen by that attempt")
)

// CommitStore commits what the store holds back.
func (p *Process) CommitStore() error {
	err := p.store.Commit()
	if err != nil {
		p.broken("commit", err)
	}
	return err
}

// Confirm makes sure that a replica here is frozen by an attempt, also after a crash.
func (p *Process) Confirm(segment anchormesh.SegmentID, n merge.Attempt, done func(error)) {
	p.Host.lock(func(unlock func()) {
		defer unlock()
		r := p.Host.Held[segment]
		if r == nil || !r.Machine.State().Frozen() || r.Machine.State().Right.By != n {
			done(errNotFrozen)
			return
		}
		p.Mesh.begins("confirm", p)
		rec := p.dir.Record()
		if rec.Frozen[segment] != r.ID {
			rec.Frozen[segment] = r.ID
			if err := p.dir.Save(rec); err != nil {
				p.broken("confirm", err)
				return
			}
		}
		done(p.CommitStore())
	})
}

// thawed takes the note back; a replica that its group removed meanwhile leaves.
func (p *Process) thawed(segment anchormesh.SegmentID, r *ReplicaHere) {
	p.Host.lock(func(unlock func()) {
		rec := p.dir.Record()
		if p.Host.Held[segment] == r && !r.Machine.State().Frozen() && rec.Frozen[segment] != 0 {
			delete(rec.Frozen, segment)
			if err := p.dir.Save(rec); err != nil {
				p.broken("thaw", err)
				return
			}
		}
		unlock()
		if _, stays := p.replicaOf(r.Machine.State()); !stays {
			p.Retire(segment, r.ID, nil)
		}
	})
}

// surrendering finds the machine that a left neighbour is about to absorb.
func (p *Process) surrendering(segment anchormesh.SegmentID) *machine.Machine {
	r := p.Host.Held[segment]
	if r == nil {
		return nil
	}
	r.Hub.close()
	return r.Machine
}

// absorbed follows an applied merge.
func (p *Process) absorbed(left *ReplicaHere, c machine.Change) {
	d, gone := c.State.Descriptor, c.Absorbed.Descriptor
	p.Mesh.K.Note("absorb", p.Index, uint64(d.Segment), uint64(d.Generation), uint64(gone.Segment), d.Changed)
	p.Mesh.begins("absorb", p)
	left.Hub.Hub.Bound(d.Range, ErrMoved)
	left.Hub.Kick()
	p.Table.Bury(anchormesh.Tombstone{Segment: gone.Segment, Generation: gone.Generation, Range: gone.Range, Successors: []anchormesh.SegmentID{d.Segment}})
	right := p.Host.Held[gone.Segment]
	if right == nil {
		return
	}
	p.After(p.pauseOfBirth(), func() { p.letGo(left, gone.Segment, right, c.Place.Index) })
}

// letGo stops a replica that was absorbed and, once the store holds the merge, drops
// its log.
func (p *Process) letGo(left *ReplicaHere, segment anchormesh.SegmentID, right *ReplicaHere, index uint64) {
	p.Host.lock(func(unlock func()) {
		if p.Host.Held[segment] == right {
			p.stopReplica(segment, right)
		}
		unlock()
		p.After(p.pauseOfBirth(), func() {
			if p.CommitStore() != nil || left.Machine.Segment().Durable() < index {
				return
			}
			p.Mesh.begins("drop", p)
			p.Host.lock(func(unlock func()) {
				if err := p.retired(segment, right.ID); err != nil {
					p.broken("drop", err)
					return
				}
				p.drop(segment, unlock)
			})
		})
	})
}

// needed reports whether a left neighbour here may still have to absorb a replica.
func (p *Process) needed(r *ReplicaHere) bool {
	s := r.Machine.State()
	if !s.Frozen() {
		return false
	}
	id := s.Right.Pair.Left.Segment
	left := p.Host.Held[id]
	if left == nil {
		return p.Host.awaiting[id] != 0
	}
	if now := left.Machine.State(); now.Left.Judge(merge.Place{Generation: now.Descriptor.Generation}, s.Right.By) == merge.Undecided {
		return true
	}
	_, present := p.store.Segment(s.Descriptor.Segment)
	return !present // absorbed a moment ago: it is letGo's
}

// makeRoom gives up the replicas here that a snapshot's segment absorbed.
func (p *Process) makeRoom(d *anchormesh.Descriptor, done func(error)) {
	var stale []*ReplicaHere
	for _, r := range p.Host.Sorted() {
		held := r.Machine.Descriptor()
		if held.Segment == d.Segment || !held.Range.Overlaps(d.Range) {
			continue
		}
		if held.Generation >= d.Generation || !d.Range.Contains(held.Range.Start) {
			done(errOverlap)
			return
		}
		if bytes.Equal(held.Range.Start, d.Range.Start) && p.needed(r) {
			done(errOverlap)
			return
		}
		stale = append(stale, r)
	}
	if len(stale) == 0 {
		done(nil)
		return
	}
	if left := p.Host.Held[d.Segment]; left != nil {
		keys := left.Machine.Descriptor().Range
		p.stopReplica(d.Segment, left)
		into, err := p.store.Install(d.Segment, keys)
		if err != nil {
			done(err)
			return
		}
		into.Abort()
	}
	slices.SortFunc(stale, func(a, b *ReplicaHere) int {
		return bytes.Compare(a.Machine.Descriptor().Range.Start, b.Machine.Descriptor().Range.Start)
	})
	p.giveWay(stale, done)
}

func (p *Process) giveWay(stale []*ReplicaHere, done func(error)) {
	if len(stale) == 0 {
		done(nil)
		return
	}
	r := stale[0]
	id := r.Machine.Descriptor().Segment
	if p.Host.Held[id] != r {
		p.giveWay(stale[1:], done)
		return
	}
	if err := p.retired(id, r.ID); err != nil {
		p.broken("retire", err)
		return
	}
	p.stopReplica(id, r)
	if err := p.store.Remove(id); errors.Is(err, mvcc.ErrUnknown) {
		done(err) // absorbed by the one before it a moment ago: the snapshot is offered again
		return
	} else if err != nil {
		p.broken("retire", err)
		return
	}
	p.drop(id, func() { p.giveWay(stale[1:], done) })
}

// brings reports whether a snapshot has something for a replica here that is frozen.
func brings(r *ReplicaHere, offered *machine.State) bool {
	now := r.Machine.State()
	return !now.Frozen() || !offered.Frozen() || offered.Right.By != now.Right.By
}
