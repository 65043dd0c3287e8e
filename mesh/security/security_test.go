package security

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// side makes one of the two transports from a key.
type side func(t *testing.T, key crypto.PrivKey) sec.SecureTransport

func ours(t *testing.T, key crypto.PrivKey) sec.SecureTransport {
	tr, err := New(key, yamux.ID)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func theirs(t *testing.T, key crypto.PrivKey) sec.SecureTransport {
	tr, err := libp2ptls.New(libp2ptls.ID, key, []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func newKey(t *testing.T) (crypto.PrivKey, peer.ID) {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, id
}

type end struct {
	conn sec.SecureConn
	err  error
}

// shake connects two transports; the client wants to find the peer want.
func shake(t *testing.T, client, server sec.SecureTransport, want peer.ID) (out, in end) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	inbound := make(chan end, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			inbound <- end{err: err}
			return
		}
		s, err := server.SecureInbound(ctx, c, "")
		inbound <- end{s, err}
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	out.conn, out.err = client.SecureOutbound(ctx, c, want)
	return out, <-inbound
}

func TestBothEndsKnowEachOther(t *testing.T) {
	for name, sides := range map[string][2]side{"ours": {ours, ours}, "to libp2p's": {ours, theirs}, "from libp2p's": {theirs, ours}} {
		clientKey, client := newKey(t)
		serverKey, server := newKey(t)
		out, in := shake(t, sides[0](t, clientKey), sides[1](t, serverKey), server)
		if out.err != nil || in.err != nil {
			t.Fatalf("%s: %v, %v", name, out.err, in.err)
		}
		for _, e := range []struct {
			conn          sec.SecureConn
			local, remote peer.ID
		}{{out.conn, client, server}, {in.conn, server, client}} {
			if e.conn.LocalPeer() != e.local || e.conn.RemotePeer() != e.remote || !e.remote.MatchesPublicKey(e.conn.RemotePublicKey()) ||
				e.conn.ConnState().StreamMultiplexer != protocol.ID(yamux.ID) {
				t.Errorf("%s: %v sees %v with %+v", name, e.conn.LocalPeer(), e.conn.RemotePeer(), e.conn.ConnState())
			}
		}
		if _, err := out.conn.Write([]byte("x")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n, err := in.conn.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("%s: %d bytes, %v", name, n, err)
		}
		out.conn.Close()
		in.conn.Close()
	}
}

func TestAnotherPeerIsRefused(t *testing.T) {
	clientKey, _ := newKey(t)
	serverKey, _ := newKey(t)
	_, other := newKey(t)
	out, _ := shake(t, ours(t, clientKey), ours(t, serverKey), other)
	var mismatch sec.ErrPeerIDMismatch
	if !errors.As(out.err, &mismatch) || mismatch.Expected != other {
		t.Errorf("%v", out.err)
	}
}

// A clock that is decades off, either way, finds the certificate valid.
func TestNoClockMatters(t *testing.T) {
	clientKey, _ := newKey(t)
	serverKey, server := newKey(t)
	out, in := shake(t, ours(t, clientKey), ours(t, serverKey), server)
	if out.err != nil || in.err != nil {
		t.Fatalf("%v, %v", out.err, in.err)
	}
	defer in.conn.Close()
	defer out.conn.Close()
	for _, c := range []sec.SecureConn{out.conn, in.conn} {
		cert := c.(*conn).Conn.ConnectionState().PeerCertificates[0]
		for _, clock := range []time.Time{time.Unix(1, 0), time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)} {
			if clock.Before(cert.NotBefore) || clock.After(cert.NotAfter) {
				t.Errorf("at %v the certificate is not valid: %v to %v", clock, cert.NotBefore, cert.NotAfter)
			}
		}
		if v := c.(*conn).Conn.ConnectionState().Version; v != tls.VersionTLS13 {
			t.Errorf("TLS version %x", v)
		}
	}
}
