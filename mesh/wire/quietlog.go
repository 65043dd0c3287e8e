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
	now := time.Now()
	q.mu.Lock()
	if last, ok := q.last[subject]; ok && now.Sub(last) < quietEvery {
		q.mu.Unlock()
		return
	}
	if len(q.last) >= quietKeysMax {
		clear(q.last)
	}
	q.last[subject] = now
	q.mu.Unlock()
	q.log.Warn(msg, args...)
}
