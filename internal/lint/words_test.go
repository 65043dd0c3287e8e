package lint

import (
	"bytes"
	"go/ast"
	"go/format"
	"strings"
	"testing"
)

func TestEveryPackageHasOnePackageComment(t *testing.T) {
	tree := load(t)
	docs := make(map[*pkg][]string)
	for _, s := range tree.sources {
		if s.file.Doc != nil && !s.test && !s.generated && !s.ignored {
			docs[s.pkg] = append(docs[s.pkg], s.path)
			if want := docStart(s); !strings.HasPrefix(s.file.Doc.Text(), want) {
				t.Errorf("%s: the package comment does not begin with %q", s.path, want)
			}
		}
	}
	for _, p := range tree.pkgs {
		if len(p.GoFiles) > 0 && len(docs[p]) != 1 {
			t.Errorf("%s has %d package comments %v, want one", p.name(), len(docs[p]), docs[p])
		}
	}
}

func docStart(s *source) string {
	if s.file.Name.Name == "main" {
		return "Command "
	}
	return "Package " + s.file.Name.Name + " "
}

func TestCodeIsAsGofmtWritesIt(t *testing.T) {
	for _, s := range load(t).sources {
		want, err := format.Source(s.text)
		if err != nil || !bytes.Equal(want, s.text) {
			t.Errorf("%s: run gofmt (%v)", s.path, err)
		}
	}
}

// calls reports the positions of uses of pkg.name in n.
func (t *tree) calls(in ast.Node, pkg string, banned func(name string) bool) []string {
	var out []string
	ast.Inspect(in, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && x.Name == pkg && x.Obj == nil && banned(sel.Sel.Name) {
			out = append(out, t.fset.Position(sel.Pos()).String())
		}
		return true
	})
	return out
}

func TestNobodyPrints(t *testing.T) {
	tree := load(t)
	for _, s := range tree.sources {
		if strings.HasPrefix(s.path, "cmd/") || strings.Contains(s.path, "/cmd/") {
			continue // even there commands write to the writer they were given
		}
		prints := tree.calls(s.file, "fmt", func(name string) bool { return strings.HasPrefix(name, "Print") })
		for _, at := range append(prints, tree.calls(s.file, "log", logsItself)...) {
			t.Errorf("%s: prints; return it, or log to the slog.Logger that was passed in", at)
		}
	}
}

// logsItself reports whether a function of package log writes to its global
// logger. Others' code may want a *log.Logger of its own.
func logsItself(name string) bool {
	return strings.HasPrefix(name, "Print") || strings.HasPrefix(name, "Fatal") || strings.HasPrefix(name, "Panic") ||
		strings.HasPrefix(name, "Set") || name == "Default" || name == "Output" || name == "Writer"
}

func TestTestsDoNotSleepInRealTime(t *testing.T) {
	tree := load(t)
	for _, s := range tree.sources {
		if !s.test || imports(s.file, "testing/synctest") {
			continue // in a bubble time is free
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && takesBenchmark(f) {
				continue // a load that paces itself is no wait
			}
			for _, at := range tree.calls(d, "time", func(name string) bool { return name == "Sleep" }) {
				t.Errorf("%s: sleeps outside a synctest bubble; wait for what the sleep was meant to wait for", at)
			}
		}
	}
}

// takesBenchmark reports whether f has a *testing.B.
func takesBenchmark(f *ast.FuncDecl) bool {
	for _, p := range f.Type.Params.List {
		if star, ok := p.Type.(*ast.StarExpr); ok {
			if sel, ok := star.X.(*ast.SelectorExpr); ok && sel.Sel.Name == "B" {
				return true
			}
		}
	}
	return false
}

func imports(f *ast.File, path string) bool {
	for _, imp := range f.Imports {
		if imp.Path.Value == `"`+path+`"` {
			return true
		}
	}
	return false
}
