package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

var rewrite = flag.Bool("rewrite", false, "write the table of docs/operations.md anew")

func TestDocumentationListsEveryFlag(t *testing.T) {
	const path, begin, end = "../../docs/operations.md", "<!-- flags: begin -->\n", "<!-- flags: end -->"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok1 := strings.Cut(string(text), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no table between %q and %q", path, begin, end)
	}
	if table == flagTable() {
		return
	}
	if !*rewrite {
		t.Fatalf("%s is not what the code declares; run `make golden`", path)
	}
	if err := os.WriteFile(path, []byte(head+begin+flagTable()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

// flagTable lists the flags of serve in the order of their declaration.
func flagTable() string {
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	fs.SortFlags = false
	c := Default()
	c.Bind(fs)
	var b strings.Builder
	b.WriteString("| flag | default | meaning |\n|---|---|---|\n")
	fs.VisitAll(func(f *pflag.Flag) {
		value := f.DefValue
		if value == "" || value == "[]" {
			value = " "
		} else {
			value = " `" + value + "` "
		}
		fmt.Fprintf(&b, "| `--%s` |%s| %s |\n", f.Name, value, strings.ReplaceAll(f.Usage, "<", "&lt;"))
	})
	return b.String()
}
