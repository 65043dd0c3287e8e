package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

// commandTimeout bounds one etcdctl command.
const commandTimeout = 30 * time.Second

// ctl runs etcdctl against one cluster.
type ctl struct {
	path      string
	endpoints string
}

func newCtl(t *testing.T, c *cluster.Cluster) ctl {
	t.Helper()
	paths, err := binaries.Etcd(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return ctl{path: paths.Etcdctl, endpoints: strings.Join(c.Endpoints(), ",")}
}

func (c ctl) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, c.path, append([]string{"--endpoints", c.endpoints}, args...)...)
}

// try runs one command and returns standard output and error.
func (c ctl) try(stdin string, args ...string) (out, errOut string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := c.command(ctx, args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}

// run runs a command that must succeed and returns its lines.
func (c ctl) run(t *testing.T, args ...string) []string {
	t.Helper()
	return c.runWith(t, "", args...)
}

func (c ctl) runWith(t *testing.T, stdin string, args ...string) []string {
	t.Helper()
	out, errOut, err := c.try(stdin, args...)
	if err != nil {
		t.Fatalf("etcdctl %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut)
	}
	return strings.Split(strings.TrimRight(out, "\n"), "\n") // empty lines at the end say nothing
}

// json runs a command that must succeed and decodes its JSON.
func (c ctl) json(t *testing.T, into any, args ...string) {
	t.Helper()
	text := strings.Join(c.run(t, append(args, "-w", "json")...), "\n")
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("etcdctl %s: %v in\n%s", strings.Join(args, " "), err, text)
	}
}

func want(t *testing.T, got []string, lines ...string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(lines, "\n") {
		t.Errorf("got %q, want %q", got, lines)
	}
}

// Every subtest has keys of its own, so that they can run alone.
func TestEtcdctl(t *testing.T) {
	c := target.Start(t, 3)
	e := newCtl(t, c)
	t.Run("put get del", func(t *testing.T) { testPutGetDel(t, e) })
	t.Run("txn", func(t *testing.T) { testTxn(t, e) })
	t.Run("watch", func(t *testing.T) { testWatch(t, e) })
	t.Run("lease", func(t *testing.T) { testLease(t, e) })
	t.Run("cluster", func(t *testing.T) { testCluster(t, e, len(c.Nodes)) })
	t.Run("compaction", func(t *testing.T) { testCompaction(t, e) })
	t.Run("maintenance", func(t *testing.T) { testMaintenance(t, e, len(c.Nodes)) })
}

func testPutGetDel(t *testing.T, e ctl) {
	want(t, e.run(t, "put", "kv/a", "1"), "OK")
	want(t, e.run(t, "put", "kv/a", "2", "--prev-kv"), "OK", "kv/a", "1")
	want(t, e.runWith(t, "from standard input", "put", "kv/b"), "OK")
	want(t, e.run(t, "get", "kv/a"), "kv/a", "2")
	want(t, e.run(t, "get", "kv/", "--prefix"), "kv/a", "2", "kv/b", "from standard input")
	want(t, e.run(t, "get", "kv/", "--prefix", "--keys-only", "--order", "DESCEND", "--sort-by", "KEY"), "kv/b", "", "kv/a")
	want(t, e.run(t, "get", "kv/a", "kv/b", "--print-value-only", "--consistency", "s"), "2")
	var got struct {
		Count int64
		Kvs   []struct {
			Version        int64
			CreateRevision int64 `json:"create_revision"`
			ModRevision    int64 `json:"mod_revision"`
		}
	}
	e.json(t, &got, "get", "kv/a")
	if got.Count != 1 || got.Kvs[0].Version != 2 || got.Kvs[0].ModRevision <= got.Kvs[0].CreateRevision {
		t.Errorf("get -w json: %+v", got)
	}
	want(t, e.run(t, "get", "kv/a", "--rev", fmt.Sprint(got.Kvs[0].CreateRevision)), "kv/a", "1")
	want(t, e.run(t, "del", "kv/a", "--prev-kv"), "1", "kv/a", "2")
	want(t, e.run(t, "del", "kv/", "--prefix"), "1")
	want(t, e.run(t, "get", "kv/", "--prefix"), "")
}

func testTxn(t *testing.T, e ctl) {
	const txn = "mod(\"txn/a\") = \"0\"\n\nput txn/a created\n\nget txn/a\nput txn/b later\n\n"
	want(t, e.runWith(t, txn, "txn"), "SUCCESS", "", "OK")
	want(t, e.runWith(t, txn, "txn"), "FAILURE", "", "txn/a", "created", "", "OK")
	want(t, e.run(t, "get", "txn/b", "--print-value-only"), "later")
}

// testWatch starts a watch in the past and lets it run into the present.
func testWatch(t *testing.T, e ctl) {
	var put struct{ Header struct{ Revision int64 } }
	e.json(t, &put, "put", "watch/a", "1")
	e.run(t, "put", "watch/a", "2")
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	cmd := e.command(ctx, "watch", "watch/", "--prefix", "--prev-kv", "--rev", fmt.Sprint(put.Header.Revision))
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(stdout)
	next := func(expected ...string) {
		t.Helper()
		var got []string
		for range expected {
			if !lines.Scan() {
				t.Fatalf("watch ended after %q: %v", got, lines.Err())
			}
			got = append(got, lines.Text())
		}
		want(t, got, expected...)
	}
	next("PUT", "watch/a", "1")
	next("PUT", "watch/a", "1", "watch/a", "2")
	e.run(t, "del", "watch/a")
	next("DELETE", "watch/a", "2", "watch/a", "")
}

func testLease(t *testing.T, e ctl) {
	granted := e.run(t, "lease", "grant", "1000")[0] // lease 2be7547fbc6a5afa granted with TTL(1000s)
	id := strings.Fields(granted)[1]
	if granted != "lease "+id+" granted with TTL(1000s)" {
		t.Fatalf("lease grant: %q", granted)
	}
	e.run(t, "put", "lease/a", "1", "--lease", id)
	e.run(t, "put", "lease/b", "2", "--lease", id)
	ttl := e.run(t, "lease", "timetolive", id, "--keys")[0]
	if !strings.HasPrefix(ttl, "lease "+id+" granted with TTL(1000s), remaining(") || !strings.Contains(ttl, "lease/a") || !strings.Contains(ttl, "lease/b") {
		t.Errorf("timetolive: %q", ttl)
	}
	if list := e.run(t, "lease", "list"); !strings.Contains(strings.Join(list, "\n"), id) {
		t.Errorf("lease list: %q", list)
	}
	want(t, e.run(t, "lease", "keep-alive", "--once", id), "lease "+id+" keepalived with TTL(1000)")
	want(t, e.run(t, "lease", "revoke", id), "lease "+id+" revoked")
	want(t, e.run(t, "get", "lease/", "--prefix"), "")
	want(t, e.run(t, "lease", "timetolive", id), "lease "+id+" already expired")
	if _, errOut, err := e.try("", "lease", "revoke", id); err == nil || !strings.Contains(errOut, "requested lease not found") {
		t.Errorf("revoke of an ended lease: %v, %s", err, errOut)
	}
}

func testCluster(t *testing.T, e ctl, nodes int) {
	var members struct {
		Members []struct {
			ID         uint64
			Name       string
			ClientURLs []string
		}
	}
	e.json(t, &members, "member", "list")
	ids := map[uint64]bool{}
	for _, m := range members.Members {
		if m.Name == "" || len(m.ClientURLs) == 0 {
			t.Errorf("member %+v", m)
		}
		ids[m.ID] = true
	}
	if len(ids) != nodes {
		t.Errorf("%d members, want %d: %+v", len(ids), nodes, members)
	}
	var status []struct {
		Endpoint string
		Status   struct {
			Version string
			Leader  uint64
			DbSize  int64
			Header  struct {
				MemberID uint64 `json:"member_id"`
			}
		}
	}
	e.json(t, &status, "endpoint", "status")
	seen := map[uint64]bool{}
	for _, s := range status {
		seen[s.Status.Header.MemberID] = true
		if !ids[s.Status.Leader] || s.Status.Version == "" || s.Status.DbSize <= 0 {
			t.Errorf("endpoint status: %+v", s)
		}
	}
	if len(seen) != nodes {
		t.Errorf("endpoint status came from %d members, want %d", len(seen), nodes)
	}
	var health []struct {
		Endpoint string
		Health   bool
	}
	e.json(t, &health, "endpoint", "health")
	for _, h := range health {
		if !h.Health {
			t.Errorf("endpoint health: %+v", h)
		}
	}
	if len(health) != nodes {
		t.Errorf("%d healthy endpoints, want %d", len(health), nodes)
	}
}

func testCompaction(t *testing.T, e ctl) {
	var first, second struct{ Header struct{ Revision int64 } }
	e.json(t, &first, "put", "compact/a", "1")
	e.json(t, &second, "put", "compact/a", "2")
	want(t, e.run(t, "compact", fmt.Sprint(second.Header.Revision), "--physical"), fmt.Sprintf("compacted revision %d", second.Header.Revision))
	for _, args := range [][]string{
		{"get", "compact/a", "--rev", fmt.Sprint(first.Header.Revision)},
		{"compact", fmt.Sprint(first.Header.Revision)},
	} {
		if _, errOut, err := e.try("", args...); err == nil || !strings.Contains(errOut, "required revision has been compacted") {
			t.Errorf("etcdctl %q: %v, %s", args, err, errOut)
		}
	}
	if _, errOut, err := e.try("", "compact", fmt.Sprint(second.Header.Revision+1_000_000)); err == nil || !strings.Contains(errOut, "required revision is a future revision") {
		t.Errorf("compact of a future revision: %v, %s", err, errOut)
	}
	want(t, e.run(t, "get", "compact/a", "--print-value-only"), "2")
}

func testMaintenance(t *testing.T, e ctl, nodes int) {
	e.run(t, "put", "maintenance/a", "1")
	// A linearizable read at a node makes it apply what it is asked about next.
	var hashes []struct {
		Endpoint string
		HashKV   struct {
			Hash         uint64
			HashRevision int64 `json:"hash_revision"`
		}
	}
	var put struct{ Header struct{ Revision int64 } }
	e.json(t, &put, "put", "maintenance/a", "2")
	e.run(t, "endpoint", "health")
	e.json(t, &hashes, "endpoint", "hashkv", "--rev", strconv.FormatInt(put.Header.Revision, 10))
	if len(hashes) != nodes {
		t.Fatalf("%d hashes, want %d", len(hashes), nodes)
	}
	for _, h := range hashes {
		if h.HashKV.Hash == 0 || h.HashKV != hashes[0].HashKV {
			t.Errorf("hashes differ or are empty: %+v", hashes)
			break
		}
	}
	if out := e.run(t, "defrag"); len(out) != nodes {
		t.Errorf("defrag: %q", out)
	}
	want(t, e.run(t, "alarm", "list"), "")
	want(t, e.run(t, "alarm", "disarm"), "")
	want(t, e.run(t, "get", "maintenance/a", "--print-value-only"), "2")
}
