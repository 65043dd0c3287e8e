package pulse

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/node/host"
)

// interval is the length of a window.
const interval = 5 * time.Second

// Pulse judges the segments held here.
type Pulse struct {
	cfg  entropy.Config
	host *host.Host
	log  *slog.Logger

	mu     sync.Mutex
	judged map[anchormesh.SegmentID]*judged
}

type judged struct {
	replica *host.Replica
	judge   *entropy.Judge
	last    time.Time
	now     entropy.Decision
}

// New returns a pulse; Run starts it.
func New(cfg entropy.Config, h *host.Host, log *slog.Logger) *Pulse {
	return &Pulse{cfg: cfg, host: h, log: log, judged: make(map[anchormesh.SegmentID]*judged)}
}

// Run measures until ctx ends.
func (p *Pulse) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			p.measure(now)
		}
	}
}

func (p *Pulse) measure(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.judged {
		if r, here := p.host.Get(id); !here || r != p.judged[id].replica {
			delete(p.judged, id)
		}
	}
	for _, id := range p.host.Segments() {
		r, here := p.host.Get(id)
		if !here {
			continue
		}
		j := p.judged[id]
		if j == nil {
			j = &judged{replica: r, last: now, judge: entropy.New(p.cfg, r.Machine.Descriptor().Range, entropy.Birth{}, now)}
			p.judged[id] = j
		}
		totals, samples := r.Meter.Drain()
		d := j.judge.Decide(now, entropy.Window{Length: max(now.Sub(j.last), time.Millisecond), Totals: totals, Samples: samples})
		if d.Action != j.now.Action {
			p.log.Info("load judged", "segment", id, "action", d.Action, "why", d.Reason,
				"pressure", d.Numbers.Pressure, "spread", d.Numbers.Spread, "writes", d.Numbers.WritesPerSec, "reads", d.Numbers.ReadsPerSec)
		}
		j.now, j.last = d, now
	}
}

// Last returns the newest judgement of a segment.
func (p *Pulse) Last(id anchormesh.SegmentID) (entropy.Decision, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.judged[id]
	if j == nil {
		return entropy.Decision{}, false
	}
	return j.now, true
}
