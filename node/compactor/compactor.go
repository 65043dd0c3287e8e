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
	// Kept returns the segments led here whose scope's policy says what history is kept.
	Kept() []Kept
	// CompactOwn compacts the history of one such segment, and no other's.
	CompactOwn(ctx context.Context, segment anchormesh.SegmentID, revision int64) error
}

// Kept is a segment whose scope keeps its own history.
type Kept struct {
	Segment   anchormesh.SegmentID
	Retention Retention
	At        Position
}

// Compactor compacts the segments led by this node.
type Compactor struct {
	segments  Segments
	period    time.Duration
	revisions int64
	log       *slog.Logger
	cores     map[anchormesh.SegmentID]*Core
	keepers   map[anchormesh.SegmentID]*Keeper
}

// New returns a compactor; Run starts it.
func New(s Segments, period time.Duration, revisions int64, log *slog.Logger) *Compactor {
	return &Compactor{
		segments: s, period: period, revisions: revisions, log: log,
		cores: make(map[anchormesh.SegmentID]*Core), keepers: make(map[anchormesh.SegmentID]*Keeper),
	}
}

// Run compacts until ctx ends.
func (c *Compactor) Run(ctx context.Context) error {
	own := time.NewTicker(keepInterval)
	defer own.Stop()
	var all <-chan time.Time // never, if there is nothing to do
	if interval := NewCore(c.period, c.revisions).Interval(); interval > 0 {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		all = ticker.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-all:
			c.step(ctx, now)
		case now := <-own.C:
			c.keep(ctx, now)
		}
	}
}

// keep looks at the segments whose scopes say what they keep.
func (c *Compactor) keep(ctx context.Context, now time.Time) {
	led := map[anchormesh.SegmentID]bool{}
	for _, k := range c.segments.Kept() {
		led[k.Segment] = true
		keeper := c.keepers[k.Segment]
		if keeper == nil || keeper.Retention() != k.Retention {
			keeper = NewKeeper(k.Retention)
			c.keepers[k.Segment] = keeper
		}
		to := keeper.Step(now, k.At)
		if to == 0 {
			continue
		}
		if err := c.segments.CompactOwn(ctx, k.Segment, to); err != nil {
			c.log.Warn("history was not compacted", "segment", k.Segment, "revision", to, "err", err)
			continue
		}
		c.log.Info("history compacted as its scope says", "segment", k.Segment, "revision", to,
			"newest", k.At.Revision, "seconds", k.Retention.Period.Seconds(), "writes", k.Retention.Writes)
	}
	for id := range c.keepers {
		if !led[id] {
			delete(c.keepers, id)
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
