package lint

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// unfuzzed are the functions that look like decoders of foreign bytes and have no fuzzer
// in their package, and why not.
var unfuzzed = map[string]string{
	"..UnmarshalText":              "a class is one of three words, compared whole",
	"anchors/policy.UnmarshalText": "a fraction stands in documents: anchors/policy/document FuzzRead comes to it through YAML",
	"node/charter.read":            "its bytes are a prefix; the text goes to anchors/policy/document, whose FuzzRead it is",
}

// decoderName is what functions are called that take encodings apart.
var decoderName = regexp.MustCompile(`^(?i:unmarshal|decode|parse|read)([A-Z0-9].*)?$`)

// decodes reports whether a function takes bytes apart and may refuse them: its name says
// so, it has a parameter of bytes or a reader, and it returns an error or whether it could.
func decodes(f *ast.FuncDecl) bool {
	name := f.Name.Name
	if !decoderName.MatchString(name) || f.Type.Results == nil || f.Recv != nil && (name == "Read" || name == "ReadAt") { // io's
		return false
	}
	last := f.Type.Results.List[len(f.Type.Results.List)-1]
	word, named := last.Type.(*ast.Ident)
	return named && (word.Name == "error" || word.Name == "bool") && slices.ContainsFunc(f.Type.Params.List, func(p *ast.Field) bool {
		switch p := p.Type.(type) {
		case *ast.ArrayType:
			elem, is := p.Elt.(*ast.Ident)
			return is && p.Len == nil && elem.Name == "byte"
		case *ast.SelectorExpr:
			return p.Sel.Name == "Reader"
		}
		return false
	})
}

// unreached lists the decoders among the files of one package that no fuzz target of
// theirs comes to. Calls are followed by name alone: who shares a name with a function
// that is called counts as called, so what is listed is surely not reached.
func unreached(files []*ast.File) (out []*ast.FuncDecl) {
	var all []*ast.FuncDecl
	var next []string
	words := make(map[string]map[string]bool) // of a function or variable: all words in it
	note := func(name string, body ast.Node) {
		if words[name] == nil {
			words[name] = make(map[string]bool)
		}
		ast.Inspect(body, func(n ast.Node) bool {
			if id, is := n.(*ast.Ident); is {
				words[name][id.Name] = true
			}
			return true
		})
	}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				all = append(all, n)
				note(n.Name.Name, n)
				if strings.HasPrefix(n.Name.Name, "Fuzz") && n.Recv == nil {
					next = append(next, n.Name.Name)
				}
				return false
			case *ast.ValueSpec:
				for _, name := range n.Names {
					note(name.Name, n)
				}
			}
			return true
		})
	}
	reached := make(map[string]bool)
	for len(next) > 0 {
		name := next[len(next)-1]
		next = next[:len(next)-1]
		if reached[name] {
			continue
		}
		reached[name] = true
		for word := range words[name] {
			if words[word] != nil {
				next = append(next, word)
			}
		}
	}
	for _, fn := range all {
		if decodes(fn) && !reached[fn.Name.Name] {
			out = append(out, fn)
		}
	}
	return out
}

// TestEveryDecoderHasAFuzzer finds functions that take bytes of disks or of other nodes
// apart and that no fuzz target of their package reaches. Tests' own tools are left out.
func TestEveryDecoderHasAFuzzer(t *testing.T) {
	tree := load(t)
	packages := make(map[string][]*ast.File)
	for _, s := range tree.sources {
		if name := s.pkg.name(); !s.generated && !strings.HasPrefix(name, "testnet") {
			packages[name] = append(packages[name], s.file)
		}
	}
	seen := make(map[string]bool)
	for name, files := range packages {
		for _, fn := range unreached(files) {
			at := tree.fset.Position(fn.Pos())
			if strings.HasSuffix(at.Filename, "_test.go") {
				continue
			}
			full := name + "." + fn.Name.Name
			seen[full] = true
			if unfuzzed[full] == "" {
				t.Errorf("%s: no fuzz target of package %s reaches %s", at, name, fn.Name.Name)
			}
		}
	}
	for full := range unfuzzed {
		if !seen[full] {
			t.Errorf("%s is reached, or is no decoder: it needs no exception", full)
		}
	}
}

func TestDecodersWithoutFuzzersAreFound(t *testing.T) {
	const text = `package p
func DecodeA(b []byte) error { return parseInner(b) }
func parseInner(b []byte) error { return nil }
func DecodeB(b []byte) (int, bool) { return 0, false }
func readName(name string) error { return nil }
func Parser(b []byte) error { return nil }
func FuzzA(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) { DecodeA(b) }) }
`
	f, err := parser.ParseFile(token.NewFileSet(), "p.go", text, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := unreached([]*ast.File{f}); len(got) != 1 || got[0].Name.Name != "DecodeB" {
		t.Errorf("found %v", got)
	}
}
