package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

// call runs one command line.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestBadCommandLinesEndWithStatus2(t *testing.T) {
	tests := []struct{ line, want string }{
		{"frobnicate", `unknown command "frobnicate"`},
		{"key old", `unknown command "old" for "anchormesh key"`},
		{"serve now", `anchormesh serve takes no argument, got "now"`},
		{"serve --bogus", "unknown flag: --bogus"},
		{"serve --max-txn-ops=-1", "--max-txn-ops"},
		{"serve --zone=a/b", "--zone: "},
		{"serve --election-timeout=100", "--election-timeout: 100ms is less than 5 times --heartbeat-interval (100ms)"},
		{"serve --config=/nonexistent", "--config: open /nonexistent"},
		{"serve --name=x --data-dir=/nonexistent", "no mesh key: give the file"},
		{"serve --mesh-key-file=/nonexistent", "--mesh-key-file: no mesh key at /nonexistent"},
		{"dev --nodes=0", "--nodes: 0 is not between 1 and 16"},
		{"nodes -o yaml", "want table or json"},
		{"nodes --endpoint=localhost", "an endpoint is HOST:PORT"},
		{"status --endpoint=https://localhost:1", "TLS"},
		{"inspect", "inspect needs the path"},
	}
	for _, tt := range tests {
		status, out, errs := call(t, strings.Fields(tt.line)...)
		if status != exitUsage || out != "" || !strings.Contains(errs, tt.want) || !strings.Contains(errs, "--help") {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want status 2 and %q", tt.line, status, out, errs, tt.want)
		}
	}
}

func TestFailuresEndWithStatus1(t *testing.T) {
	for _, line := range []string{"nodes --endpoint=127.0.0.1:1", "inspect /nonexistent"} {
		status, out, errs := call(t, strings.Fields(line)...)
		if status != exitFailed || out != "" || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, "anchormesh: ") {
			t.Errorf("%s: status %d, stdout %q, stderr %q; want status 1 and one line", line, status, out, errs)
		}
	}
}

func TestKeyNewPrintsAFreshKeyOnly(t *testing.T) {
	status, first, errs := call(t, "key", "new")
	if _, err := meshkey.Parse(first); status != exitDone || err != nil || errs != "" {
		t.Fatalf("status %d, %v, stderr %q", status, err, errs)
	}
	if _, second, _ := call(t, "key", "new"); second == first {
		t.Fatal("the same key twice")
	}
}

func TestVersion(t *testing.T) {
	if status, out, _ := call(t, "version"); status != exitDone || !strings.HasPrefix(out, "anchormesh "+version) {
		t.Errorf("status %d, %q", status, out)
	}
	if status, out, _ := call(t, "version", "-o", "json"); status != exitDone || !strings.Contains(out, `"etcd_api": "3.`) {
		t.Errorf("status %d, %q", status, out)
	}
}

func TestEveryCommandHasHelpWorthReading(t *testing.T) {
	for _, cmd := range newRoot().Commands() {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short text %q", cmd.Name(), cmd.Short)
		}
		if cmd.Long == "" && cmd.HasFlags() && cmd.Name() != "version" {
			t.Errorf("%s has flags and no long text", cmd.Name())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 82 {
				t.Errorf("%s: the help line %q does not fit a terminal", cmd.Name(), line)
			}
		}
		if status, out, _ := call(t, cmd.Name(), "--help"); status != exitDone || !strings.Contains(out, "Usage:") {
			t.Errorf("%s --help: status %d", cmd.Name(), status)
		}
	}
}

func TestServeRunsTheConfiguredNode(t *testing.T) {
	fake := fakeMembers(t)
	dir := t.TempDir()
	t.Setenv("ANCHORMESH_ZONE", "east")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	var out, errs bytes.Buffer
	go func() { done <- run(ctx, []string{"serve", "--name=a", "--genesis", "--data-dir=" + dir}, &out, &errs) }()
	m := <-fake.running
	cancel()
	if status := <-done; status != exitDone || errs.String() != "" {
		t.Fatalf("status %d, stderr %q", status, errs.String())
	}
	if m.cfg.Identity.Name != "a" || m.cfg.Identity.Zone != "east" || m.key.Validate() != nil {
		t.Fatalf("node got %+v", m.cfg)
	}
}
