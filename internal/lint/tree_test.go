package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/anchormesh/anchormesh"

// pkg is a package of this module as `go list` sees it.
type pkg struct {
	ImportPath   string
	Dir          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	// IgnoredGoFiles are of other systems or build tags; rules of form hold for
	// them, too.
	IgnoredGoFiles []string
}

// name is the package's path inside the module; "." is the root.
func (p *pkg) name() string { return local(p.ImportPath) }

// local is the path inside the module of one of its packages.
func local(path string) string {
	if path == module {
		return "."
	}
	return strings.TrimPrefix(path, module+"/")
}

func isLocal(path string) bool {
	return path == module || strings.HasPrefix(path, module+"/")
}

// source is one parsed file.
type source struct {
	path      string // below the root
	pkg       *pkg
	text      []byte
	file      *ast.File
	test      bool
	ignored   bool // by build constraints here
	generated bool
}

// tree is the module, parsed once for all tests.
type tree struct {
	root    string
	fset    *token.FileSet
	pkgs    []*pkg
	sources []*source
}

var loadTree = sync.OnceValues(func() (*tree, error) {
	root, err := filepath.Abs("../..")
	if err != nil {
		return nil, err
	}
	t := &tree{root: root, fset: token.NewFileSet()}
	cmd := exec.Command("go", "list", "-e", "-json", "./...")
	cmd.Dir, cmd.Stderr = root, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(pkg)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			return t, nil
		} else if err != nil {
			return nil, err
		}
		t.pkgs = append(t.pkgs, p)
		if err := t.parse(p); err != nil {
			return nil, err
		}
	}
})

func (t *tree) parse(p *pkg) error {
	for _, group := range []struct {
		names         []string
		test, ignored bool
	}{{names: p.GoFiles}, {names: p.TestGoFiles, test: true}, {names: p.XTestGoFiles, test: true}, {names: p.IgnoredGoFiles, ignored: true}} {
		for _, name := range group.names {
			path := filepath.Join(p.Dir, name)
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(t.root, path)
			if err != nil {
				return err
			}
			file, err := parser.ParseFile(t.fset, rel, text, parser.ParseComments)
			if err != nil {
				return err
			}
			t.sources = append(t.sources, &source{
				path: filepath.ToSlash(rel), pkg: p, text: text, file: file, ignored: group.ignored,
				test: group.test || strings.HasSuffix(name, "_test.go"), generated: ast.IsGenerated(file),
			})
		}
	}
	return nil
}

func load(t *testing.T) *tree {
	t.Helper()
	tree, err := loadTree()
	if err != nil {
		t.Fatal(err)
	}
	if len(tree.pkgs) < 5 {
		t.Fatalf("found %d packages only; the rules would check nothing", len(tree.pkgs))
	}
	return tree
}

// lines is the number of source lines that n covers.
func (t *tree) lines(n ast.Node) int {
	return t.fset.Position(n.End()).Line - t.fset.Position(n.Pos()).Line + 1
}

// match reports whether path is what pattern names: a path, or "x/..." for x and
// all below it, or "..." for everything.
func match(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == base || strings.HasPrefix(path, base+"/")
	}
	return path == pattern
}
