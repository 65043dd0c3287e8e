package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// output is the form of an answer.
type output string

const (
	outputTable output = "table"
	outputJSON  output = "json"
)

// String, Type and Set make output a flag.
func (o *output) String() string { return string(*o) }

// Type is the placeholder in help texts.
func (o *output) Type() string { return "table|json" }

// Set refuses any other form.
func (o *output) Set(s string) error {
	if output(s) != outputTable && output(s) != outputJSON {
		return fmt.Errorf("want table or json")
	}
	*o = output(s)
	return nil
}

func bindOutput(cmd *cobra.Command, o *output) {
	cmd.Flags().VarP(o, "output", "o", "form of the answer: a table for people or JSON for programs")
}

func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// printTable aligns rows under the words of head. An empty cell shows as "-".
func printTable(w io.Writer, head []string, rows [][]string) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(head, "\t"))
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	return tw.Flush()
}

// bytesText shows a size with a binary unit.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
