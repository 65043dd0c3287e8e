package config

import (
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidateNamesTheFlag(t *testing.T) {
	tests := []struct {
		want string
		edit func(*Config)
	}{
		{"--name: a node needs a name", func(c *Config) { c.Identity.Name = "" }},
		{`--name: "a b" has the character ' '`, func(c *Config) { c.Identity.Name = "a b" }},
		{`--zone: "eu/west" has the character '/'; allowed are letters, digits and . _ -`, func(c *Config) { c.Identity.Zone = "eu/west" }},
		{"--zone: \"" + strings.Repeat("z", 65) + "\" is longer than 64 bytes", func(c *Config) { c.Identity.Zone = strings.Repeat("z", 65) }},
		{"--anchors: 2 is not 1, 3, 5 or 7", func(c *Config) { c.Recruit.Anchors = 2 }},
		{"--replace-dead-after: 1s is shorter than two election timeouts (2s)", func(c *Config) { c.Recruit.ReplaceDeadAfter = time.Second }},
		{`--join: "host" is not HOST:PORT`, func(c *Config) { c.Mesh.Join = []string{"host"} }},
		{`--join: ":7946" names no host and port to dial`, func(c *Config) { c.Mesh.Join = []string{":7946"} }},
		{"--join: 65 addresses, at most 64", func(c *Config) { c.Mesh.Join = slices.Repeat([]string{"a:1"}, 65) }},
		{`--client-addr: "2379" is not HOST:PORT`, func(c *Config) { c.Listen.Client = "2379" }},
		{`--client-addr: "a:99999": the port is not a number`, func(c *Config) { c.Listen.Client = "a:99999" }},
		{`--peer-addr: "0.0.0.0:2380" is not a multiaddr`, func(c *Config) { c.Listen.Peer = "0.0.0.0:2380" }},
		{`--peer-addr: "/ip4/0.0.0.0/udp/2380" is not of the form`, func(c *Config) { c.Listen.Peer = "/ip4/0.0.0.0/udp/2380" }},
		{`--gossip-addr: "localhost:7946": the host is not an IP address`, func(c *Config) { c.Listen.Gossip = "localhost:7946" }},
		{`--http-addr: "x" is not HOST:PORT`, func(c *Config) { c.Listen.HTTP = "x" }},
		{"--http-addr: 127.0.0.1:2379 is also --client-addr", func(c *Config) { c.Listen.HTTP = "127.0.0.1:2379" }},
		{"--gossip-addr: 0.0.0.0:2380 is also --peer-addr", func(c *Config) { c.Listen.Gossip = "0.0.0.0:2380" }},
		{"--pprof: needs --http-addr", func(c *Config) { c.Listen.HTTP, c.Listen.Pprof = "", true }},
		{`--advertise-client-urls: "10.0.0.1:2379" is not a URL`, func(c *Config) { c.Advertise.ClientURLs = []string{"10.0.0.1:2379"} }},
		{`--advertise-peer: "x" is not a multiaddr`, func(c *Config) { c.Advertise.Peer = []string{"x"} }},
		{`--advertise-gossip: ":1" names no host`, func(c *Config) { c.Advertise.Gossip = ":1" }},
		{"--heartbeat-interval: 0s is less than 1ms", func(c *Config) { c.Raft.Heartbeat = 0 }},
		{"--election-timeout: 499ms is less than 5 times --heartbeat-interval (100ms)", func(c *Config) { c.Raft.Election = 499 * time.Millisecond }},
		{"--election-timeout: 51s is more than 50s", func(c *Config) { c.Raft.Election = 51 * time.Second }},
		{"--snapshot-count: must be at least 1", func(c *Config) { c.Raft.SnapshotCount = 0 }},
		{"--watch-progress-notify-interval: 1ms is less than 100ms", func(c *Config) { c.Watch.ProgressInterval = time.Millisecond }},
		{"--max-request-bytes: 0 is not between 1 and", func(c *Config) { c.Limits.RequestBytes = 0 }},
		{"--max-txn-ops: 0 is not between 1 and", func(c *Config) { c.Limits.TxnOps = 0 }},
		{`--auto-compaction-mode: "yearly" is neither "periodic" nor "revision"`, func(c *Config) { c.Compaction.Mode = "yearly" }},
		{`--auto-compaction-retention: "soon" is neither a duration`, func(c *Config) { c.Compaction.Retention = "soon" }},
		{"--auto-compaction-retention: -1 is negative", func(c *Config) { c.Compaction.Retention = "-1" }},
		{"--auto-compaction-retention: 9999999999999 hours are too many", func(c *Config) { c.Compaction.Retention = "9999999999999" }},
		{`--auto-compaction-retention: "1h" is not a number of revisions`, func(c *Config) { c.Compaction = Compaction{Mode: ByRevision, Retention: "1h"} }},
		{`--log-level: "loud" is none of debug, info, warn, error`, func(c *Config) { c.Log.Level = "loud" }},
		{`--log-format: "xml" is neither text nor json`, func(c *Config) { c.Log.Format = "xml" }},
	}
	for _, tt := range tests {
		c := Default()
		tt.edit(&c)
		err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q", err, tt.want)
		}
	}
}

func TestValidateReportsEveryProblem(t *testing.T) {
	c := Default()
	c.Identity.Zone, c.Limits.TxnOps, c.Listen.Peer = "a b", 0, "?"
	if lines := strings.Count(c.Validate().Error(), "\n") + 1; lines != 3 {
		t.Fatalf("want three lines, got:\n%v", c.Validate())
	}
}

func TestCompactionParse(t *testing.T) {
	tests := []struct {
		c         Compaction
		period    time.Duration
		revisions int64
	}{
		{Compaction{Periodic, "0"}, 0, 0},
		{Compaction{Periodic, "2"}, 2 * time.Hour, 0},
		{Compaction{Periodic, "90s"}, 90 * time.Second, 0},
		{Compaction{ByRevision, "1000"}, 0, 1000},
	}
	for _, tt := range tests {
		period, revisions, err := tt.c.Parse()
		if err != nil || period != tt.period || revisions != tt.revisions {
			t.Errorf("%+v: %v %v %v", tt.c, period, revisions, err)
		}
	}
}

func TestQuota(t *testing.T) {
	if (Limits{}).Quota() != 2<<30 || (Limits{QuotaBackendBytes: 5}).Quota() != 5 || (Limits{QuotaBackendBytes: -1}).Quota() < 1<<62 {
		t.Fatal("quota is not etcd's: 0 is 2 GiB, negative is none")
	}
}

func TestResolveAdvertise(t *testing.T) {
	local := []net.Addr{
		&net.IPNet{IP: net.IPv4(127, 0, 0, 1)}, &net.IPNet{IP: net.ParseIP("fe80::1")},
		&net.IPNet{IP: net.ParseIP("2001:db8::7")}, &net.IPNet{IP: net.IPv4(10, 1, 2, 3)},
	}
	bound := Listen{Client: ":2379", Peer: "/ip4/0.0.0.0/tcp/2380", Gossip: "0.0.0.0:7946"}
	got := Advertise{}.Resolve(bound, local)
	if got.ClientURLs[0] != "http://10.1.2.3:2379" || got.Peer[0] != "/ip4/10.1.2.3/tcp/2380" || got.Gossip != "10.1.2.3:7946" {
		t.Errorf("derived %+v", got)
	}
	got = Advertise{}.Resolve(bound, local[:3])
	if got.Peer[0] != "/ip6/2001:db8::7/tcp/2380" || got.Gossip != "[2001:db8::7]:7946" {
		t.Errorf("IPv6: %+v", got)
	}
	if got = (Advertise{}).Resolve(bound, nil); got.Gossip != "127.0.0.1:7946" {
		t.Errorf("no network: %+v", got)
	}
	fixed := Advertise{ClientURLs: []string{"https://x:1"}, Peer: []string{"/dns/x/tcp/1"}, Gossip: "x:1"}
	if got = fixed.Resolve(bound, local); got.ClientURLs[0] != "https://x:1" || got.Peer[0] != "/dns/x/tcp/1" || got.Gossip != "x:1" {
		t.Errorf("configured addresses were changed: %+v", got)
	}
	if got = (Advertise{}).Resolve(Listen{Client: "127.0.0.1:5", Peer: "/dns4/me/tcp/2", Gossip: "192.0.2.1:3"}, local); got.ClientURLs[0] != "http://127.0.0.1:5" || got.Peer[0] != "/dns4/me/tcp/2" || got.Gossip != "192.0.2.1:3" {
		t.Errorf("specified hosts were changed: %+v", got)
	}
}
