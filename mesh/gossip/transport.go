package gossip

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/anchormesh/anchormesh/internal/failpoint"
)

// bindTriesMax bounds the search for a port that is free for TCP and UDP.
const bindTriesMax = 10

// transport is memberlist's own, but its exchanges end with the context:
// memberlist would go on for its timeout after everybody wants it to stop.
type transport struct {
	*memberlist.NetTransport
	ctx     context.Context
	packets <-chan *memberlist.Packet
	streams <-chan net.Conn
}

func newTransport(ctx context.Context, listen string, logger *log.Logger) (*transport, error) {
	host, port, err := splitAddr(listen)
	if err != nil {
		return nil, err
	}
	if host == "" {
		host = "0.0.0.0"
	}
	ip, err := resolveOne(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("gossip address %s: %w", listen, err)
	}
	for try := 1; ; try++ {
		t, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{
			BindAddrs: []string{ip.String()}, BindPort: port, Logger: logger,
		})
		if err == nil {
			return (&transport{NetTransport: t, ctx: ctx}).severable(), nil
		}
		if port != 0 || try == bindTriesMax {
			return nil, fmt.Errorf("cannot listen for gossip on %s: %w", listen, err)
		}
	}
}

// DialTimeout implements memberlist.Transport.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *transport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: timeout}
	c, err := d.DialContext(t.ctx, "tcp", a.Addr)
	if err != nil {
		return nil, err
	}
	return &boundConn{Conn: failpoint.Conn(c), stop: context.AfterFunc(t.ctx, func() { c.Close() })}, nil
}

// boundConn is closed when the context ends.
type boundConn struct {
	net.Conn
	stop func() bool
}

func (c *boundConn) Close() error {
	c.stop()
	return c.Conn.Close()
}

func resolveOne(ctx context.Context, host string) (net.IP, error) {
	if ip := net.ParseIP(host); ip != nil {
		return ip, nil
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	for _, ip := range ips {
		if ip.To4() != nil {
			return ip, nil
		}
	}
	return ips[0], nil
}

// resolveJoin turns a join address into dialable ones. It is done at every
// attempt: names of machines that are not up yet come to life later.
func resolveJoin(ctx context.Context, addr string) ([]string, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return []string{addr}, nil
	}
	ips, err := net.DefaultResolver.LookupIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, ip := range ips {
		out = append(out, net.JoinHostPort(ip.String(), strconv.Itoa(port)))
	}
	return out, nil
}

// advertised returns the address others shall use.
func advertised(ctx context.Context, advertise, listen string, port int) (net.IP, int, error) {
	if advertise != "" {
		host, port, err := splitAddr(advertise)
		if err != nil {
			return nil, 0, err
		}
		ip, err := resolveOne(ctx, host)
		if err != nil {
			return nil, 0, fmt.Errorf("advertised gossip address %s: %w", advertise, err)
		}
		return ip, port, nil
	}
	host, _, err := splitAddr(listen)
	if err != nil {
		return nil, 0, err
	}
	if host != "" {
		ip, err := resolveOne(ctx, host)
		if err != nil {
			return nil, 0, fmt.Errorf("gossip address %s: %w", listen, err)
		}
		if !ip.IsUnspecified() {
			return ip, port, nil
		}
	}
	ip, err := interfaceIP()
	return ip, port, err
}

// interfaceIP picks the address of an interface: IPv4 before IPv6, loopback
// only if there is nothing else.
func interfaceIP() (net.IP, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("gossip address: %w", err)
	}
	var best net.IP
	rank := 0
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		r := 1
		switch {
		case n.IP.IsLinkLocalUnicast():
			continue
		case n.IP.IsLoopback():
		case n.IP.To4() == nil:
			r = 2
		default:
			r = 3
		}
		if r > rank {
			best, rank = n.IP, r
		}
	}
	if best == nil {
		return nil, errors.New("no interface has an address; say which address to advertise for gossip")
	}
	return best, nil
}
