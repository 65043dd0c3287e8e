package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// metric is one column.
type metric struct {
	name   string
	format string
	of     func(Sample) float64
	ratio  bool // whether subject/peer means something
}

var metrics = []metric{
	{"op/s", "%.0f", func(s Sample) float64 { return s.Load.Throughput }, true},
	{"p50 us", "%.0f", func(s Sample) float64 { return s.Load.Latency.P50 }, true},
	{"p99 us", "%.0f", func(s Sample) float64 { return s.Load.Latency.P99 }, true},
	{"p99.9 us", "%.0f", func(s Sample) float64 { return s.Load.Latency.P999 }, true},
	{"server CPU us/op", "%.1f", func(s Sample) float64 { return s.ServerCPUMicrosPerOp }, true},
	{"load CPU us/op", "%.1f", func(s Sample) float64 { return s.Load.LoadCPUMicrosPerOp }, true},
	{"RSS MiB", "%.0f", func(s Sample) float64 { return float64(s.RSSBytes) / (1 << 20) }, true},
	{"other CPU %", "%.0f", func(s Sample) float64 { return 100 * s.OtherCPUShare }, false},
}

// Failed returns the samples that are errors or saw failed operations.
func (r Report) Failed() []Sample {
	return slices.DeleteFunc(slices.Clone(r.Samples), func(s Sample) bool { return s.Error == "" && s.Load.Failed() == 0 })
}

// median returns the median of a metric over the runs of one case and side that
// did not fail; false if there are none. The median of an even number is the
// mean of the middle two.
func (r Report) median(side string, k Case, of func(Sample) float64) (float64, bool) {
	values := r.values(side, k, of)
	n := len(values)
	if n == 0 {
		return 0, false
	}
	return (values[(n-1)/2] + values[n/2]) / 2, true
}

func (r Report) values(side string, k Case, of func(Sample) float64) []float64 {
	var values []float64
	for _, s := range r.Samples {
		if s.Side == side && s.Case == k && s.Error == "" {
			values = append(values, of(s))
		}
	}
	slices.Sort(values)
	return values
}

// rows returns the table, header first: per case a line per side and, for two
// sides, one of ratios subject/peer.
func (r Report) rows() [][]string {
	header := []string{"case", "side"}
	for _, m := range metrics {
		header = append(header, m.name)
	}
	out := [][]string{append(header, "op/s spread", "runs", "errors")}
	for _, k := range r.Cases {
		for i, name := range r.Sides {
			label := ""
			if i == 0 {
				label = k.String()
			}
			out = append(out, append([]string{label, name}, r.cells(name, k)...))
		}
		if len(r.Sides) == 2 {
			out = append(out, append([]string{"", "ratio"}, r.ratios(k)...))
		}
	}
	return out
}

func (r Report) cells(name string, k Case) []string {
	var cells []string
	for _, m := range metrics {
		if v, ok := r.median(name, k, m.of); ok {
			cells = append(cells, fmt.Sprintf(m.format, v))
		} else {
			cells = append(cells, "failed")
		}
	}
	runs := r.values(name, k, metrics[0].of)
	spread := "-"
	if mid, ok := r.median(name, k, metrics[0].of); ok && mid > 0 {
		spread = fmt.Sprintf("%.0f %%", 100*(runs[len(runs)-1]-runs[0])/mid)
	}
	return append(cells, spread, fmt.Sprint(len(runs)), fmt.Sprint(r.errors(name, k)))
}

// errors counts failed operations, and each failed run as one.
func (r Report) errors(name string, k Case) uint64 {
	var n uint64
	for _, s := range r.Samples {
		if s.Side != name || s.Case != k {
			continue
		}
		n += s.Load.Failed()
		if s.Error != "" {
			n++
		}
	}
	return n
}

func (r Report) ratios(k Case) []string {
	var cells []string
	for _, m := range metrics {
		subject, okA := r.median(r.Sides[0], k, m.of)
		peer, okB := r.median(r.Sides[1], k, m.of)
		if !m.ratio || !okA || !okB || peer == 0 {
			cells = append(cells, "-")
			continue
		}
		cells = append(cells, fmt.Sprintf("%.2f", subject/peer))
	}
	return append(cells, "", "", "")
}

// facts are the lines above the table.
func (r Report) facts() []string {
	l := r.Config
	return []string{
		"command: " + strings.Join(r.Command, " "),
		"started: " + r.Started.Format(time.RFC3339),
		"machine: " + r.Machine.String(),
		fmt.Sprintf("method: medians of %d alternating rounds, %d nodes per side on this one machine, fresh data per round and side; warm-up %s, window %s; %d keys, values of %d bytes, ranges of %d keys; closed-loop clients after the colon; ratio is %s",
			r.Rounds, r.Nodes, l.Warmup, l.Duration, l.Keys, l.ValueSize, l.RangeKeys, strings.Join(r.Sides, " / ")),
	}
}

// WriteText writes the report for a terminal.
func (r Report) WriteText(w io.Writer) error {
	for _, fact := range r.facts() {
		fmt.Fprintln(w, fact)
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range r.rows() {
		fmt.Fprintln(table, strings.Join(row, "\t")+"\t")
	}
	return table.Flush()
}

// WriteMarkdown writes the report for a document.
func (r Report) WriteMarkdown(w io.Writer) error {
	for _, fact := range r.facts() {
		fmt.Fprintln(w, "- "+fact)
	}
	fmt.Fprintln(w)
	rows := r.rows()
	for i, row := range rows {
		if _, err := fmt.Fprintln(w, "| "+strings.Join(row, " | ")+" |"); err != nil {
			return err
		}
		if i == 0 {
			fmt.Fprintln(w, "|---|---|"+strings.Repeat("--:|", len(row)-2))
		}
	}
	return nil
}
