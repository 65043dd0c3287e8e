package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"

	"github.com/anchormesh/anchormesh/internal/quiet"
)

// memberlistLog takes memberlist's log lines. It has no other way to tell of a
// packet it cannot decrypt, so the text is matched, for a counter and a log
// line only. Everything else is noise to an operator and goes to debug.
type memberlistLog struct {
	log         *slog.Logger
	quiet       *quiet.Gate
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
			if m.quiet.Allow("decrypt") {
				m.log.Warn("somebody gossips here with another mesh key, or is no AnchorMesh node; ignored", "from", from)
			}
			return len(p), nil
		}
	}
	if strings.Contains(line, "UDP probes failed") && m.quiet.Allow("udp") {
		m.log.Warn("a member answers over TCP but not over UDP: the gossip port must be open for both", "detail", line)
		return len(p), nil
	}
	m.log.Log(context.Background(), slog.LevelDebug, line)
	return len(p), nil
}
