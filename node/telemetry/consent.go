package telemetry

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Consent counts how anchors agree to writes, and how they are judged.
type Consent struct {
	Decided func(requests, refused int, took time.Duration)
	Thrown  func(requests int)
	Voted   func(refused int, abstained bool)
	Invalid func()
	Weighed func(raised bool)
	Differs func()
}

// consentMetrics follows approvals and the trust ledgers.
type consentMetrics struct {
	requests, votes, weights *prometheus.CounterVec
	round                    prometheus.Histogram
	invalid, differs         prometheus.Counter
}

func newConsentMetrics(c *catalog) *consentMetrics {
	m := &consentMetrics{
		requests: c.counters("approvals_requests_total", "Writes of strong scopes led here, by what the anchors said: approved, refused, or thrown away and tried again.", "outcome"),
		votes:    c.counters("approvals_votes_total", "Batches that this node was asked about as an anchor: approved, refused in part, or abstained.", "outcome"),
		round:    c.histogram("approvals_round_duration_seconds", "Time from the showing of a batch to the decisive vote.", syncBuckets),
		invalid:  c.counter("approvals_invalid_total", "Votes and reports of other anchors that were not signed by them or could not be read, and forged batches."),
		weights:  c.counters("trust_changes_total", "Weights of anchors that entries of segments led here changed.", "direction"),
		differs:  c.counter("trust_differences_total", "Pieces of keys that were not the same on another anchor."),
	}
	for _, word := range []string{"approved", "refused", "thrown"} {
		m.requests.WithLabelValues(word)
	}
	for _, word := range []string{"approved", "refused", "abstained"} {
		m.votes.WithLabelValues(word)
	}
	for _, word := range []string{"up", "down"} {
		m.weights.WithLabelValues(word)
	}
	return m
}

// Consent returns what counts approvals and weights.
func (m *Metrics) Consent() Consent {
	c := m.consent
	return Consent{
		Decided: func(requests, refused int, took time.Duration) {
			c.requests.WithLabelValues("approved").Add(float64(requests - refused))
			c.requests.WithLabelValues("refused").Add(float64(refused))
			c.round.Observe(took.Seconds())
		},
		Thrown: func(requests int) { c.requests.WithLabelValues("thrown").Add(float64(requests)) },
		Voted: func(refused int, abstained bool) {
			word := "approved"
			if abstained {
				word = "abstained"
			} else if refused > 0 {
				word = "refused"
			}
			c.votes.WithLabelValues(word).Inc()
		},
		Invalid: c.invalid.Inc,
		Weighed: func(raised bool) {
			word := "down"
			if raised {
				word = "up"
			}
			c.weights.WithLabelValues(word).Inc()
		},
		Differs: c.differs.Inc,
	}
}
