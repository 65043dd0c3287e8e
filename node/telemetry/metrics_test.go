package telemetry

import (
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"google.golang.org/grpc/codes"
)

var rewrite = flag.Bool("rewrite", false, "write the table of docs/metrics.md anew")

// touched returns metrics in which everything has happened once.
func touched() *Metrics {
	m := New(Sources{
		Scopes:  func() Scopes { return Scopes{Forgetful: 5} },
		Log:     func() wal.Stats { return wal.Stats{Files: 3, BytesWritten: 1000} },
		Wire:    func() wire.Stats { return wire.Stats{Up: 2} },
		Members: func() Members { return Members{Alive: 3, Dead: 1} },
		Stores:  func() Stores { return Stores{QuotaBytes: 2 << 30} },
		Groups:  func() consensus.Load { return consensus.Load{Groups: 3, Asleep: 2} },
	}, "1.2.3")
	api, group, log := m.API(), m.Consensus(), m.Log(nil)
	api.Request("/etcdserverpb.KV/Put", codes.OK, 3*time.Millisecond)
	api.Request("/etcdserverpb.KV/Put", codes.OK, 3*time.Millisecond)
	api.Request("/etcdserverpb.KV/Put", codes.Code(99), time.Millisecond)
	api.StreamOpened("/etcdserverpb.Watch/Watch")
	api.StreamOpened("/etcdserverpb.Watch/Watch")
	api.StreamClosed("/etcdserverpb.Watch/Watch", codes.Canceled)
	group.StatusChanged(1, status("a", 1))
	group.StatusChanged(1, status("", 0))
	group.StatusChanged(1, status("a", 1)) // the same again is no change
	group.StatusChanged(2, status("b", 2))
	group.StatusChanged(3, status("", 0))
	group.StatusChanged(4, status("", 0))
	m.GroupStopped(4)
	group.Synced(2, time.Millisecond)
	group.Batch(17)
	group.Gated(time.Second, true)
	group.Gated(time.Second, false)
	log.Wrote(100, time.Microsecond)
	log.Synced(2 * time.Millisecond)
	log.Trouble(errors.New("disk full"))
	m.Committed(time.Second)
	did := m.Structure()
	did.Split("load")
	did.Moved("drain")
	did.Transferred("load")
	did.Transferred("load")
	did.Invited("declined")
	m.HandedOver(true, false, 20*time.Millisecond)
	m.HandedOver(false, true, time.Second)
	return m
}

// status is that of replica 1 on node a.
func status(leader string, id uint64) consensus.Status {
	return consensus.Status{
		Leader: anchormesh.NodeID(leader), Replica: 1,
		Status: replica.Status{Leader: anchormesh.ReplicaID(id)},
	}
}

func TestScrape(t *testing.T) {
	w := httptest.NewRecorder()
	touched().Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`anchormesh_grpc_requests_total{code="OK",method="/etcdserverpb.KV/Put"} 2`,
		`anchormesh_grpc_requests_total{code="Unknown",method="/etcdserverpb.KV/Put"} 1`,
		`anchormesh_grpc_request_duration_seconds_count{method="/etcdserverpb.KV/Put"} 3`,
		`anchormesh_grpc_streams{method="/etcdserverpb.Watch/Watch"} 1`,
		`anchormesh_grpc_streams_closed_total{code="Canceled",method="/etcdserverpb.Watch/Watch"} 1`,
		"anchormesh_consensus_leader_changes_seen_total 2",
		"anchormesh_consensus_groups 3", "anchormesh_consensus_groups_leading 1", "anchormesh_consensus_groups_without_leader 1",
		"anchormesh_consensus_entry_requests_sum 17", "anchormesh_consensus_sync_groups_sum 2",
		"anchormesh_consensus_ack_wait_seconds_sum 2", "anchormesh_consensus_ack_unknown_total 1", "anchormesh_scope_forgetful_replicas 5",
		"anchormesh_log_sync_duration_seconds_sum 0.002", "anchormesh_log_trouble_total 1",
		"anchormesh_log_written_bytes_total 1000", "anchormesh_log_files 3", "anchormesh_mesh_peers_connected 2",
		"anchormesh_mesh_nodes_alive 3", "anchormesh_mesh_nodes_dead 1", "anchormesh_store_quota_bytes 2.147483648e+09",
		"anchormesh_store_commit_duration_seconds_sum 1", "anchormesh_watch_watchers 0",
		"anchormesh_consensus_groups_asleep 2", `anchormesh_structure_splits_total{cause="load"} 1`, `anchormesh_structure_moves_total{cause="drain"} 1`,
		`anchormesh_structure_transfers_total{cause="load"} 2`, `anchormesh_structure_invitations_total{outcome="declined"} 1`,
		`anchormesh_line_handovers_total{outcome="own"} 1`, `anchormesh_line_handovers_total{outcome="turned_back"} 1`,
		`version="1.2.3"`, "go_goroutines", "process_cpu_seconds_total",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("the scrape has no %s", want)
		}
	}
}

func TestTheCatalogIsWhatIsRegistered(t *testing.T) {
	m := touched()
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]Metric)
	for _, metric := range m.Catalog() {
		known[metric.Name] = metric
		if !strings.HasSuffix(metric.Help, ".") {
			t.Errorf("%s: the help text is no sentence", metric.Name)
		}
		if (metric.Kind == "counter") != isTotal(metric.Name) {
			t.Errorf("%s is a %s: counters, and only they, end in _total", metric.Name, metric.Kind)
		}
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), namespace) {
			continue
		}
		metric, ok := known[f.GetName()]
		if !ok || !strings.EqualFold(metric.Kind, f.GetType().String()) || metric.Help != f.GetHelp() || len(metric.Labels) != len(f.GetMetric()[0].GetLabel()) {
			t.Errorf("%s (%s) is in the catalog as %+v", f.GetName(), f.GetType(), metric)
		}
		delete(known, f.GetName())
	}
	for name := range known {
		t.Errorf("%s is in the catalog only", name)
	}
}

func TestDocumentationListsEveryMetric(t *testing.T) {
	var want strings.Builder
	want.WriteString("| metric | kind | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range New(Sources{}, "").Catalog() {
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), m.Help)
	}
	testkit.Section(t, "../../docs/metrics.md", "metrics", want.String(), *rewrite)
}

func TestTwoNodesShareNothing(t *testing.T) {
	a, b := touched(), New(Sources{}, "")
	w := httptest.NewRecorder()
	b.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if strings.Contains(w.Body.String(), "Put") || a.reg == b.reg {
		t.Fatal("the second node shows the first one's requests")
	}
}

func BenchmarkRequest(b *testing.B) {
	api := New(Sources{}, "").API()
	b.ReportAllocs()
	for b.Loop() {
		api.Request("/etcdserverpb.KV/Range", codes.OK, time.Millisecond)
	}
}
