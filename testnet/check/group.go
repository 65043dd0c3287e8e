package check

import (
	"errors"
	"fmt"
)

var (
	// ErrTwoLeaders: two nodes led a group in one term.
	ErrTwoLeaders = errors.New("two leaders in one term")
	// ErrDiverged: two nodes committed different entries at one index.
	ErrDiverged = errors.New("two entries at one index")
	// ErrLost: an acknowledged write is not in the log.
	ErrLost = errors.New("acknowledged write is lost")
	// ErrStates: two replicas at the same index hold different states.
	ErrStates = errors.New("states differ at the same index")
)

// place is an index, or a term, of a group.
type place struct{ group, at uint64 }

// Leaders remembers who led when.
type Leaders struct{ seen map[place]string }

// Leads notes that a node leads a group in a term.
func (l *Leaders) Leads(group, term uint64, node string) error {
	if l.seen == nil {
		l.seen = make(map[place]string)
	}
	if old, ok := l.seen[place{group, term}]; ok && old != node {
		return fmt.Errorf("group %x term %d: %w: %s and %s", group, term, ErrTwoLeaders, old, node)
	}
	l.seen[place{group, term}] = node
	return nil
}

// Log remembers what was committed at each index.
type Log struct{ seen map[place]uint64 }

// Applied notes that a node applied an entry with a hash of its term and content.
func (l *Log) Applied(group, index, hash uint64, node string) error {
	if l.seen == nil {
		l.seen = make(map[place]uint64)
	}
	if old, ok := l.seen[place{group, index}]; ok && old != hash {
		return fmt.Errorf("group %x index %d: %w: %s has %x, others had %x", group, index, ErrDiverged, node, hash, old)
	}
	l.seen[place{group, index}] = hash
	return nil
}

// Acknowledged makes sure that what a client was told about is in the log as it was
// then.
func (l *Log) Acknowledged(group, index, hash uint64) error {
	if got, ok := l.seen[place{group, index}]; !ok || got != hash {
		return fmt.Errorf("group %x index %d: %w", group, index, ErrLost)
	}
	return nil
}

// States remembers the hash of each group's state at each index.
type States struct{ seen map[place]uint64 }

// At notes a replica's state.
func (s *States) At(group, index, hash uint64, node string) error {
	if s.seen == nil {
		s.seen = make(map[place]uint64)
	}
	if old, ok := s.seen[place{group, index}]; ok && old != hash {
		return fmt.Errorf("group %x index %d: %w: %s has %x, another has %x", group, index, ErrStates, node, hash, old)
	}
	s.seen[place{group, index}] = hash
	return nil
}
