package wire

import (
	"log/slog"
	"sync"
	"time"
)

const (
	quietEvery   = time.Minute // one line per subject
	quietKeysMax = 1024        // subjects remembered; then all are forgotten
)

// quietLog writes at most one line per subject and minute: what strangers can
// provoke must not fill the disk.
type quietLog struct {
	log  *slog.Logger
	mu   sync.Mutex
	last map[string]time.Time
}

func newQuietLog(log *slog.Logger) *quietLog {
	return &quietLog{log: log, last: make(map[string]time.Time)}
}

func (q *quietLog) warn(subject, msg string, args ...any) {
	if q.allow(subject) {
		q.log.Warn(msg, args...)
	}
}

// allow reports whether the subject has been quiet for long enough.
func (q *quietLog) allow(subject string) bool {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[subject]; ok && now.Sub(last) < quietEvery {
		return false
	}
	if len(q.last) >= quietKeysMax {
		clear(q.last)
	}
	q.last[subject] = now
	return true
}
