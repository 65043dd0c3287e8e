package pulse

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/entropy/sample"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/node/host"
)

const (
	// marks is how many keys a walk names: enough to cut near the middle.
	marks = 15
	// splitTimeout bounds a split; what comes of it later is seen then.
	splitTimeout = 10 * time.Second
	// mergeTimeout outlasts an attempt and the questions before it.
	mergeTimeout = 30 * time.Second
)

// Config of a pulse. The functions must not call back.
type Config struct {
	Judge  entropy.Config
	Window time.Duration // between two judgements of a segment
	Asleep time.Duration // the same while its group sleeps
	Logger *slog.Logger
	// Group says whether an anchor of a segment led here is missing or lags, and
	// whether a change of it is under way.
	Group func(anchormesh.SegmentID) (degraded, changing bool)
	// Alone reports whether no other node could lead a part of a segment.
	Alone func() bool
	// Birth says where a replica's segment comes from.
	Birth func(*host.Replica) entropy.Birth
	// Split carries a decision out and returns when it is applied, or why it is not.
	// Without it a decision to split is advice.
	Split func(context.Context, anchormesh.SegmentID, entropy.Decision) error
	// Merge does what is due for a segment that is dormant, and says how things stand.
	// Without it a decision to merge is advice.
	Merge func(context.Context, anchormesh.SegmentID, entropy.Decision) string
	// Gone is told of a replica that left this node.
	Gone func(anchormesh.SegmentID)
}

// Pulse judges the segments held here.
type Pulse struct {
	cfg    Config
	host   *host.Host
	engine *consensus.Engine

	acts sync.WaitGroup

	mu     sync.Mutex
	judged map[anchormesh.SegmentID]*judged
	loaded []anchormesh.SegmentID // of these, those that were not idle at the last look
}

// judged is what is known of a segment's replica here.
type judged struct {
	replica    *host.Replica
	judge      *entropy.Judge        // nil: another node leads, and nothing was asked of this one yet
	begun, led bool                  // the judge judges as the leader's
	generation anchormesh.Generation // that the judge knows, with its range
	keyRange   anchormesh.KeyRange
	seek       bool // the judge wants marks
	splitting  bool
	merging    bool // looked at, or under way
	acts       bool // something acts on the decision
	note       string
	keys       int
	last       time.Time
	now        entropy.Decision
}

// Reading is what is known of a segment.
type Reading struct {
	entropy.Decision
	Led    bool   // the decision is its leader's, which is this node
	Advice bool   // nothing acts on the decision here
	Bytes  int64  // that it keeps, about
	Note   string // how a merge that was decided stands
}

// New returns a pulse; Run starts it.
func New(cfg Config, h *host.Host, e *consensus.Engine) *Pulse {
	return &Pulse{cfg: cfg, host: h, engine: e, judged: make(map[anchormesh.SegmentID]*judged)}
}

// Run measures until ctx ends.
func (p *Pulse) Run(ctx context.Context) error {
	ticker := time.NewTicker(p.cfg.Window)
	defer ticker.Stop()
	defer p.acts.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			p.measure(ctx, now)
		}
	}
}

// measure takes a window of every segment that is due.
func (p *Pulse) measure(ctx context.Context, now time.Time) {
	due := p.due(now)
	total := p.total()
	for id, j := range due {
		p.judge(ctx, now, id, j, total[j.replica.Store])
	}
	p.weigh()
}

// due brings the list of replicas up to date and returns those to be judged now.
func (p *Pulse) due(now time.Time) map[anchormesh.SegmentID]*judged {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, j := range p.judged {
		if r, here := p.host.Get(id); !here || r != j.replica {
			delete(p.judged, id)
			if !here {
				p.cfg.Gone(id)
			}
		}
	}
	due := make(map[anchormesh.SegmentID]*judged)
	for _, id := range p.host.Segments() {
		r, here := p.host.Get(id)
		st, runs := p.engine.Status(id)
		if !here || !runs {
			continue
		}
		j := p.judged[id]
		if j == nil {
			j = &judged{replica: r, last: now.Add(-p.cfg.Window)}
			p.judged[id] = j
		} else if st.Asleep && now.Sub(j.last) < p.cfg.Asleep {
			continue
		}
		if !j.begun || j.led != st.Leads() {
			p.begin(now, j, st.Leads())
		}
		j.keys = r.Machine.Segment().Keys()
		due[id] = j
	}
	return due
}

// begin gives a replica a new judge, if it leads: what was measured of it as a follower
// says little of its group.
func (p *Pulse) begin(now time.Time, j *judged, led bool) {
	j.judge, j.led, j.seek, j.begun = nil, led, false, true
	if led {
		p.judges(now, j)
	}
}

// judges gives a replica its judge.
func (p *Pulse) judges(now time.Time, j *judged) {
	d := j.replica.Machine.Descriptor()
	j.judge = entropy.New(p.cfg.Judge, d.Range, p.cfg.Birth(j.replica), now)
	j.generation, j.keyRange = d.Generation, d.Range
}

// empty reports whether a window has nothing to judge: the replica keeps nothing, and
// nobody asked it for anything. So it is with most of thousands.
func empty(w *entropy.Window) bool {
	return w.Totals == (sample.Totals{}) && w.Keys == 0 && w.Size == 0
}

// total counts the keys of each scope here.
func (p *Pulse) total() map[*mvcc.Store]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[*mvcc.Store]int)
	for _, j := range p.judged {
		out[j.replica.Store] += j.keys
	}
	return out
}

// ledElsewhere is why nothing is done about a segment here.
const ledElsewhere = "another node leads it"

// judge takes one window. The keys of the segment's scope are counted together.
func (p *Pulse) judge(ctx context.Context, now time.Time, id anchormesh.SegmentID, j *judged, scope int) {
	p.mu.Lock()
	seek, splitting := j.seek, j.splitting
	p.mu.Unlock()
	w := p.window(now, id, j, scope, seek)
	w.Changing = w.Changing || splitting
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.judge == nil && empty(&w) {
		j.now, j.last, j.seek = entropy.Decision{Reason: ledElsewhere}, now, false
		return
	}
	if j.judge == nil {
		p.judges(now, j)
	}
	j.follow(now)
	state := j.replica.Machine.State()
	j.judge.Retune(tuned(p.cfg.Judge, state.Policy))
	d := allowed(j.judge.Decide(now, w), state.Policy)
	if !j.led {
		d.Action, d.Reason, d.Seek = entropy.None, ledElsewhere, false
	}
	if d.Action != j.now.Action {
		n := &d.Numbers
		p.cfg.Logger.Info("load judged", "segment", id, "action", d.Action, "cause", d.Cause, "why", d.Reason,
			"pressure", n.Pressure, "spread", n.Spread, "fill", n.Fill, "writes", n.WritesPerSec, "reads", n.ReadsPerSec,
			"bytes", n.BytesPerSec, "size", n.Size, "keys", n.Keys, "hot_key", n.HotKey, "edge", n.Edge, "at", string(d.At))
	}
	j.now, j.last, j.seek, j.acts = d, now, d.Seek, p.acting(d.Action, state.Policy)
	switch {
	case d.Action == entropy.Split && j.acts && !j.splitting:
		j.splitting = true
		p.acts.Go(func() { p.split(ctx, id, j, d) })
	case d.Action == entropy.Merge && j.acts && !j.merging:
		j.merging = true
		p.acts.Go(func() { p.merge(ctx, id, j, d) })
	case (d.Action != entropy.Merge || !j.acts) && !j.merging:
		j.note = ""
	}
}

// acting reports whether anything acts on a decision by itself: not where operators vote.
func (p *Pulse) acting(a entropy.Action, rules *policy.Policy) bool {
	switch {
	case rules != nil && rules.Amend.Manual:
		return false
	case a == entropy.Split:
		return p.cfg.Split != nil
	case a == entropy.Merge:
		return p.cfg.Merge != nil
	}
	return true
}

// follow tells the judge of a change of the segment's range, whoever made it.
func (j *judged) follow(now time.Time) {
	d := j.replica.Machine.Descriptor()
	if d.Generation == j.generation {
		return
	}
	switch {
	case d.Range.Equal(j.keyRange): // it has changed its scope
	case d.Range.Covers(j.keyRange):
		j.judge.Did(now, entropy.Merge)
	default:
		j.judge.Did(now, entropy.Split)
	}
	j.judge.Resize(d.Range)
	j.generation, j.keyRange = d.Generation, d.Range
}

// window is what is handed to the judge; seek adds marks.
func (p *Pulse) window(now time.Time, id anchormesh.SegmentID, j *judged, scope int, seek bool) entropy.Window {
	r := j.replica
	totals, samples := r.Meter.Drain()
	w := entropy.Window{
		Length: max(now.Sub(j.last), time.Millisecond), Totals: totals, Samples: samples,
		Keys: uint64(j.keys), Size: share(r.Store, j.keys, scope),
	}
	if !j.led {
		return w
	}
	w.Degraded, w.Changing = p.cfg.Group(id)
	w.Alone = p.cfg.Alone()
	w.Commit, w.Queue = r.Meter.Latency()
	if seek {
		w.Marks = r.Machine.Segment().Marks(marks)
	}
	return w
}

// share is the part of a store's file that so many of its keys take.
func share(s *mvcc.Store, keys, scope int) uint64 {
	_, used := s.SizeBytes()
	return uint64(float64(max(used, 0)) * float64(keys) / float64(max(scope, 1)))
}

func (p *Pulse) split(ctx context.Context, id anchormesh.SegmentID, j *judged, d entropy.Decision) {
	ctx, cancel := context.WithTimeout(ctx, splitTimeout)
	defer cancel()
	if err := p.cfg.Split(ctx, id, d); err != nil {
		p.cfg.Logger.Warn("a split that the load asks for did not happen", "segment", id, "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	j.splitting = false
}

// Total returns the load of all segments led here now together, and the highest pressure.
func (p *Pulse) Total() (load, pressure uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.loaded {
		j := p.judged[id]
		if st, runs := p.engine.Status(id); j == nil || !j.led || !runs || !st.Leads() {
			continue
		}
		load += j.now.Numbers.Load
		pressure = max(pressure, j.now.Numbers.Pressure)
	}
	return load, pressure
}

// weigh finds out who is not idle.
func (p *Pulse) weigh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loaded = p.loaded[:0]
	for id, j := range p.judged { // the order shows nowhere
		if n := &j.now.Numbers; n.Load > 0 || n.Pressure > 0 {
			p.loaded = append(p.loaded, id)
		}
	}
}

func (p *Pulse) merge(ctx context.Context, id anchormesh.SegmentID, j *judged, d entropy.Decision) {
	ctx, cancel := context.WithTimeout(ctx, mergeTimeout)
	defer cancel()
	note := p.cfg.Merge(ctx, id, d)
	p.mu.Lock()
	defer p.mu.Unlock()
	j.merging, j.note = false, note
}

// Last returns the newest judgement of a segment.
func (p *Pulse) Last(id anchormesh.SegmentID) (Reading, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.judged[id]
	if j == nil {
		return Reading{}, false
	}
	advice := j.now.Action != entropy.None && !j.acts
	return Reading{Decision: j.now, Led: j.led, Advice: advice, Bytes: int64(j.now.Numbers.Size), Note: j.note}, true
}
