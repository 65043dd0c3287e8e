package keyindex

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// Scripts: put/delete (key rev), get (key rev), range (start end rev limit step),
// since (start end from to), compact (rev step), dump.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		x := New()
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return command(t, x, d)
		})
	})
}

func command(t *testing.T, x *Index, d *datadriven.TestData) string {
	arg := func(name string) (n int64) {
		if d.HasArg(name) {
			d.ScanArgs(t, name, &n)
		}
		return n
	}
	str := func(name string) (s string) {
		if d.HasArg(name) {
			d.ScanArgs(t, name, &s)
		}
		return s
	}
	var b strings.Builder
	mod := Revision{arg("rev"), arg("sub")}
	switch d.Cmd {
	case "put":
		fmt.Fprintln(&b, show(x.Put([]byte(str("key")), mod)))
	case "delete":
		fmt.Fprintln(&b, x.Delete([]byte(str("key")), mod))
	case "restore":
		x.Restore([]byte(str("key")), Version{Mod: mod, Create: arg("create"), Number: arg("number")})
	case "get":
		if v, ok := x.Get([]byte(str("key")), mod.Main); ok {
			fmt.Fprintln(&b, show(v))
		} else {
			fmt.Fprintln(&b, "none")
		}
	case "range":
		q := Query{Start: []byte(str("start")), End: []byte(str("end")), Rev: mod.Main, Limit: int(arg("limit")), Step: int(arg("step"))}
		found, count, next, more := x.Range(nil, q)
		for _, f := range found {
			fmt.Fprintln(&b, f.Key, show(f.Version))
		}
		fmt.Fprintf(&b, "count %d", count)
		if more {
			fmt.Fprintf(&b, ", goes on at %s", next)
		}
		fmt.Fprintln(&b)
	case "since":
		changes, ok := x.Since(nil, []byte(str("start")), []byte(str("end")), arg("from"), arg("to"), int(arg("limit")))
		for _, c := range changes {
			fmt.Fprintln(&b, c.Key, show(c.Version))
		}
		fmt.Fprintln(&b, "complete", ok)
	case "compact":
		dropped, next, more := x.Compact(nil, mod.Main, []byte(str("start")), int(arg("step")))
		for _, r := range dropped {
			fmt.Fprintln(&b, "drop", show(Version{Mod: r.Mod, Number: map[bool]int64{false: 1}[r.Tombstone]}))
		}
		if more {
			fmt.Fprintln(&b, "goes on at", next)
		}
	case "dump":
		x.root.ascend(nil, func(n *node, i int) bool {
			fmt.Fprintf(&b, "%s:", n.keys[i])
			if n.olds[i] != nil {
				for _, v := range n.olds[i].versions {
					fmt.Fprintf(&b, " %s", show(v))
				}
			}
			fmt.Fprintf(&b, " %s\n", show(n.heads[i]))
			return true
		})
	default:
		t.Fatalf("unknown command %s", d.Cmd)
	}
	return b.String()
}

func show(v Version) string {
	if v.Tombstone() {
		return fmt.Sprintf("%d.%d(t)", v.Mod.Main, v.Mod.Sub)
	}
	return fmt.Sprintf("%d.%d(create %d, version %d)", v.Mod.Main, v.Mod.Sub, v.Create, v.Number)
}
