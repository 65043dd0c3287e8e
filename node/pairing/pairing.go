package pairing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/node/route"
)

// callTimeout bounds one question.
const callTimeout = 2 * time.Second

// Mesh is what pairing needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	Connected(id anchormesh.NodeID) bool
}

// Config of a Pairing. Its functions may be called from several goroutines.
type Config struct {
	Self   anchormesh.NodeID
	Logger *slog.Logger
	// Again is the time between two looks at a pair that is not ready, and Settle that
	// after an order.
	Again, Settle time.Duration
	Backoff       place.Backoff // of attempts that failed
	// Side says how a segment stands; ok is false if this node does not lead it.
	Side func(anchormesh.SegmentID) (side place.Side, ok bool)
	// Align has a replica of a segment led here moved, and Hold has its anchors left
	// alone otherwise for a while: what was aligned must not be levelled away again.
	Align func(place.Order) error
	Hold  func(anchormesh.SegmentID) error
	// Merge has a segment led here take in its right neighbour.
	Merge func(ctx context.Context, left anchormesh.SegmentID, why lineage.Evidence) error
}

// Pairing considers the dormant segments led by this node.
type Pairing struct {
	cfg   Config
	table *route.Table
	mesh  Mesh

	turn sync.Mutex // held while one segment is considered

	mu    sync.Mutex
	known map[anchormesh.SegmentID]*record
}

// record is what is remembered of a dormant segment.
type record struct {
	backoff place.Backoff
	next    time.Time // not before
	note    string
}

// New returns a Pairing.
func New(cfg Config, t *route.Table, m Mesh) *Pairing {
	return &Pairing{cfg: cfg, table: t, mesh: m, known: make(map[anchormesh.SegmentID]*record)}
}

// Forget drops what is remembered of a segment that is not dormant, or not here.
func (p *Pairing) Forget(id anchormesh.SegmentID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, id)
}

// Consider does what is due for a dormant segment that this node leads, and says in a
// sentence how things stand.
func (p *Pairing) Consider(ctx context.Context, now time.Time, id anchormesh.SegmentID, why lineage.Evidence) string {
	rec := p.due(now, id)
	if rec == nil || !p.turn.TryLock() {
		return p.last(id)
	}
	defer p.turn.Unlock()
	note, wait := p.act(ctx, now, id, rec, why)
	p.mu.Lock()
	defer p.mu.Unlock()
	if rec.note != note {
		p.cfg.Logger.Info("merge considered", "segment", id, "outcome", note)
	}
	rec.note, rec.next = note, now.Add(wait)
	return note
}

// due returns the record of a segment if it is to be considered now.
func (p *Pairing) due(now time.Time, id anchormesh.SegmentID) *record {
	p.mu.Lock()
	defer p.mu.Unlock()
	rec := p.known[id]
	if rec == nil {
		rec = &record{backoff: p.cfg.Backoff}
		p.known[id] = rec
	}
	if now.Before(rec.next) || !rec.backoff.Ready(now) {
		return nil
	}
	return rec
}

func (p *Pairing) last(id anchormesh.SegmentID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if rec := p.known[id]; rec != nil {
		return rec.note
	}
	return ""
}

// act looks at the pair and does the next thing; wait is until the next look.
func (p *Pairing) act(ctx context.Context, now time.Time, id anchormesh.SegmentID, rec *record, why lineage.Evidence) (note string, wait time.Duration) {
	left, right, verdict, err := p.judge(ctx, id)
	switch {
	case err != nil:
		return err.Error(), p.cfg.Again
	case verdict.Ready:
		if err := p.cfg.Merge(ctx, id, why); err != nil {
			rec.backoff.Failed(now)
			return "the attempt failed: " + err.Error(), 0
		}
		rec.backoff.Succeeded()
		return "merged with its right neighbour", p.cfg.Again
	case len(verdict.Orders) > 0:
		if err := p.align(ctx, left, right, verdict.Orders[0]); err != nil {
			return fmt.Sprintf("%s; not now: %v", verdict.Reason, err), p.cfg.Again
		}
		return verdict.Reason, p.cfg.Settle
	}
	return verdict.Reason, p.cfg.Again
}

var errUnknown = errors.New("it is not known here who holds the neighbouring keys")

// judge gathers what the leaders of the segment, its right neighbour and the ones
// beside both say, and asks package place. The outer two may be silent.
func (p *Pairing) judge(ctx context.Context, id anchormesh.SegmentID) (l, r *anchormesh.Descriptor, v place.Verdict, err error) {
	left, ok := p.cfg.Side(id)
	if !ok {
		return nil, nil, v, errNotLeader
	}
	end := left.Descriptor.Range.End
	if len(end) == 0 {
		v.Reason = "it is the last segment"
		return nil, nil, v, nil
	}
	d, ok := p.table.Lookup(end)
	if !ok {
		return nil, nil, v, errUnknown
	}
	right, err := p.ask(ctx, d)
	if err != nil {
		return nil, nil, v, fmt.Errorf("its right neighbour %s does not answer: %w", d.Segment, err)
	}
	l, r = left.Descriptor, right.Descriptor
	if v = place.Pair(left, *right, nil, nil); !v.Ready && len(v.Orders) == 0 {
		return l, r, v, nil // whatever the others say
	}
	var before, after *place.Side
	if d, ok := p.table.Before(left.Descriptor.Range.Start); ok {
		before, _ = p.ask(ctx, d)
	}
	if end := right.Descriptor.Range.End; len(end) > 0 {
		if d, ok := p.table.Lookup(end); ok {
			after, _ = p.ask(ctx, d)
		}
	}
	return l, r, place.Pair(left, *right, before, after), nil
}

// ask asks a segment's leader how it stands.
func (p *Pairing) ask(ctx context.Context, d *anchormesh.Descriptor) (*place.Side, error) {
	answer, err := p.call(ctx, d, question{kind: askSide, segment: d.Segment})
	if err != nil {
		return nil, err
	}
	side, err := parseSide(answer)
	if err != nil {
		return nil, err
	}
	return &side, nil
}

// align has both held where they are, and hands an order to the leader of the one that
// moves.
func (p *Pairing) align(ctx context.Context, left, right *anchormesh.Descriptor, o place.Order) error {
	for _, d := range []*anchormesh.Descriptor{left, right} {
		if _, err := p.call(ctx, d, question{kind: askHold, segment: d.Segment}); err != nil {
			return err
		}
	}
	d := left
	if o.Segment == right.Segment {
		d = right
	}
	_, err := p.call(ctx, d, question{kind: askAlign, segment: o.Segment, from: o.From, to: o.To})
	return err
}

// call asks a segment's leader: the node last seen leading it, then its voters in
// turn. Who does not lead says so at once.
func (p *Pairing) call(ctx context.Context, d *anchormesh.Descriptor, q question) ([]byte, error) {
	last := errNotLeader
	for _, node := range p.table.Candidates(d) {
		if node == p.cfg.Self {
			answer, err := p.answer(q)
			if err == nil {
				return answer, nil
			}
			last = err
			continue
		}
		if !p.mesh.Connected(node) {
			continue
		}
		short, cancel := context.WithTimeout(ctx, callTimeout)
		answer, err := p.mesh.Call(short, node, Method, q.encode())
		cancel()
		if err == nil {
			return answer, nil
		}
		last = err
	}
	return nil, last
}
