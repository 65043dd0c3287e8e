package ask

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// Output is the form of an answer.
type Output struct {
	Form  string
	forms []string
}

// Forms of answers.
const (
	Table = "table"
	JSON  = "json"
	YAML  = "yaml"
)

// String, Type and Set make Output a flag.
func (o *Output) String() string { return o.Form }

// Type is the placeholder in help texts.
func (o *Output) Type() string { return strings.Join(o.forms, "|") }

// Set refuses any form but those of the command.
func (o *Output) Set(s string) error {
	if !slices.Contains(o.forms, s) {
		return fmt.Errorf("want %s", strings.Join(o.forms, " or "))
	}
	o.Form = s
	return nil
}

// Bind gives a command the flag. Its answers are tables and JSON, and in the forms
// named besides.
func (o *Output) Bind(cmd *cobra.Command, also ...string) {
	o.Form, o.forms = Table, append([]string{Table, JSON}, also...)
	cmd.Flags().VarP(o, "output", "o", "form of the answer: a table for people, the rest for programs")
	if err := cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(o.forms, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic("ask: " + err.Error())
	}
}

// ForPeople reports whether the answer is to be a table.
func (o *Output) ForPeople() bool { return o.Form == Table }

// Print writes an answer for programs.
func (o *Output) Print(w io.Writer, v any) error {
	if o.Form == YAML {
		return PrintYAML(w, v)
	}
	return PrintJSON(w, v)
}

// PrintJSON writes v as indented JSON.
func PrintJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// PrintYAML writes v as YAML, with the names and the order of its JSON.
func PrintYAML(w io.Writer, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil { // JSON is YAML
		return err
	}
	plainStyle(&doc)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	return enc.Encode(&doc)
}

// plainStyle takes JSON's braces and quotes away; what needs quotes gets them again.
func plainStyle(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		plainStyle(child)
	}
}

// PrintTable aligns rows under the words of head. An empty cell shows as "-".
func PrintTable(w io.Writer, head []string, rows [][]string) error {
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

// Bytes shows a size with a binary unit.
func Bytes(n int64) string {
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

// NonNil makes an absent list or key empty in JSON, not null.
func NonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
