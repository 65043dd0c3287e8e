package gossip

import (
	"net"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/anchormesh/anchormesh/internal/failpoint"
)

// What follows loses what a process that is cut off sends and gets. In ordinary builds
// it is memberlist's transport as it is.

// WriteTo implements memberlist.Transport.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport.
func (t *transport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if failpoint.Cut() {
		return time.Now(), nil
	}
	return t.NetTransport.WriteToAddress(b, a)
}

// PacketCh implements memberlist.Transport.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *transport) StreamCh() <-chan net.Conn { return t.streams }

// severable gives the channels of what comes in.
func (t *transport) severable() *transport {
	t.packets, t.streams = t.NetTransport.PacketCh(), t.NetTransport.StreamCh()
	if failpoint.Enabled {
		t.packets = passing(t, t.packets, func(p *memberlist.Packet) (*memberlist.Packet, bool) { return p, !failpoint.Cut() })
		t.streams = passing(t, t.streams, func(c net.Conn) (net.Conn, bool) { return failpoint.Conn(c), true })
	}
	return t
}

// passing hands on what is kept, as long as the process lives: memberlist waits at its end
// for whoever has something for its channels, and never closes them.
func passing[T any](t *transport, in <-chan T, keep func(T) (T, bool)) <-chan T {
	out := make(chan T)
	go func() {
		for v := range in {
			v, ok := keep(v)
			if !ok {
				continue
			}
			select {
			case out <- v:
			case <-t.ctx.Done():
			}
		}
	}()
	return out
}
