package mvcc

import (
	"github.com/anchormesh/anchormesh/keyspace/bolt"
	"github.com/anchormesh/anchormesh/keyspace/keyindex"
)

// scrubState is how far the physical removal of a compaction has come. It is not
// persisted: after a crash the compaction is scrubbed again from the first key,
// which finds little to do where it had been.
type scrubState struct {
	target int64
	next   []byte // the key to go on from; nil is the beginning
	active bool
}

// Scrub removes what compactions made unreachable: about budget keys and revisions
// of one segment are visited and dropped, in one backend transaction. more says
// that another call finds work to do now. Nothing of a compaction is removed before
// the compaction itself is committed, or a crash would come back below it without
// the data; nor while a view from before it is open.
func (s *Store) Scrub(budget int) (more bool, err error) {
	s.commitMu.Lock()
	defer s.commitMu.Unlock()
	if err := s.err(); err != nil {
		return false, err // the index must not lose what the backend will keep
	}
	for _, g := range s.live() {
		dropped, target, done, ok := g.scrubIndex(budget)
		if !ok {
			continue
		}
		if err := g.scrubBackend(dropped, target, done); err != nil {
			return false, err
		}
		for _, g := range s.live() {
			if g.scrubbable() {
				return true, nil
			}
		}
		return false, nil
	}
	return false, nil
}

func (g *Segment) scrubbable() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.scrubTargetLocked()
}

// scrubTargetLocked decides whether a scrub can go on now, and to which compaction.
func (g *Segment) scrubTargetLocked() bool {
	d := g.durable.Load()
	if d == nil || !d.rng.Equal(g.head.rng) {
		return false // its record could not say of which range the compaction is complete
	}
	if g.scrub.active {
		return true
	}
	if d.compacted <= d.scrubbed || !g.pins.free(d.compacted) {
		return false
	}
	g.scrub = scrubState{target: d.compacted, active: true}
	return true
}

// scrubIndex takes one step over the index. The revisions that it drops can be
// deleted afterwards, without the lock: no view refers to them, and they are all
// in the backend, since they are not newer than a committed compaction.
func (g *Segment) scrubIndex(budget int) (dropped []keyindex.Dropped, target int64, done, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.scrubTargetLocked() {
		return nil, 0, false, false
	}
	dropped, next, more := g.index.Compact(nil, g.scrub.target, g.scrub.next, budget)
	target = g.scrub.target
	if more {
		g.scrub.next = []byte(next)
		return dropped, target, false, true
	}
	g.head.scrubbed = target
	g.scrub = scrubState{}
	return dropped, target, true, true
}

// scrubBackend deletes the revisions, and with the last of them records that the
// compaction is complete. commitMu is held, so the durable position stands still.
func (g *Segment) scrubBackend(dropped []keyindex.Dropped, target int64, done bool) error {
	if len(dropped) == 0 && !done {
		return nil
	}
	names := g.store.origins.names()
	pos := *g.durable.Load()
	err := g.store.update(func(tx bolt.Tx) error {
		b, err := tx.Appending(bucketRevisions)
		if err != nil {
			return err
		}
		key := make([]byte, 0, revKeyMax)
		for _, d := range dropped {
			key = names.appendRevKey(key[:0], d.Mod, d.Tombstone)
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		if !done {
			return nil
		}
		pos.scrubbed = target
		return putRecord(tx, g.id, &record{position: pos})
	})
	if err == nil && done {
		g.sync(pos)
	}
	return err
}
