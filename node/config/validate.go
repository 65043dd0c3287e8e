package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/multiformats/go-multiaddr"
)

// Limits of single values.
const (
	// nameBytesMax keeps name and zone well within the 512 bytes of a node
	// record in gossip.
	nameBytesMax = 64
	// electionMax is etcd's: beyond it a dead leader stops a group for too long
	// to be meant.
	electionMax = 50 * time.Second
	// electionMinHeartbeats is etcd's ratio.
	electionMinHeartbeats = 5
	// requestBytesMax bounds what one request may hold in memory on every
	// anchor at once. It is one entry, which must fit a file of the log, and
	// have room among the requests that wait for one: 64 MiB each.
	requestBytesMax = 32 << 20
	// txnOpsMax bounds one transaction's work between two others.
	txnOpsMax = 1 << 20
	// hasteMax keeps waits above the time in which a change is carried out.
	hasteMax = 100
	// joinMax bounds the addresses tried at start.
	joinMax = 64
)

// Validate reports every problem at once: nil, or joined errors of one sentence
// each that begins with its flag.
func (c *Config) Validate() error {
	var p problems
	c.validateIdentity(&p)
	c.validateAddresses(&p)
	c.validateTuning(&p)
	return errors.Join(p...)
}

type problems []error

func (p *problems) add(flag, format string, args ...any) {
	*p = append(*p, fmt.Errorf("--"+flag+": "+format, args...))
}

func (p *problems) check(flag string, err error) {
	if err != nil {
		p.add(flag, "%w", err)
	}
}

func (c *Config) validateIdentity(p *problems) {
	if c.Identity.Name == "" {
		p.add("name", "a node needs a name")
	}
	p.check("name", checkWord(c.Identity.Name))
	p.check("zone", checkWord(c.Identity.Zone))
	switch c.Recruit.Anchors {
	case 1, 3, 5, 7:
	default:
		p.add("anchors", "%d is not 1, 3, 5 or 7", c.Recruit.Anchors)
	}
	if c.Recruit.Haste < 1 || c.Recruit.Haste > hasteMax {
		p.add("structure-haste", "%d is not between 1 and %d", c.Recruit.Haste, hasteMax)
	}
	if min := 2 * c.Raft.Election; c.Recruit.ReplaceDeadAfter < min {
		p.add("replace-dead-after", "%v is shorter than two election timeouts (%v)", c.Recruit.ReplaceDeadAfter, min)
	}
	if len(c.Mesh.Join) > joinMax {
		p.add("join", "%d addresses, at most %d", len(c.Mesh.Join), joinMax)
	}
	for _, addr := range c.Mesh.Join {
		p.check("join", checkDialable(addr))
	}
}

func (c *Config) validateAddresses(p *problems) {
	p.check("client-addr", checkHostPort(c.Listen.Client))
	p.check("peer-addr", checkPeerAddr(c.Listen.Peer))
	p.check("gossip-addr", checkGossipAddr(c.Listen.Gossip))
	if c.Listen.HTTP != "" {
		p.check("http-addr", checkHostPort(c.Listen.HTTP))
	} else if c.Listen.Pprof {
		p.add("pprof", "needs --http-addr")
	}
	for _, u := range c.Advertise.ClientURLs {
		p.check("advertise-client-urls", checkURL(u))
	}
	for _, a := range c.Advertise.Peer {
		p.check("advertise-peer", checkPeerAddr(a))
	}
	if c.Advertise.Gossip != "" {
		p.check("advertise-gossip", checkDialable(c.Advertise.Gossip))
	}
	c.validateDistinct(p)
}

// validateDistinct finds two services on one port before the second bind does.
func (c *Config) validateDistinct(p *problems) {
	taken := make(map[string]string)
	for _, l := range []struct{ flag, addr string }{
		{"client-addr", c.Listen.Client}, {"peer-addr", peerHostPort(c.Listen.Peer)},
		{"gossip-addr", c.Listen.Gossip}, {"http-addr", c.Listen.HTTP},
	} {
		if _, port, err := net.SplitHostPort(l.addr); err != nil || port == "0" {
			continue
		}
		if other, ok := taken[l.addr]; ok {
			p.add(l.flag, "%s is also --%s", l.addr, other)
		}
		taken[l.addr] = l.flag
	}
}

func (c *Config) validateTuning(p *problems) {
	switch {
	case c.Raft.Heartbeat < time.Millisecond:
		p.add("heartbeat-interval", "%v is less than 1ms", c.Raft.Heartbeat)
	case c.Raft.Election < electionMinHeartbeats*c.Raft.Heartbeat:
		p.add("election-timeout", "%v is less than %d times --heartbeat-interval (%v)", c.Raft.Election, electionMinHeartbeats, c.Raft.Heartbeat)
	}
	if c.Raft.Election > electionMax {
		p.add("election-timeout", "%v is more than %v", c.Raft.Election, electionMax)
	}
	if c.Raft.SnapshotCount == 0 {
		p.add("snapshot-count", "must be at least 1")
	}
	if c.Watch.ProgressInterval < 100*time.Millisecond {
		p.add("watch-progress-notify-interval", "%v is less than 100ms", c.Watch.ProgressInterval)
	}
	if n := c.Limits.RequestBytes; n == 0 || n > requestBytesMax {
		p.add("max-request-bytes", "%d is not between 1 and %d", n, requestBytesMax)
	}
	if n := c.Limits.TxnOps; n == 0 || n > txnOpsMax {
		p.add("max-txn-ops", "%d is not between 1 and %d", n, txnOpsMax)
	}
	if _, _, err := c.Compaction.Parse(); err != nil {
		*p = append(*p, err)
	}
	c.validateLog(p)
}

func (c *Config) validateLog(p *problems) {
	if _, err := c.Log.level(); err != nil {
		p.check("log-level", err)
	}
	if c.Log.Format != "text" && c.Log.Format != "json" {
		p.add("log-format", "%q is neither text nor json", c.Log.Format)
	}
}

// checkWord accepts what is safe in tables, file names and gossip. The empty
// word passes.
func checkWord(s string) error {
	if len(s) > nameBytesMax {
		return fmt.Errorf("%q is longer than %d bytes", s, nameBytesMax)
	}
	for _, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && !strings.ContainsRune("._-", r) {
			return fmt.Errorf("%q has the character %q; allowed are letters, digits and . _ -", s, r)
		}
	}
	return nil
}

func checkHostPort(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not HOST:PORT", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q: the port is not a number from 0 to 65535", s)
	}
	return nil
}

// checkDialable accepts an address that somebody else can use.
func checkDialable(s string) error {
	if err := checkHostPort(s); err != nil {
		return err
	}
	host, port, _ := net.SplitHostPort(s)
	if host == "" || port == "0" {
		return fmt.Errorf("%q names no host and port to dial", s)
	}
	return nil
}

// checkGossipAddr wants an IP: memberlist binds no names.
func checkGossipAddr(s string) error {
	if err := checkHostPort(s); err != nil {
		return err
	}
	if host, _, _ := net.SplitHostPort(s); host != "" && net.ParseIP(host) == nil {
		return fmt.Errorf("%q: the host is not an IP address", s)
	}
	return nil
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is not a URL such as http://10.0.0.1:2379", s)
	}
	return checkDialable(u.Host)
}

// checkPeerAddr accepts /ip4|ip6|dns.../tcp/PORT and nothing after it.
func checkPeerAddr(s string) error {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil {
		return fmt.Errorf("%q is not a multiaddr such as /ip4/0.0.0.0/tcp/2380", s)
	}
	if len(m) != 2 || m[1].Protocol().Code != multiaddr.P_TCP {
		return fmt.Errorf("%q is not of the form /ip4/ADDRESS/tcp/PORT", s)
	}
	switch m[0].Protocol().Code {
	case multiaddr.P_IP4, multiaddr.P_IP6, multiaddr.P_DNS, multiaddr.P_DNS4, multiaddr.P_DNS6:
		return nil
	}
	return fmt.Errorf("%q does not begin with /ip4, /ip6 or /dns", s)
}

// peerHostPort is host:port of a checked peer address, "" of any other.
func peerHostPort(s string) string {
	m, err := multiaddr.NewMultiaddr(s)
	if err != nil || len(m) != 2 {
		return ""
	}
	return net.JoinHostPort(m[0].Value(), m[1].Value())
}
