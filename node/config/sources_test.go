package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// load runs the whole way of a configuration: defaults, flags, environment, file.
func load(t *testing.T, env map[string]string, args ...string) (Config, error) {
	t.Helper()
	c := Default()
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.Bind(fs)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	return c, Fill(fs, lookup)
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "node.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsAreEtcdsAndValid(t *testing.T) {
	c, err := load(t, nil)
	if err != nil || c.Validate() != nil {
		t.Fatalf("the default configuration is refused: %v %v", err, c.Validate())
	}
	switch {
	case c.Limits.Quota() != 2<<30, c.Limits.RequestBytes != 1572864, c.Limits.TxnOps != 128,
		c.Raft.Heartbeat != 100*time.Millisecond, c.Raft.Election != time.Second,
		c.Raft.SnapshotCount != 10000, c.Watch.ProgressInterval != 10*time.Minute,
		c.Compaction != Compaction{Mode: "periodic", Retention: "0"}:
		t.Fatalf("not etcd's defaults: %+v", c)
	}
}

func TestPrecedence(t *testing.T) {
	file := write(t, "name: of-file\nzone: of-file\nmax-txn-ops: 7\nelection-timeout: 2000\n")
	env := map[string]string{
		"ANCHORMESH_CONFIG": file, "ANCHORMESH_NAME": "of-env", "ANCHORMESH_ZONE": "of-env",
		"ANCHORMESH_SNAPSHOT_COUNT": "", // empty is not set
	}
	c, err := load(t, env, "--name=of-flag")
	if err != nil {
		t.Fatal(err)
	}
	if c.Identity.Name != "of-flag" || c.Identity.Zone != "of-env" || c.Limits.TxnOps != 7 ||
		c.Raft.Election != 2*time.Second || c.Raft.SnapshotCount != 10000 {
		t.Fatalf("wrong winner: %+v", c)
	}
}

func TestEveryFlagHasItsVariableAndField(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c := Default()
	c.Bind(fs)
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name == FileFlag {
			return
		}
		value := f.DefValue
		switch f.Value.Type() {
		case "string":
			value = "x"
		case "stringSlice":
			value = "x"
		}
		want := value
		if f.Value.Type() == "stringSlice" {
			want = "[x]"
		}
		for _, source := range []string{"environment", "file"} {
			env := map[string]string{EnvName(f.Name): value}
			if source == "file" {
				env = map[string]string{"ANCHORMESH_CONFIG": write(t, f.Name+": "+value+"\n")}
			}
			own, fs := Default(), pflag.NewFlagSet("", pflag.ContinueOnError)
			own.Bind(fs)
			if err := Fill(fs, func(n string) (string, bool) { v, ok := env[n]; return v, ok }); err != nil {
				t.Errorf("--%s from the %s: %v", f.Name, source, err)
			}
			if got := fs.Lookup(f.Name); got.Value.String() != want || !got.Changed {
				t.Errorf("--%s from the %s is %q, want %q", f.Name, source, got.Value, want)
			}
		}
	})
}

func TestListsFromEverySource(t *testing.T) {
	want := []string{"a:1", "b:2"}
	for name, text := range map[string]string{"list": "join: [\"a:1\", \"b:2\"]", "text": "join: a:1,b:2"} {
		c, err := load(t, nil, "--config", write(t, text))
		if err != nil || !slices.Equal(c.Mesh.Join, want) {
			t.Errorf("file, %s: %v %v", name, c.Mesh.Join, err)
		}
	}
	c, err := load(t, map[string]string{"ANCHORMESH_JOIN": "a:1,b:2"}, "--config", write(t, "join: [c:3]"))
	if err != nil || !slices.Equal(c.Mesh.Join, want) {
		t.Errorf("environment over file: %v %v", c.Mesh.Join, err)
	}
}

func TestBadSourcesAreNamed(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"unknown field", "name: a\nsnapshot-cuont: 5\n", `node.yaml:2: unknown field "snapshot-cuont"`},
		{"config in config", "config: other.yaml\n", `:1: unknown field "config"`},
		{"twice", "name: a\nname: b\n", `:2: field "name" stands twice`},
		{"no value", "name:\n", `:1: field "name" has no value`},
		{"nested", "name: {a: b}\n", `:1: field "name" wants one value`},
		{"list", "name: [a]\n", `:1: field "name" wants one value, not a list`},
		{"nested list", "join: [[a]]\n", `:1: field "join" wants a list of plain values`},
		{"bad number", "\nmax-txn-ops: many\n", `:2: invalid argument "many" for "--max-txn-ops"`},
		{"bad time", "heartbeat-interval: fast\n", `want milliseconds (100) or a duration (100ms)`},
		{"no mapping", "- a\n", `line 1: want fields such as`},
		{"two documents", "name: a\n---\nname: b\n", `want one YAML document`},
		{"not yaml", "name: [\n", `node.yaml: yaml:`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, nil, "--config", write(t, tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q in it", err, tt.want)
			}
		})
	}
	if _, err := load(t, nil, "--config", "/nonexistent/node.yaml"); err == nil || !strings.Contains(err.Error(), "--config: open /nonexistent/node.yaml") {
		t.Errorf("missing file: %v", err)
	}
	if _, err := load(t, map[string]string{"ANCHORMESH_GENESIS": "perhaps"}); err == nil || !strings.Contains(err.Error(), "ANCHORMESH_GENESIS: ") {
		t.Errorf("bad variable: %v", err)
	}
	for _, empty := range []string{"", "# nothing\n", "---\n"} {
		if _, err := load(t, nil, "--config", write(t, empty)); err != nil {
			t.Errorf("empty file %q: %v", empty, err)
		}
	}
}

func TestUnrecognisedVariables(t *testing.T) {
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	c := Default()
	c.Bind(fs)
	got := Unrecognised(fs, []string{"HOME=/", "ANCHORMESH_NAME=a", "ANCHORMESH_NAEM=b", "ANCHORMESH_PORT=tcp://10.0.0.1"})
	if want := []string{"ANCHORMESH_NAEM", "ANCHORMESH_PORT"}; !slices.Equal(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// FuzzParseFields: any text is a list of fields, each with a value, or refused.
func FuzzParseFields(f *testing.F) {
	f.Add([]byte("name: n1\njoin: [a, b]\n"))
	f.Add([]byte("a: &x [*x]\n"))
	f.Add([]byte("---\na: 1\n---\nb: 2\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		fields, err := parseFields(text)
		for _, one := range fields {
			if err != nil || one.value == nil || one.line < 1 {
				t.Fatalf("%q: field %+v, %v", text, one, err)
			}
		}
	})
}
