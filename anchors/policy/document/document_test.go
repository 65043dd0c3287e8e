package document

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"github.com/anchormesh/anchormesh/anchors/policy"
)

// refuseCalls stands for whoever compiles rules.
func refuseCalls(r policy.Rule) error {
	if strings.Contains(r.Expr, "oops") {
		return errors.New("undeclared reference to 'oops'")
	}
	return nil
}

// TestDocuments reads documents and shows the policy, or what is wrong.
func TestDocuments(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return
		}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			preset, scope := "", "/a/"
			if d.HasArg("preset") {
				d.ScanArgs(t, "preset", &preset)
			}
			if d.HasArg("root") {
				scope = ""
			}
			p, err := Read([]byte(d.Input), preset, []byte(scope), refuseCalls)
			if err != nil {
				return err.Error()
			}
			again, err := Read(Format(p), "", []byte(scope), nil)
			if err != nil || !again.Equal(p) {
				t.Errorf("%s: does not read back: %v\n%s", d.Pos, err, Format(p))
			}
			if d.Cmd == "json" {
				return string(p.Encode())
			}
			return string(Format(p))
		})
	})
}

func TestALongDocumentIsRefused(t *testing.T) {
	if _, err := Read(make([]byte, BytesMax+1), "", nil, nil); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	for _, name := range policy.Presets {
		p, _ := policy.Preset(name)
		f.Add(Format(p))
	}
	f.Add([]byte("a: &x [*x]\nb: !!binary abc"))
	f.Add([]byte("writes: {rules: [{name: a, expr: \"\\x85\"}], value_bytes_max: 9KiB}\nretention: {seconds: 10m}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Read(text, "", []byte("/a/"), nil)
		if err != nil {
			return
		}
		if again, err := Read(Format(p), "", []byte("/a/"), nil); err != nil || !again.Equal(p) {
			t.Fatalf("%q: written as %q, does not read back: %v", text, Format(p), err)
		}
	})
}
