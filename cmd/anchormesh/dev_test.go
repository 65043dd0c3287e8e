package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/node/config"
)

// fakes stands in for package node: members that only run.
type fakes struct {
	running chan *fakeMember
	fail    map[string]error // by name: what Run returns at once
}

type fakeMember struct {
	cfg config.Config
	key meshkey.Key
	all *fakes
}

func fakeMembers(t *testing.T) *fakes {
	f := &fakes{running: make(chan *fakeMember, 32), fail: make(map[string]error)}
	was := newMember
	newMember = func(cfg config.Config, key meshkey.Key, _ string, _ *slog.Logger) (member, error) {
		return &fakeMember{cfg, key, f}, cfg.Validate()
	}
	t.Cleanup(func() { newMember = was })
	return f
}

func (m *fakeMember) Run(ctx context.Context) error {
	if err := m.all.fail[m.cfg.Identity.Name]; err != nil {
		return err
	}
	if err := os.MkdirAll(m.cfg.Identity.Dir(), 0o700); err != nil {
		return err
	}
	m.all.running <- m
	<-ctx.Done()
	return nil
}

func (m *fakeMember) Check(context.Context) error { return nil }

// watched is stdout that tells when a text has been written.
type watched struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen func()
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.want) {
		w.seen()
	}
	return len(p), nil
}

// devUntilReady runs dev and interrupts it as soon as it announces itself.
func devUntilReady(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &watched{want: "Ctrl-C stops.", seen: cancel}
	var errs bytes.Buffer
	status = run(ctx, append([]string{"dev"}, args...), out, &errs)
	return status, out.buf.String(), errs.String()
}

func TestDevAnnouncesAndStops(t *testing.T) {
	fake := fakeMembers(t)
	status, out, errs := devUntilReady(t)
	if status != exitDone || errs != "" {
		t.Fatalf("status %d, stderr %q", status, errs)
	}
	for _, want := range []string{
		"A mesh of 3 serves.", "temporary, removed at the end", "node-3  127.0.0.1:2381",
		"etcdctl --endpoints=127.0.0.1:2379,127.0.0.1:2380,127.0.0.1:2381 put greeting hello", "Stopped.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in:\n%s", want, out)
		}
	}
	m := <-fake.running
	if _, err := os.Stat(filepath.Dir(m.cfg.Identity.Dir())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary directory was left: %v", err)
	}
}

func TestDevGoesOnInItsDirectory(t *testing.T) {
	fake := fakeMembers(t)
	dir := t.TempDir()
	for range 2 {
		if status, out, errs := devUntilReady(t, "--data-dir="+dir, "--nodes=2"); status != exitDone || !strings.Contains(out, "(kept)") {
			t.Fatalf("status %d, stderr %q", status, errs)
		}
	}
	first := <-fake.running
	for range 3 {
		if m := <-fake.running; m.key != first.key {
			t.Error("the second run made another key")
		}
	}
	status, _, errs := call(t, "dev", "--data-dir="+dir, "--nodes=1")
	if status != exitUsage || !strings.Contains(errs, "holds a mesh of 2 nodes; run it with --nodes 2") {
		t.Errorf("a mesh without its majority: status %d, stderr %q", status, errs)
	}
}

func TestDevStopsAllWhenOneFails(t *testing.T) {
	fake := fakeMembers(t)
	fake.fail["node-2"] = errors.New("address in use")
	status, _, errs := call(t, "dev")
	if status != exitFailed || !strings.Contains(errs, "anchormesh: node-2: address in use") {
		t.Fatalf("status %d, stderr %q", status, errs)
	}
}

func TestFreePortsAreDistinct(t *testing.T) {
	ports, err := freePorts(8)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, p := range ports {
		for _, port := range []int{p.Peer, p.Gossip, p.HTTP} {
			if port == 0 || seen[port] {
				t.Fatalf("port %d twice in %v", port, ports)
			}
			seen[port] = true
		}
	}
}

// stubborn is a member that does not serve.
type stubborn struct{ member }

func (stubborn) Check(context.Context) error { return errors.New("no leader") }

func TestDevSaysWhyItDoesNotServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), complainEvery+2*checkEvery)
		defer cancel()
		m := devMesh{nodes: []devNode{{cfg: config.Default(), member: stubborn{}}}, log: slog.New(slog.NewTextHandler(&logged, nil))}
		if m.waitReady(ctx) || strings.Count(logged.String(), `reason="no leader"`) != 1 {
			t.Fatalf("logged:\n%s", logged.String())
		}
	})
}
