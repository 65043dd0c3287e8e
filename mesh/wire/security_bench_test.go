package wire

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
)

// securityStream is one yamux stream over loopback, with the given security and
// a private network: what package wire could be built on.
func securityStream(b *testing.B, noisy bool) (out, in network.MuxedStream) {
	b.Helper()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: newMuxer(DefaultLimits())}}
	psk := testKey.Derive(keyUse)
	build := func() (*tcp.TcpTransport, Identity) {
		id, err := NewIdentity()
		must(err)
		var s sec.SecureTransport
		if noisy {
			s, err = noise.New(noise.ID, id.key, muxers)
		} else {
			s, err = libp2ptls.New(libp2ptls.ID, id.key, muxers)
		}
		must(err)
		up, err := upgrader.New([]sec.SecureTransport{s}, muxers, psk[:], nil, nil)
		must(err)
		tr, err := tcp.NewTCPTransport(up, nil, nil, tcp.DisableReuseport())
		must(err)
		return tr, id
	}
	server, id := build()
	client, _ := build()
	l, err := server.Listen(multiaddr.StringCast(loopback))
	must(err)
	b.Cleanup(func() { l.Close() })
	accepted := make(chan network.MuxedStream, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		s, err := c.AcceptStream()
		if err != nil {
			return
		}
		accepted <- s
	}()
	var conn transport.CapableConn
	conn, err = client.Dial(context.Background(), l.Multiaddr(), id.pid)
	must(err)
	b.Cleanup(func() { conn.Close() })
	out, err = conn.OpenStream(context.Background())
	must(err)
	return out, <-accepted
}

// BenchmarkSecurity is why the security is TLS; its figures are in doc.go.
func BenchmarkSecurity(b *testing.B) {
	for _, kind := range []string{"tls", "noise"} {
		for _, size := range []int{1 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", kind, size>>10), func(b *testing.B) {
				out, in := securityStream(b, kind == "noise")
				done := make(chan error, 1)
				go func() {
					_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(in, int64(b.N*size)), make([]byte, 128<<10))
					done <- err
				}()
				frame := make([]byte, size)
				b.SetBytes(int64(size))
				cpu := reportCPU(b)
				b.ResetTimer()
				for range b.N {
					if _, err := out.Write(frame); err != nil {
						b.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				cpu()
			})
		}
	}
}
