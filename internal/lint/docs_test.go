package lint

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link is a markdown link's target.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestDocumentationLinksToWhatExists(t *testing.T) {
	root, found := load(t).root, 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root {
			return filepath.SkipDir
		}
		if filepath.Ext(path) != ".md" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target, _, _ := strings.Cut(m[1], "#")
			if target == "" || strings.Contains(target, "://") {
				continue
			}
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), target)); err != nil {
				t.Errorf("%s links to %s, which does not exist", path, target)
			}
		}
		return nil
	})
	if err != nil || found < 5 {
		t.Fatalf("looked at %d links: %v", found, err)
	}
}

// named is a test or fuzzer that a document names in a code span, without what may
// follow it: a subtest's name.
var named = regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9]+)[^`]*`")

// A test that a document names as proof is there.
func TestDocumentationNamesTestsThatExist(t *testing.T) {
	tree := load(t)
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	for _, s := range tree.sources {
		if s.test {
			for _, m := range declared.FindAllSubmatch(s.text, -1) {
				there[string(m[1])] = true
			}
		}
	}
	for _, name := range []string{"testing.md", "classes.md", "bug-ledger.md"} {
		text, err := os.ReadFile(filepath.Join(tree.root, "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, m := range named.FindAllSubmatch(text, -1) {
			if found++; !there[string(m[1])] {
				t.Errorf("docs/%s names %s, which does not exist", name, m[1])
			}
		}
		if found < 5 {
			t.Errorf("docs/%s names %d tests", name, found)
		}
	}
}
