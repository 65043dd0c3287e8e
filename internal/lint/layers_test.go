package lint

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// rule is one line of layers.txt.
type rule struct {
	line    int
	pattern string
	pure    bool
	allowed []string
	why     string
}

// permits reports whether the rule lists path, for tests or for all code.
func (r *rule) permits(path string, test bool) bool {
	return slices.ContainsFunc(r.allowed, func(a string) bool {
		onlyTests, ok := strings.CutPrefix(a, "test:")
		if ok {
			return test && match(onlyTests, path)
		}
		return match(a, path)
	})
}

type table struct{ layers, owners []*rule }

func (rules ruleList) first(path string) *rule {
	for _, r := range rules {
		if match(r.pattern, path) {
			return r
		}
	}
	return nil
}

type ruleList []*rule

func parseTable(text string) (table, error) {
	var t table
	for i, line := range strings.Split(text, "\n") {
		body, why, _ := strings.Cut(line, "#")
		if strings.TrimSpace(body) == "" {
			continue
		}
		left, right, ok := strings.Cut(body, ":")
		words := strings.Fields(left)
		if !ok || len(words) < 2 {
			return t, fmt.Errorf("layers.txt:%d: want \"layer PACKAGE : PACKAGE...\"", i+1)
		}
		r := &rule{line: i + 1, pattern: words[1], allowed: strings.Fields(right), why: strings.TrimSpace(why)}
		switch {
		case words[0] == "layer" && len(words) == 2:
			t.layers = append(t.layers, r)
		case words[0] == "layer" && len(words) == 3 && words[2] == "pure":
			r.pure = true
			t.layers = append(t.layers, r)
		case words[0] == "owner" && len(words) == 2 && r.why != "":
			t.owners = append(t.owners, r)
		default:
			return t, fmt.Errorf("layers.txt:%d: cannot read %q (an owner needs a reason after #)", i+1, line)
		}
	}
	return t, nil
}

func loadTable(t *testing.T) table {
	t.Helper()
	text, err := os.ReadFile("layers.txt")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := parseTable(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// edge is an import.
type edge struct {
	from, to string
	test     bool
}

// judge returns what is wrong with an edge, "" if nothing is.
func (t table) judge(e edge) string {
	if isLocal(e.to) {
		to := local(e.to)
		switch r := ruleList(t.layers).first(e.from); {
		case r == nil:
			return fmt.Sprintf("%s has no line in layers.txt", e.from)
		case e.from != to && !r.permits(to, e.test):
			return fmt.Sprintf("%s imports %s, which layers.txt:%d does not allow", e.from, to, r.line)
		}
		return ""
	}
	switch r := ruleList(t.owners).first(e.to); {
	case r == nil:
		return fmt.Sprintf("%s imports %s, which has no owner in layers.txt", e.from, e.to)
	case !r.permits(e.from, e.test):
		return fmt.Sprintf("%s imports %s, which belongs to %v (%s)", e.from, e.to, r.allowed, r.why)
	}
	return ""
}

// standard reports whether path is in the standard library.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func (p *pkg) edges() []edge {
	var out []edge
	add := func(paths []string, test bool) {
		for _, to := range paths {
			if !standard(to) {
				out = append(out, edge{p.name(), to, test})
			}
		}
	}
	add(p.Imports, false)
	add(p.TestImports, true)
	add(p.XTestImports, true)
	return out
}

func TestLayers(t *testing.T) {
	rules := loadTable(t)
	for _, p := range load(t).pkgs {
		if ruleList(rules.layers).first(p.name()) == nil {
			t.Errorf("%s has no line in layers.txt", p.name())
		}
		for _, e := range p.edges() {
			if wrong := rules.judge(e); wrong != "" {
				t.Error(wrong)
			}
		}
	}
}

func TestOwnedModulesExist(t *testing.T) {
	gomod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	required := strings.Fields(string(gomod))
	for _, r := range loadTable(t).owners {
		path := strings.TrimSuffix(r.pattern, "/...")
		known := slices.ContainsFunc(required, func(m string) bool {
			return strings.Contains(m, "/") && (match(m+"/...", path) || strings.HasPrefix(m, path+"/"))
		})
		if !known {
			t.Errorf("layers.txt:%d: go.mod requires nothing like %s; a misspelt ban bans nothing", r.line, r.pattern)
		}
	}
}

// TestLayersRefuse keeps the judge itself from going blind.
func TestLayersRefuse(t *testing.T) {
	rules := loadTable(t)
	in := func(path string) string { return module + "/" + path }
	refused := []edge{
		{"mesh", in("consensus"), false}, {"consensus", in("mesh"), false}, {"keyspace", in("consensus"), false},
		{"anchors", in("mesh/view"), false}, {"entropy", in("keyspace"), false}, {"mesh/gossip", in("node"), true},
		{".", in("internal/frame"), false}, {"testnet/load", in("node"), false}, {"testnet/cluster", in("mesh/view"), true},
		{"node/web", "github.com/prometheus/client_golang/prometheus", false}, {"mesh/wire", "github.com/hashicorp/memberlist", false},
		{"consensus", "go.etcd.io/bbolt", false}, {"node", "go.etcd.io/raft/v3", false}, {"node", "github.com/spf13/cobra", false},
		{"keyspace", "go.etcd.io/etcd/server/v3/storage/mvcc", false}, {"node", "github.com/cockroachdb/datadriven", false},
		{"unheardof", module, false},
	}
	for _, e := range refused {
		if rules.judge(e) == "" {
			t.Errorf("%+v passes", e)
		}
	}
	for _, e := range []edge{{"node", in("mesh"), false}, {"mesh", module, false}, {"consensus/replica", "go.etcd.io/raft/v3", false}} {
		if wrong := rules.judge(e); wrong != "" {
			t.Error(wrong)
		}
	}
	if _, err := parseTable("owner example.com/x : a"); err == nil {
		t.Error("an owner without a reason passes")
	}
}
