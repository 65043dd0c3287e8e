package upkeep

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/route"
)

const (
	// Interval is the time between two looks at all scopes.
	Interval = 2 * time.Second
	// askTimeout bounds the questions to a scope's segments, and the changes of shares.
	askTimeout = time.Second
	// SegmentsMax is how many segments of a scope its quota is divided over; more keep the
	// shares they have.
	SegmentsMax = 1024
	// segmentsPerRound: a scope of so many segments more is looked at one round more seldom.
	segmentsPerRound = 16
)

// Segments asks and tells leaders; dispatch.Dispatcher is one.
type Segments interface {
	Usage(ctx context.Context, d *anchormesh.Descriptor) (keyspace.Usage, error)
	Share(ctx context.Context, d *anchormesh.Descriptor, share keyspace.Share) error
}

// Leaders says who leads; consensus.Engine is one.
type Leaders interface {
	Status(segment anchormesh.SegmentID) (consensus.Status, bool)
}

// Upkeep looks after the scopes of a node.
type Upkeep struct {
	host     *host.Host
	leaders  Leaders
	table    *route.Table
	segments Segments
	log      *slog.Logger
	round    int
}

// New returns an Upkeep that Run starts.
func New(h *host.Host, l Leaders, t *route.Table, s Segments, log *slog.Logger) *Upkeep {
	return &Upkeep{host: h, leaders: l, table: t, segments: s, log: log}
}

// Run looks after the scopes until ctx ends.
func (u *Upkeep) Run(ctx context.Context) error {
	ticker := time.NewTicker(Interval)
	defer ticker.Stop()
	for {
		u.Step(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Step looks at every replica once.
func (u *Upkeep) Step(ctx context.Context) {
	u.round++
	counts := map[string]int{}
	for _, id := range u.host.Segments() {
		r, ok := u.host.Get(id)
		if !ok {
			continue
		}
		state := r.Machine.State()
		d, p := state.Descriptor, state.Policy
		if p == nil || p.Quota == (policy.Quota{}) {
			r.Pace.Set(0)
			continue
		}
		n, known := counts[string(d.Scope)]
		if !known {
			n = len(u.scope(d.Scope))
			counts[string(d.Scope)] = n
		}
		r.Pace.Set(float64(p.Quota.RequestsPerSecond) / float64(max(1, n)))
		if st, ok := u.leaders.Status(id); ok && st.Leads() && d.Home() && (p.Quota.Keys > 0 || p.Quota.Bytes > 0) {
			u.divide(ctx, d.Scope, p.Quota)
		}
	}
}

// scope lists the segments of a scope, without those of scopes inside, as far as this node knows.
func (u *Upkeep) scope(prefix []byte) []*anchormesh.Descriptor {
	return slices.DeleteFunc(slices.Clone(u.table.All()), func(d *anchormesh.Descriptor) bool { return !bytes.Equal(d.Scope, prefix) })
}

// divide gives the segments of a scope that is led here their shares.
func (u *Upkeep) divide(ctx context.Context, prefix []byte, q policy.Quota) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	segments := u.scope(prefix)
	if len(segments) > SegmentsMax || u.round%(1+len(segments)/segmentsPerRound) != 0 {
		return
	}
	used := make([]keyspace.Usage, len(segments))
	for i, d := range segments {
		var err error
		if used[i], err = u.segments.Usage(ctx, d); err != nil || !used[i].Counted {
			return // it has no leader, or has not adopted the quota: the next round
		}
	}
	less, more := Divide(q.Keys, q.Bytes, used)
	if u.give(ctx, prefix, segments, less) {
		u.give(ctx, prefix, segments, more)
	}
}

// give reports whether all shares are in force.
func (u *Upkeep) give(ctx context.Context, prefix []byte, segments []*anchormesh.Descriptor, shares map[int]keyspace.Share) bool {
	for i, d := range segments {
		s, ok := shares[i]
		if !ok {
			continue
		}
		if err := u.segments.Share(ctx, d, s); err != nil {
			u.log.Debug("a share of a quota was not changed", "scope", string(prefix), "segment", d.Segment, "err", err)
			return false
		}
		u.log.Info("share of a quota changed", "scope", string(prefix), "segment", d.Segment,
			"bytes", float64(s.Bytes)/keyspace.ShareWhole, "keys", float64(s.Keys)/keyspace.ShareWhole)
	}
	return true
}
