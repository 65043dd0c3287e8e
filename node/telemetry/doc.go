// Package telemetry turns what the organs report into Prometheus metrics. It is
// the only package that knows Prometheus.
//
// Organs report in two ways. What is an event (a request, a sync, a commit) comes
// through the Listener structs that API, Log, Consensus and Committed return; what
// is a level or already counted is read from Sources when somebody scrapes, so it
// costs nothing in between.
//
// Guarantees: each Metrics has its own registry, so two nodes in one process do
// not share one. All methods are safe for concurrent use and do not block; an
// event costs a few atomic operations. The catalog (Metrics.Catalog) lists every
// metric of ours and docs/metrics.md is written from it.
//
// What it does not do: it has no metric per segment or per key. A mesh has
// thousands of segments, and `anchormesh segments` shows each.
package telemetry
