package telemetry

import (
	"cmp"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// namespace begins every name of ours.
const namespace = "anchormesh_"

// Metric is what the documentation says of a metric.
type Metric struct {
	Name   string
	Kind   string // counter, gauge, histogram
	Labels []string
	Help   string
}

// Buckets, in seconds. Syncs are etcd's: 1 ms to 8 s. Requests begin lower: a
// read from memory takes less than a millisecond.
var (
	syncBuckets    = prometheus.ExponentialBuckets(0.001, 2, 14)
	requestBuckets = prometheus.ExponentialBuckets(0.00025, 2, 16)
	countBuckets   = prometheus.ExponentialBuckets(1, 2, 12)
)

// catalog registers metrics and remembers what was registered.
type catalog struct {
	reg     *prometheus.Registry
	metrics []Metric
}

func (c *catalog) add(c2 prometheus.Collector, name, kind, help string, labels ...string) {
	c.reg.MustRegister(c2)
	c.metrics = append(c.metrics, Metric{Name: namespace + name, Kind: kind, Labels: labels, Help: help})
}

func (c *catalog) sorted() []Metric {
	return slices.SortedFunc(slices.Values(c.metrics), func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
}

func (c *catalog) counter(name, help string) prometheus.Counter {
	m := prometheus.NewCounter(prometheus.CounterOpts{Name: namespace + name, Help: help})
	c.add(m, name, "counter", help)
	return m
}

func (c *catalog) counters(name, help string, labels ...string) *prometheus.CounterVec {
	m := prometheus.NewCounterVec(prometheus.CounterOpts{Name: namespace + name, Help: help}, labels)
	c.add(m, name, "counter", help, labels...)
	return m
}

func (c *catalog) gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	m := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: namespace + name, Help: help}, labels)
	c.add(m, name, "gauge", help, labels...)
	return m
}

func (c *catalog) histogram(name, help string, buckets []float64) prometheus.Histogram {
	m := prometheus.NewHistogram(prometheus.HistogramOpts{Name: namespace + name, Help: help, Buckets: buckets})
	c.add(m, name, "histogram", help)
	return m
}

func (c *catalog) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	m := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: namespace + name, Help: help, Buckets: buckets}, labels)
	c.add(m, name, "histogram", help, labels...)
	return m
}

// counterFunc and gaugeFunc read f at every scrape.
func (c *catalog) counterFunc(name, help string, f func() float64) {
	c.add(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: namespace + name, Help: help}, f), name, "counter", help)
}

func (c *catalog) gaugeFunc(name, help string, f func() float64) {
	c.add(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: namespace + name, Help: help}, f), name, "gauge", help)
}

// info is a constant 1 whose labels tell something.
func (c *catalog) info(name, help string, labels prometheus.Labels) {
	m := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: namespace + name, Help: help, ConstLabels: labels}, func() float64 { return 1 })
	c.add(m, name, "gauge", help, slices.Sorted(maps.Keys(labels))...)
}
