package telemetry

import (
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

type segmentID = anchormesh.SegmentID

// codesMax is one above the largest gRPC code; larger ones count as Unknown.
const codesMax = int(codes.Unauthenticated) + 1

// apiMetrics counts requests. The label lookup of a CounterVec would cost more
// than the rest of a small read's bookkeeping, so the counters of a method are
// looked up once and then found by index.
type apiMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	streams  *prometheus.GaugeVec
	ended    *prometheus.CounterVec
	methods  sync.Map // string -> *methodMetrics
}

type methodMetrics struct {
	seconds prometheus.Observer
	streams prometheus.Gauge
	once    [codesMax]sync.Once
	counts  [codesMax]prometheus.Counter
}

func newAPIMetrics(c *catalog) *apiMetrics {
	return &apiMetrics{
		requests: c.counters("grpc_requests_total", "Answered unary requests of clients.", "method", "code"),
		seconds:  c.histograms("grpc_request_duration_seconds", "Time from a unary request's arrival to its answer.", requestBuckets, "method"),
		streams:  c.gauges("grpc_streams", "Open streams of clients: watches, lease keep-alives.", "method"),
		ended:    c.counters("grpc_streams_closed_total", "Ended streams of clients.", "method", "code"),
	}
}

func (a *apiMetrics) method(name string) *methodMetrics {
	if m, ok := a.methods.Load(name); ok {
		return m.(*methodMetrics)
	}
	m, _ := a.methods.LoadOrStore(name, &methodMetrics{
		seconds: a.seconds.WithLabelValues(name), streams: a.streams.WithLabelValues(name),
	})
	return m.(*methodMetrics)
}

func (a *apiMetrics) request(method string, code codes.Code, took time.Duration) {
	m, i := a.method(method), codeIndex(code)
	m.once[i].Do(func() { m.counts[i] = a.requests.WithLabelValues(method, codes.Code(i).String()) })
	m.counts[i].Inc()
	m.seconds.Observe(took.Seconds())
}

func (a *apiMetrics) opened(method string) { a.method(method).streams.Inc() }

func (a *apiMetrics) closed(method string, code codes.Code) {
	a.method(method).streams.Dec()
	a.ended.WithLabelValues(method, codes.Code(codeIndex(code)).String()).Inc()
}

func codeIndex(code codes.Code) int {
	if int(code) >= codesMax {
		return int(codes.Unknown)
	}
	return int(code)
}

// groupMetrics follows the anchor groups of this node.
type groupMetrics struct {
	mu     sync.Mutex
	leader map[segmentID]groupView

	changes  prometheus.Counter
	requests prometheus.Histogram
	shared   prometheus.Histogram
	acks     prometheus.Histogram
	unacked  prometheus.Counter
}

type groupView struct {
	leader anchormesh.NodeID // the last known one, kept while there is none
	now    anchormesh.NodeID // empty: none known
	leads  bool
}

func newGroupMetrics(c *catalog) *groupMetrics {
	g := &groupMetrics{
		leader:   make(map[segmentID]groupView),
		changes:  c.counter("consensus_leader_changes_seen_total", "Changes of the leader of any group here, the first one of each included."),
		requests: c.histogram("consensus_entry_requests", "Requests in one applied log entry.", countBuckets),
		shared:   c.histogram("consensus_sync_groups", "Groups that waited for one sync of the log together.", countBuckets),
		acks:     c.histogram("consensus_ack_wait_seconds", "Time that the answers of an applied entry waited for more acknowledgements than a majority's.", syncBuckets),
		unacked:  c.counter("consensus_ack_unknown_total", "Applied entries whose writers were told that the outcome is unknown, because the acknowledgements asked for did not come."),
	}
	level := func(of func(groupView) bool) func() float64 { return func() float64 { return g.count(of) } }
	c.gaugeFunc("consensus_groups_leading", "Anchor groups that this node leads.", level(func(v groupView) bool { return v.leads }))
	c.gaugeFunc("consensus_groups_without_leader", "Anchor groups here that know no leader.", level(func(v groupView) bool { return v.now == "" }))
	return g
}

func (g *groupMetrics) count(of func(groupView) bool) float64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, v := range g.leader {
		if of(v) {
			n++
		}
	}
	return float64(n)
}

func (g *groupMetrics) changed(id segmentID, s consensus.Status) {
	g.mu.Lock()
	defer g.mu.Unlock()
	v := g.leader[id]
	v.now, v.leads = s.Leader, s.Leads()
	if v.now != "" && v.now != v.leader {
		v.leader = v.now
		g.changes.Inc()
	}
	g.leader[id] = v
}

func (g *groupMetrics) stopped(id segmentID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.leader, id)
}

func (g *groupMetrics) synced(groups int, _ time.Duration) { g.shared.Observe(float64(groups)) }

func (g *groupMetrics) gated(took time.Duration, ok bool) {
	g.acks.Observe(took.Seconds())
	if !ok {
		g.unacked.Inc()
	}
}

func (g *groupMetrics) batch(requests int) { g.requests.Observe(float64(requests)) }

// Structure counts changes of structure, each with a word of why, or of what came of
// it.
type Structure struct {
	Split       func(cause string)
	Merged      func(outcome string)
	Moved       func(cause string)
	Transferred func(cause string)
	Invited     func(outcome string)
}

// structureMetrics follows what the steward carries out.
type structureMetrics struct {
	splits, merges, moves, transfers, invitations, lines *prometheus.CounterVec
	silent                                               prometheus.Histogram
}

func newStructureMetrics(c *catalog) *structureMetrics {
	m := &structureMetrics{
		splits:      c.counters("structure_splits_total", "Segments that this node, as their leader, cut in two.", "cause"),
		merges:      c.counters("structure_merges_total", "Attempts of this node, as the left's leader, to merge two segments: order and load were merged, aborted changed nothing.", "outcome"),
		moves:       c.counters("structure_moves_total", "Replicas of segments led here whose place went to another node.", "cause"),
		transfers:   c.counters("structure_transfers_total", "Leaderships that this node handed over.", "cause"),
		invitations: c.counters("structure_invitations_total", "Invitations that this node sent: accepted, declined or silent.", "outcome"),
		lines:       c.counters("line_handovers_total", "Hand-overs of scopes led here between lines of revisions: to an own line, to an outer one, or turned back.", "outcome"),
		silent:      c.histogram("line_handover_duration_seconds", "Time of one hand-over, in which the scope's home served nothing at first.", syncBuckets),
	}
	// What can be expected is shown at zero before it happens.
	for _, cause := range []string{"order", "load"} {
		m.splits.WithLabelValues(cause)
		m.merges.WithLabelValues(cause)
	}
	m.merges.WithLabelValues("aborted")
	m.moves.WithLabelValues("order")
	m.transfers.WithLabelValues("order")
	for _, outcome := range []string{"accepted", "declined", "silent"} {
		m.invitations.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"own", "outer", "turned_back"} {
		m.lines.WithLabelValues(outcome)
	}
	return m
}

// handedOver counts a hand-over between lines.
func (m *structureMetrics) handedOver(own, turnedBack bool, took time.Duration) {
	outcome := "outer"
	switch {
	case turnedBack:
		outcome = "turned_back"
	case own:
		outcome = "own"
	}
	m.lines.WithLabelValues(outcome).Inc()
	m.silent.Observe(took.Seconds())
}

// Governing counts what becomes of changes of scopes.
type Governing struct {
	Proposed func(kind string)
	Voted    func(verdict string)
	Ended    func(kind, outcome string)
}

// scopeMetrics follows the governor.
type scopeMetrics struct{ proposals, votes, ended *prometheus.CounterVec }

func newScopeMetrics(c *catalog) *scopeMetrics {
	m := &scopeMetrics{
		proposals: c.counters("scope_proposals_total", "Changes of scopes that this node, leading their home, put to the vote.", "kind"),
		votes:     c.counters("scope_votes_total", "Votes of this node on changes of scopes.", "verdict"),
		ended:     c.counters("scope_changes_total", "Changes of scopes that ended while this node led their home.", "kind", "outcome"),
	}
	for _, kind := range []string{"amend", "create", "delete", "recover"} {
		m.proposals.WithLabelValues(kind)
		m.ended.WithLabelValues(kind, "decided")
	}
	for _, verdict := range []string{"approve", "refuse"} {
		m.votes.WithLabelValues(verdict)
	}
	return m
}

func (m *scopeMetrics) listener() Governing {
	return Governing{
		Proposed: func(kind string) { m.proposals.WithLabelValues(kind).Inc() },
		Voted:    func(verdict string) { m.votes.WithLabelValues(verdict).Inc() },
		Ended:    func(kind, outcome string) { m.ended.WithLabelValues(kind, outcome).Inc() },
	}
}

// logMetrics follows the write-ahead log.
type logMetrics struct {
	sync, write prometheus.Histogram
	trouble     prometheus.Counter
}

func newLogMetrics(c *catalog) *logMetrics {
	return &logMetrics{
		sync:    c.histogram("log_sync_duration_seconds", "Time of one fdatasync of the write-ahead log; every acknowledged write that is not light waits for one.", syncBuckets),
		write:   c.histogram("log_write_duration_seconds", "Time of one write into the write-ahead log, before its sync.", syncBuckets),
		trouble: c.counter("log_trouble_total", "Failed housekeeping of the write-ahead log, such as a full disk while the next file is prepared."),
	}
}

func (l *logMetrics) wrote(_ int, took time.Duration) { l.write.Observe(took.Seconds()) }

func (l *logMetrics) synced(took time.Duration) { l.sync.Observe(took.Seconds()) }
