package config

import (
	"net"

	"github.com/multiformats/go-multiaddr"
)

// Resolve returns what the node tells others: the configured advertise
// addresses, or those derived from the bound ones. An unspecified host (0.0.0.0,
// ::, empty) becomes the machine's first global unicast address among local
// (net.InterfaceAddrs), IPv4 first, else loopback. bound holds the addresses in
// use after the ports were taken.
func (a Advertise) Resolve(bound Listen, local []net.Addr) Advertise {
	host := firstHost(local)
	out := a
	if len(out.ClientURLs) == 0 {
		out.ClientURLs = []string{"http://" + withHost(bound.Client, host)}
	}
	if len(out.Peer) == 0 {
		out.Peer = []string{peerWithHost(bound.Peer, host)}
	}
	if out.Gossip == "" {
		out.Gossip = withHost(bound.Gossip, host)
	}
	return out
}

// withHost replaces an unspecified host of a host:port.
func withHost(addr, host string) string {
	h, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(h); h == "" || ip != nil && ip.IsUnspecified() {
		h = host
	}
	return net.JoinHostPort(h, port)
}

func peerWithHost(addr, host string) string {
	h, port, err := net.SplitHostPort(peerHostPort(addr))
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(h); ip == nil || !ip.IsUnspecified() {
		return addr
	}
	family := "/ip4/"
	if net.ParseIP(host).To4() == nil {
		family = "/ip6/"
	}
	m, err := multiaddr.NewMultiaddr(family + host + "/tcp/" + port)
	if err != nil {
		return addr
	}
	return m.String()
}

// firstHost picks the address of this machine that others most likely reach.
func firstHost(local []net.Addr) string {
	v6 := ""
	for _, a := range local {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP.String()
		}
		if v6 == "" {
			v6 = n.IP.String()
		}
	}
	if v6 != "" {
		return v6
	}
	return "127.0.0.1"
}
