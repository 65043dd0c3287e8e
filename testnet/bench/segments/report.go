package segments

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/anchormesh/anchormesh/testnet/bench"
)

// Report is what one benchmark found.
type Report struct {
	Name     string        `json:"name"`
	Command  []string      `json:"command"`
	Started  time.Time     `json:"started"`
	Machine  bench.Machine `json:"machine"`
	Method   string        `json:"method"`
	Table    [][]string    `json:"table"` // header first
	Notes    []string      `json:"notes,omitempty"`
	Verdicts []Verdict     `json:"verdicts"`
	Samples  any           `json:"samples"` // every single run
}

// Verdict is one aim and what was found.
type Verdict struct {
	Aim   string `json:"aim"`
	Found string `json:"found"`
	Met   bool   `json:"met"`
	// Void says why the finding decides nothing.
	Void string `json:"void,omitempty"`
}

func (v Verdict) String() string {
	switch {
	case v.Void != "":
		return fmt.Sprintf("UNDECIDED: aim: %s; found: %s; it decides nothing: %s", v.Aim, v.Found, v.Void)
	case v.Met:
		return fmt.Sprintf("MET: aim: %s; found: %s", v.Aim, v.Found)
	default:
		return fmt.Sprintf("NOT MET: aim: %s; found: %s", v.Aim, v.Found)
	}
}

func newReport(name string, cfg Config) (*Report, error) {
	machine, err := bench.DescribeMachine(cfg.Dir)
	return &Report{Name: name, Command: os.Args, Started: time.Now(), Machine: machine}, err
}

func (r *Report) facts() []string {
	return []string{
		"command: " + strings.Join(r.Command, " "),
		"started: " + r.Started.Format(time.RFC3339),
		"machine: " + r.Machine.String(),
		"method: " + r.Method,
	}
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	fmt.Fprintf(w, "%s\n\n", strings.Join(r.facts(), "\n"))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range r.Table {
		fmt.Fprintln(table, strings.Join(row, "\t")+"\t")
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(w)
	return r.writeLines(w, "")
}

// WriteMarkdown writes the report for a document.
func (r *Report) WriteMarkdown(w io.Writer) error {
	fmt.Fprintf(w, "- %s\n\n", strings.Join(r.facts(), "\n- "))
	for i, row := range r.Table {
		fmt.Fprintln(w, "| "+strings.Join(row, " | ")+" |")
		if i == 0 {
			fmt.Fprintln(w, "|---|"+strings.Repeat("--:|", len(row)-1))
		}
	}
	fmt.Fprintln(w)
	return r.writeLines(w, "- ")
}

func (r *Report) writeLines(w io.Writer, bullet string) error {
	for _, note := range r.Notes {
		fmt.Fprintln(w, bullet+note)
	}
	for _, v := range r.Verdicts {
		if _, err := fmt.Fprintln(w, bullet+v.String()); err != nil {
			return err
		}
	}
	return nil
}

// Times summarises durations.
type Times struct {
	Count int           `json:"count"`
	P50   time.Duration `json:"p50_ns"`
	P99   time.Duration `json:"p99_ns"`
	Max   time.Duration `json:"max_ns"`
}

func summarize(values []time.Duration) Times {
	sorted := slices.Sorted(slices.Values(values))
	return Times{Count: len(sorted), P50: quantile(sorted, 0.5), P99: quantile(sorted, 0.99), Max: quantile(sorted, 1)}
}

// quantile returns the smallest of the sorted values that a share q does not
// exceed; 0 if there is none. With few values a high one is the largest.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	rank := int(q * float64(len(sorted)))
	if float64(rank) < q*float64(len(sorted)) {
		rank++
	}
	return sorted[max(rank, 1)-1]
}

// median is the mean of the middle two, 0 of none.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// ratio is 0 if there is nothing to divide by.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// ms prints a duration in milliseconds.
func ms(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d)/float64(time.Millisecond)) }

// millis prints microseconds as milliseconds.
func millis(us float64) string { return fmt.Sprintf("%.2f", us/1000) }

// column collects one figure of many samples.
func column[T any](samples []T, of func(T) float64) []float64 {
	var out []float64
	for _, s := range samples {
		out = append(out, of(s))
	}
	return out
}
