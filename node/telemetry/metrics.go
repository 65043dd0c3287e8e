package telemetry

import (
	"net/http"
	"runtime"
	"time"

	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapesMax bounds the scrapes served at once; more are answered 503.
const scrapesMax = 4

// Metrics are the metrics of one node.
type Metrics struct {
	reg     *prometheus.Registry
	catalog *catalog
	api     *apiMetrics
	groups  *groupMetrics
	log     *logMetrics

	structure *structureMetrics
	consent   *consentMetrics
	scopes    *scopeMetrics

	commitSeconds prometheus.Histogram
}

// New returns metrics that read their levels from src.
func New(src Sources, version string) *Metrics {
	c := &catalog{reg: prometheus.NewRegistry()}
	m := &Metrics{
		reg: c.reg, catalog: c,
		api: newAPIMetrics(c), groups: newGroupMetrics(c), log: newLogMetrics(c), structure: newStructureMetrics(c), consent: newConsentMetrics(c),
		scopes:        newScopeMetrics(c),
		commitSeconds: c.histogram("store_commit_duration_seconds", "Time of one background commit of a store: the transaction and its sync.", syncBuckets),
	}
	c.sources(&src)
	c.info("build_info", "Always 1; the labels say what runs.", prometheus.Labels{"version": version, "go_version": runtime.Version()})
	m.reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler answers a scrape.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.reg, promhttp.HandlerOpts{Registry: m.reg, MaxRequestsInFlight: scrapesMax})
}

// Catalog lists every metric named anchormesh_*, in the order of their names.
func (m *Metrics) Catalog() []Metric { return m.catalog.sorted() }

// API returns what node/etcdapi reports to.
func (m *Metrics) API() etcdapi.Listener {
	return etcdapi.Listener{Request: m.api.request, StreamOpened: m.api.opened, StreamClosed: m.api.closed}
}

// Consensus returns what the engine reports to.
func (m *Metrics) Consensus() consensus.Listener {
	return consensus.Listener{StatusChanged: m.groups.changed, Synced: m.groups.synced, Batch: m.groups.batch, Gated: m.groups.gated}
}

// GroupStopped forgets a group that left this node.
func (m *Metrics) GroupStopped(id segmentID) { m.groups.stopped(id) }

// Log returns what the write-ahead log reports to. trouble, which may be nil,
// hears what the metric counts.
func (m *Metrics) Log(trouble func(error)) wal.Listener {
	return wal.Listener{Wrote: m.log.wrote, Synced: m.log.synced, Trouble: func(err error) {
		m.log.trouble.Inc()
		if trouble != nil {
			trouble(err)
		}
	}}
}

// Governing returns what counts changes of scopes.
func (m *Metrics) Governing() Governing { return m.scopes.listener() }

// Structure returns what counts the changes of structure that this node made.
func (m *Metrics) Structure() Structure {
	count := func(v *prometheus.CounterVec) func(string) {
		return func(word string) { v.WithLabelValues(word).Inc() }
	}
	s := m.structure
	return Structure{Split: count(s.splits), Merged: count(s.merges), Moved: count(s.moves), Transferred: count(s.transfers), Invited: count(s.invitations)}
}

// HandedOver is called after every hand-over between lines that this node drove.
func (m *Metrics) HandedOver(own, turnedBack bool, took time.Duration) {
	m.structure.handedOver(own, turnedBack, took)
}

// Committed is called after every commit of a store.
func (m *Metrics) Committed(took time.Duration) { m.commitSeconds.Observe(took.Seconds()) }
