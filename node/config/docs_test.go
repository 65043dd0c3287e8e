package config

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/anchormesh/anchormesh/internal/testkit"
)

var rewrite = flag.Bool("rewrite", false, "write the table of docs/operations.md anew")

func TestDocumentationListsEveryFlag(t *testing.T) {
	testkit.Section(t, "../../docs/operations.md", "flags", flagTable(), *rewrite)
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
