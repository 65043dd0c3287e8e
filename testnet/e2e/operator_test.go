package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// The commands that ask nodes, by TCP and by libp2p address, and what they say
// when they cannot.
func TestAskingNodes(t *testing.T) {
	l := labMesh(t, 2)
	self := l.nodes[1].self()
	peer := self.PeerAddrs[0] + "/p2p/" + self.ID
	another := l.nodes[0].self()
	for command, want := range map[string]string{"status": self.ID, "nodes": self.ID, "segments": another.ID} {
		for _, how := range [][]string{
			{"--endpoint", l.nodes[1].client}, {"--endpoint", "http://" + l.nodes[1].client},
			{"--endpoint", peer, "--mesh-key-file", l.keyFile},
		} {
			out, errs, code := l.cli(append([]string{command, "-o", "json"}, how...)...)
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%s %v: status %d\n%s%s", command, how, code, out, errs)
			}
		}
	}
	other := l.newKey("other.key")
	for _, bad := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--endpoint", peer}, 2, "needs the mesh key"},
		{[]string{"--endpoint", peer, "--mesh-key-file", other}, 1, "another mesh key"},
		{[]string{"--endpoint", peer, "--mesh-key-file", filepath.Join(l.dir, "nowhere")}, 2, "does not exist"},
		{[]string{"--endpoint", peer, "--mesh-key-file", l.program}, 2, "mesh key"},
		{[]string{"--endpoint", self.PeerAddrs[0] + "/p2p/" + another.ID, "--mesh-key-file", l.keyFile}, 1, "another node answers there"},
		{[]string{"--endpoint", "/ip4/127.0.0.1/tcp/1/p2p/" + self.ID, "--mesh-key-file", l.keyFile}, 1, "connection refused"},
		{[]string{"--endpoint", self.PeerAddrs[0], "--mesh-key-file", l.keyFile}, 2, "/p2p/"},
		{[]string{"--endpoint", "/ip4/nonsense/tcp/1/p2p/x", "--mesh-key-file", l.keyFile}, 2, "/p2p/"},
		{[]string{"--endpoint", "127.0.0.1:1"}, 1, "connection refused"},
		{[]string{"--endpoint", l.nodes[1].gossip, "--timeout", "2s"}, 1, l.nodes[1].gossip},
		{[]string{"--endpoint", "nonsense"}, 2, "HOST:PORT"},
	} {
		out, errs, code := l.cli(append([]string{"status"}, bad.args...)...)
		first, rest, _ := strings.Cut(errs, "\n")
		if code != bad.code || out != "" || !strings.Contains(first, bad.says) || strings.Count(rest, "\n") > bad.code-1 {
			t.Errorf("status %v: status %d, want %d and %q\n%s%s", bad.args, code, bad.code, bad.says, out, errs)
		}
	}
}

// Health is the process's, readiness the read path's: it fails without a
// majority and says why.
func TestHealthReadinessAndMetrics(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 3, "--log-level", "error")
	n := l.nodes[0]
	l.serveSome(t)
	checkMetrics(t, n)
	for _, other := range l.nodes[1:] {
		other.kill()
	}
	l.eventually(20*time.Second, "unreadiness", func() error {
		if code, body := n.get("readyz"); code != 503 || !strings.Contains(body, "no leader answers") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	if code, body := n.get("healthz"); code != 200 {
		t.Errorf("health: %d %s", code, body)
	}
	if _, errs, code := l.cli("status", "--endpoint", n.client); code != 1 || !strings.Contains(errs, "is not ready") {
		t.Errorf("status: %d %s", code, errs)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := l.dial(n)
	if _, err := c.Put(ctx, "k", "v"); !errors.Is(err, rpctypes.ErrTimeoutDueToLeaderFail) {
		t.Errorf("a put without a majority: %v", err)
	}
	if got, err := c.Get(ctx, "some", clientv3.WithSerializable()); err != nil || len(got.Kvs) != 1 {
		t.Errorf("a serializable read without a majority: %v, %v", got, err)
	}
	if text := n.run.output.String(); text != "" {
		t.Errorf("with --log-level error it said:\n%s", text)
	}
	l.nodes[1].start()
	l.eventually(20*time.Second, "readiness", func() error {
		if code, body := n.get("readyz"); code != 200 {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
}

func (l *lab) serveSome(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := l.dial(l.nodes[0])
	lease, err := c.Grant(ctx, 100)
	must(t, err)
	_, err = c.Put(ctx, "some", "v", clientv3.WithLease(lease.ID))
	must(t, err)
}

// checkMetrics compares the names with the documentation's table and looks at a
// few figures.
func checkMetrics(t *testing.T, n *labNode) {
	t.Helper()
	code, text := n.get("metrics")
	if code != 200 {
		t.Fatalf("metrics: %d %s", code, text)
	}
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "metrics.md"))
	must(t, err)
	for _, m := range regexp.MustCompile("(?m)^\\| `(anchormesh_[a-z_]+)`").FindAllStringSubmatch(string(doc), -1) {
		if strings.Contains(m[1], "_grpc_streams") { // appears with the first stream
			continue
		}
		if !strings.Contains(text, "\n"+m[1]) {
			t.Errorf("%s is documented and not served", m[1])
		}
	}
	for _, name := range []string{
		"anchormesh_consensus_groups", "anchormesh_mesh_nodes_alive", "anchormesh_log_entries_total", "anchormesh_mesh_connections",
		"anchormesh_mesh_messages_sent_total", "anchormesh_store_size_bytes", "anchormesh_log_disk_bytes",
	} {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
		if m == nil {
			t.Errorf("%s is not served", name)
			continue
		}
		if v, err := strconv.ParseFloat(m[1], 64); err != nil || v <= 0 {
			t.Errorf("%s is %s on a node that serves", name, m[1])
		}
	}
}

// Requests that are too large or make no sense get etcd's errors, through an
// anchor and through a node that is none, and harm nobody.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	l := labMesh(t, 4)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, n := range l.nodes {
		c, err := clientv3.New(clientv3.Config{Endpoints: []string{"http://" + n.client}, MaxCallSendMsgSize: 64 << 20, Logger: zap.NewNop()})
		must(t, err)
		badRequests(ctx, t, n, c)
		c.Close()
		n.serves("after/" + n.name)
	}
}

func badRequests(ctx context.Context, t *testing.T, n *labNode, c *clientv3.Client) {
	t.Helper()
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpPut(fmt.Sprint("many/", i), "v")
	}
	for name, try := range map[string]struct {
		do   func() error
		want error
	}{
		"1.6 MiB":        {func() error { _, err := c.Put(ctx, "k", strings.Repeat("v", 1600<<10)); return err }, rpctypes.ErrRequestTooLarge},
		"empty key":      {func() error { _, err := c.Put(ctx, "", "v"); return err }, rpctypes.ErrEmptyKey},
		"129 ops":        {func() error { _, err := c.Txn(ctx).Then(many...).Commit(); return err }, rpctypes.ErrTooManyOps},
		"same key":       {func() error { _, err := c.Txn(ctx).Then(many[0], many[0]).Commit(); return err }, rpctypes.ErrDuplicateKey},
		"no lease":       {func() error { _, err := c.Put(ctx, "k", "v", clientv3.WithLease(77)); return err }, rpctypes.ErrLeaseNotFound},
		"future":         {func() error { _, err := c.Get(ctx, "k", clientv3.WithRev(1<<40)); return err }, rpctypes.ErrFutureRev},
		"future compact": {func() error { _, err := c.Compact(ctx, 1<<40); return err }, rpctypes.ErrFutureRev},
		"lease too long": {func() error { _, err := c.Grant(ctx, 1<<40); return err }, rpctypes.ErrLeaseTTLTooLarge},
	} {
		if err := try.do(); !errors.Is(err, try.want) {
			t.Errorf("%s through %s: %v, want %v", name, n.name, err, try.want)
		}
	}
	if _, err := c.Put(ctx, "k", strings.Repeat("v", 20<<20)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("20 MiB through %s: %v", n.name, err)
	}
	conn, err := grpc.NewClient(n.client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	defer conn.Close()
	for _, method := range []string{"/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn", "/etcdserverpb.Lease/LeaseGrant"} {
		var out []byte
		err := conn.Invoke(ctx, method, []byte{0x0a, 0xff, 0xff, 0xff}, &out, grpc.ForceCodec(rawBytes{}))
		if code := status.Code(err); code != codes.Internal && code != codes.InvalidArgument {
			t.Errorf("malformed %s through %s: %v", method, n.name, err)
		}
	}
	var out []byte
	if err := conn.Invoke(ctx, "/etcdserverpb.KV/Nonsense", nil, &out, grpc.ForceCodec(rawBytes{})); status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that does not exist: %v", err)
	}
}

// rawBytes sends bytes as they are.
type rawBytes struct{}

func (rawBytes) Marshal(v any) ([]byte, error) { b, _ := v.([]byte); return b, nil }
func (rawBytes) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = b
	return nil
}
func (rawBytes) Name() string { return "proto" }

// A command line or a file that cannot work ends with status 2 and changes
// nothing.
func TestBadConfiguration(t *testing.T) {
	l := newLab(t)
	yaml := filepath.Join(l.dir, "node.yaml")
	must(t, os.WriteFile(yaml, []byte("nonsense: 1\n"), 0o600))
	for want, args := range map[string][]string{
		"--election-timeout":      {"--election-timeout", "10"},
		"--anchors":               {"--anchors", "4"},
		"unknown flag":            {"--nonsense"},
		"node.yaml:1":             {"--config", yaml},
		"--peer-addr":             {"--peer-addr", "127.0.0.1:2380"},
		"--gossip-addr":           {"--gossip-addr", "nonsense"},
		"--join":                  {"--join", "nonsense"},
		"--log-level":             {"--log-level", "loud"},
		"--auto-compaction-mode":  {"--auto-compaction-mode", "sometimes"},
		"--advertise-client-urls": {"--advertise-client-urls", "nonsense"},
		"--max-request-bytes":     {"--max-request-bytes", "-1"},
		"takes no argument":       {"nonsense"},
	} {
		n := l.add(args...)
		n.mustFail(t, 2, want)
		if _, err := os.Stat(n.dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v made the data directory", args)
		}
	}
}
