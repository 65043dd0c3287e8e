package watches

import (
	"sync"

	"github.com/anchormesh/anchormesh/keyspace/watch/weave"
)

// source is where events come from: the stream of a hub here, or another node. poll
// returns the next one, if there is one at once.
type source interface {
	poll() (weave.Event, bool)
}

// slot is a source's place in the line of those that may have something.
type slot struct {
	source source
	queued bool // in the line; guarded by its lock
}

// inlets is the line of sources that may have something to read. Whoever reads them
// does nothing for those that are silent, be they ten thousand.
type inlets struct {
	notify chan struct{} // capacity 1

	mu   sync.Mutex // taken inside all others
	line []*slot
}

// raise puts a source in the line and wakes the reader.
func (in *inlets) raise(s *slot) {
	in.put(s)
	in.nudge()
}

func (in *inlets) put(s *slot) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !s.queued {
		s.queued = true
		in.line = append(in.line, s)
	}
}

func (in *inlets) nudge() {
	select {
	case in.notify <- struct{}{}:
	default:
	}
}

func (in *inlets) front() *slot {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.line) == 0 {
		in.line = nil
		return nil
	}
	s := in.line[0]
	in.line[0] = nil
	in.line = in.line[1:]
	s.queued = false
	return s
}

// next returns the next event of the sources, which take turns.
func (in *inlets) next() (weave.Event, bool) {
	for {
		s := in.front()
		if s == nil {
			return nil, false
		}
		if ev, ok := s.source.poll(); ok {
			in.put(s) // it may have more
			return ev, true
		}
	}
}
