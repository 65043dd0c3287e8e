package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	quietEvery   = time.Minute // one line per subject
	quietKeysMax = 256         // subjects remembered; then all are forgotten
)

// quiet lets one line per subject and minute through: what strangers can
// provoke must not fill the disk.
type quiet struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (q *quiet) allow(subject string) bool {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if last, ok := q.last[subject]; ok && now.Sub(last) < quietEvery {
		return false
	}
	if q.last == nil || len(q.last) >= quietKeysMax {
		q.last = make(map[string]time.Time)
	}
	q.last[subject] = now
	return true
}

// memberlistLog takes memberlist's log lines. It has no other way to tell of a
// packet it cannot decrypt, so the text is matched, for a counter and a log
// line only. Everything else is noise to an operator and goes to debug.
type memberlistLog struct {
	log         *slog.Logger
	quiet       *quiet
	undecrypted func()
}

// undecrypted are the words of memberlist 0.7 about what it cannot read.
var undecrypted = []string{
	"installed keys could decrypt", "remote state is not encrypted",
	"remote state is encrypted and encryption is not configured", "decrypt packet failed",
}

func (m *memberlistLog) logger() *log.Logger { return log.New(m, "", 0) }

// Write implements io.Writer; it is called with one line at a time.
func (m *memberlistLog) Write(p []byte) (int, error) {
	line := strings.TrimSpace(string(p))
	lower := strings.ToLower(line)
	for _, mark := range undecrypted {
		if strings.Contains(lower, mark) {
			m.undecrypted()
			from := "unknown"
			if _, after, ok := strings.Cut(line, "from="); ok {
				from = after
			}
			if m.quiet.allow("decrypt") {
				m.log.Warn("somebody gossips here with another mesh key, or is no AnchorMesh node; ignored", "from", from)
			}
			return len(p), nil
		}
	}
	if strings.Contains(line, "UDP probes failed") && m.quiet.allow("udp") {
		m.log.Warn("a member answers over TCP but not over UDP: the gossip port must be open for both", "detail", line)
		return len(p), nil
	}
	m.log.Log(context.Background(), slog.LevelDebug, line)
	return len(p), nil
}
