package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strconv"
	"testing"
)

// impureImports are what a pure package must not import, and why.
var impureImports = map[string]string{
	"sync": "one goroutine owns a core", "sync/atomic": "one goroutine owns a core",
	"os": "a core does no I/O", "io/fs": "a core does no I/O", "net": "a core does no I/O", "net/http": "a core does no I/O", "os/exec": "a core does no I/O",
	"log": "a core reports by returning", "log/slog": "a core reports by returning",
	"math/rand": "randomness is an argument", "math/rand/v2": "randomness is an argument", "crypto/rand": "randomness is an argument",
	"context": "a core does not wait", "runtime": "a core knows no machine", "unsafe": "a core needs no tricks",
}

// impureTime are the functions of package time that read or wait for a clock.
var impureTime = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true, "After": true, "AfterFunc": true,
	"Tick": true, "NewTimer": true, "NewTicker": true,
}

// impurities lists what makes a file impure.
func impurities(fset *token.FileSet, f *ast.File) []string {
	var out []string
	add := func(n ast.Node, format string, args ...any) {
		out = append(out, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), fmt.Sprintf(format, args...)))
	}
	for _, imp := range f.Imports {
		if path, _ := strconv.Unquote(imp.Path.Value); impureImports[path] != "" {
			add(imp, "imports %s: %s", path, impureImports[path])
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			add(n, "starts a goroutine")
		case *ast.ChanType:
			add(n, "has a channel")
		case *ast.SendStmt:
			add(n, "sends on a channel")
		case *ast.SelectStmt:
			add(n, "selects over channels")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				add(n, "receives from a channel")
			}
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && impureTime[n.Sel.Name] {
				add(n, "calls time.%s: now is an argument", n.Sel.Name)
			}
		}
		return true
	})
	return out
}

func TestPurePackagesArePure(t *testing.T) {
	rules, tree := loadTable(t), load(t)
	for _, s := range tree.sources {
		r := ruleList(rules.layers).first(s.pkg.name())
		// A core.go is the core of a package whose other files are its shell.
		core := path.Base(s.path) == "core.go"
		if s.test || !core && (r == nil || !r.pure) {
			continue
		}
		for _, wrong := range impurities(tree.fset, s.file) {
			t.Error(wrong)
		}
	}
}

func TestImpuritiesAreFound(t *testing.T) {
	const text = `package p
import ("time"; "sync")
var c chan int
func f() { go f(); c <- 1; <-c; select {}; _ = time.Now(); var d time.Duration; _ = d; var m sync.Mutex; _ = m }`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := impurities(fset, f); len(got) != 7 {
		t.Fatalf("found %d impurities of 7: %q", len(got), got)
	}
}
