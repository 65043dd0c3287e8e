package lint

import (
	"bufio"
	"fmt"
	"go/ast"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"
)

// Limits of size, tests and generated code aside.
var sizeMax = map[string]int{
	"function": 70, // lines
	"file":     600,
	"struct":   20, // fields
	"package":  15, // files
}

// sizes measures everything: sizes["function"]["mesh/wire/host.go:Host.Close"].
func (t *tree) sizes() map[string]map[string]int {
	out := map[string]map[string]int{"function": {}, "file": {}, "struct": {}, "package": {}}
	for _, s := range t.sources {
		if s.test || s.generated {
			continue
		}
		out["file"][s.path] = strings.Count(string(s.text), "\n")
		if !s.ignored {
			out["package"][s.pkg.name()]++
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				out["function"][s.path+":"+funcName(n)] = t.lines(n)
			case *ast.TypeSpec:
				if st, ok := n.Type.(*ast.StructType); ok {
					out["struct"][s.path+":"+n.Name.Name] = fields(st)
				}
			}
			return true
		})
	}
	return out
}

func funcName(f *ast.FuncDecl) string {
	if f.Recv == nil || len(f.Recv.List) == 0 {
		return f.Name.Name
	}
	recv := f.Recv.List[0].Type
	if star, ok := recv.(*ast.StarExpr); ok {
		recv = star.X
	}
	if index, ok := recv.(*ast.IndexExpr); ok {
		recv = index.X
	}
	return fmt.Sprintf("%s.%s", recv, f.Name.Name)
}

func fields(s *ast.StructType) int {
	n := 0
	for _, f := range s.Fields.List {
		n += max(1, len(f.Names))
	}
	return n
}

// readAllowed reads allow.txt: allowed["function mesh/x.go:F"] = lines. Every
// line says why.
func readAllowed(t *testing.T) map[string]int {
	t.Helper()
	f, err := os.Open("allow.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := make(map[string]int)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		entry, why, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(entry)
		if len(words) == 0 {
			continue
		}
		size, err := strconv.Atoi(words[len(words)-1])
		if err != nil || len(words) != 3 || sizeMax[words[0]] == 0 || strings.TrimSpace(why) == "" {
			t.Fatalf("allow.txt: cannot read %q", lines.Text())
		}
		out[words[0]+" "+words[1]] = size
	}
	return out
}

func TestSizes(t *testing.T) {
	allowed := readAllowed(t)
	for kind, all := range load(t).sizes() {
		for name, size := range all {
			was, listed := allowed[kind+" "+name]
			delete(allowed, kind+" "+name)
			switch limit := max(sizeMax[kind], was); {
			case size > limit:
				t.Errorf("%s %s has size %d, at most %d", kind, name, size, limit)
			case listed && size <= sizeMax[kind]:
				t.Errorf("%s %s is small now; remove it from allow.txt", kind, name)
			case listed && size < was:
				t.Errorf("%s %s has shrunk; lower it to %d in allow.txt", kind, name, size)
			}
		}
	}
	for name := range allowed {
		t.Errorf("allow.txt: there is no %s", name)
	}
}

// TestSizesSeesThings keeps the ratchet from measuring nothing.
func TestSizesSeesThings(t *testing.T) {
	all := load(t).sizes()
	if all["struct"]["descriptor.go:Descriptor"] < 5 || all["function"]["ids.go:NodeID.MemberID"] < 5 ||
		all["file"][path.Join("node", "config", "config.go")] < 50 || all["package"]["."] < 3 {
		t.Fatalf("sizes of well-known things are missing: %v", all["package"])
	}
}
