// Package quiet keeps a log from being filled by what strangers can provoke: it
// lets one line per subject and minute through.
package quiet

import (
	"sync"
	"time"
)

const (
	every       = time.Minute // one line per subject
	subjectsMax = 1024        // remembered; then all are forgotten
)

// Gate remembers when a subject was last let through. The zero Gate is ready;
// its method may be called from any goroutine.
type Gate struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// Allow reports whether the subject has been quiet for long enough, and counts
// as a line about it if so.
func (g *Gate) Allow(subject string) bool {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	if last, ok := g.last[subject]; ok && now.Sub(last) < every {
		return false
	}
	if g.last == nil || len(g.last) >= subjectsMax {
		g.last = make(map[string]time.Time)
	}
	g.last[subject] = now
	return true
}
