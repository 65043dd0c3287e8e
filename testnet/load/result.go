package load

import (
	"fmt"
	"time"
)

// Result is what one run measured. Its JSON form is for programs.
type Result struct {
	Workload  string `json:"workload"`
	Clients   int    `json:"clients"`
	Conns     int    `json:"conns"`
	Keys      int    `json:"keys"`
	ValueSize int    `json:"value_bytes"`

	Seconds    float64           `json:"seconds"`    // length of the window
	Ops        uint64            `json:"operations"` // completed without error in the window
	Throughput float64           `json:"operations_per_second"`
	Latency    Latency           `json:"latency_us"`
	Errors     map[string]uint64 `json:"errors,omitempty"` // by gRPC code
	FirstError string            `json:"first_error,omitempty"`

	LoadCPUSeconds     float64 `json:"load_cpu_seconds"` // this process, user and system, in the window
	LoadCPUMicrosPerOp float64 `json:"load_cpu_us_per_operation"`
}

// Latency is a summary in microseconds.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// Failed returns the number of operations that ended with an error.
func (r Result) Failed() uint64 {
	var n uint64
	for _, count := range r.Errors {
		n += count
	}
	return n
}

func (r Result) String() string {
	return fmt.Sprintf("%s: %d clients, %d connections, %.1f s: %.0f op/s, p50 %.0f us, p99 %.0f us, p99.9 %.0f us, max %.0f us, %d errors %v, load CPU %.1f us/op",
		r.Workload, r.Clients, r.Conns, r.Seconds, r.Throughput, r.Latency.P50, r.Latency.P99, r.Latency.P999, r.Latency.Max,
		r.Failed(), r.Errors, r.LoadCPUMicrosPerOp)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func summarize(h *histogram) Latency {
	return Latency{
		Mean: micros(h.mean()),
		P50:  micros(h.quantile(0.5)),
		P90:  micros(h.quantile(0.9)),
		P99:  micros(h.quantile(0.99)),
		P999: micros(h.quantile(0.999)),
		Max:  micros(h.max),
	}
}
