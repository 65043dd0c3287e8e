package compactor

import (
	"context"
	"log/slog"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Segments is what the compactor needs to know and do.
type Segments interface {
	// Led returns the segments led here with their newest revisions: of a scope that
	// was split its home alone, with the newest of its line.
	Led(ctx context.Context) map[anchormesh.SegmentID]int64
	// Compact compacts a segment's history below revision, or that of its scope.
	Compact(ctx context.Context, segment anchormesh.SegmentID, revision int64) error
}

// Compactor compacts the segments led by this node.
type Compactor struct {
	segments  Segments
	period    time.Duration
	revisions int64
	log       *slog.Logger
	cores     map[anchormesh.SegmentID]*Core
}

// New returns a compactor; Run starts it.
func New(s Segments, period time.Duration, revisions int64, log *slog.Logger) *Compactor {
	return &Compactor{segments: s, period: period, revisions: revisions, log: log, cores: make(map[anchormesh.SegmentID]*Core)}
}

// Run compacts until ctx ends; at once if there is nothing to do ever.
func (c *Compactor) Run(ctx context.Context) error {
	interval := NewCore(c.period, c.revisions).Interval()
	if interval == 0 {
		return nil
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			c.step(ctx, now)
		}
	}
}

func (c *Compactor) step(ctx context.Context, now time.Time) {
	led := c.segments.Led(ctx)
	for id := range c.cores {
		if _, ok := led[id]; !ok {
			delete(c.cores, id)
		}
	}
	for id, revision := range led {
		core := c.cores[id]
		if core == nil {
			core = NewCore(c.period, c.revisions)
			c.cores[id] = core
		}
		to := core.Step(now, revision)
		if to == 0 {
			continue
		}
		if err := c.segments.Compact(ctx, id, to); err != nil {
			c.log.Warn("history was not compacted", "segment", id, "revision", to, "err", err)
			continue
		}
		c.log.Info("history compacted", "segment", id, "revision", to)
	}
}
