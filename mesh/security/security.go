package security

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"

	"github.com/anchormesh/anchormesh/internal/failpoint"
)

// errNoKey would be a fault of libp2p's: a handshake that verified no key.
var errNoKey = errors.New("the handshake told no peer key")

// noMuxer is what libp2p's TLS agrees on when no multiplexer is.
const noMuxer = "libp2p"

// Transport implements sec.SecureTransport.
type Transport struct {
	self     peer.ID
	identity *libp2ptls.Identity
	muxers   []string
}

// New returns a transport for the node that key is the identity of. muxers are
// the multiplexers it speaks, preferred ones first.
func New(key crypto.PrivKey, muxers ...protocol.ID) (*Transport, error) {
	self, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	template, err := timeless()
	if err != nil {
		return nil, err
	}
	identity, err := libp2ptls.NewIdentity(key, libp2ptls.WithCertTemplate(template))
	if err != nil {
		return nil, err
	}
	return &Transport{self: self, identity: identity, muxers: protocol.ConvertToStrings(muxers)}, nil
}

// timeless is a certificate that no clock finds too old or too young.
func timeless() (*x509.Certificate, error) {
	limit := new(big.Int).Lsh(big.NewInt(1), 62)
	serial, err := rand.Int(rand.Reader, limit)
	if err != nil {
		return nil, err
	}
	return &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, time.December, 31, 23, 59, 59, 0, time.UTC),
		Subject:      pkix.Name{SerialNumber: serial.String()}, // RFC 3280 wants an issuer, and it is its own
	}, nil
}

// ID implements sec.SecureTransport: the protocol spoken is libp2p's TLS.
func (t *Transport) ID() protocol.ID { return libp2ptls.ID }

// SecureInbound implements sec.SecureTransport. An empty p accepts every peer.
func (t *Transport) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.secure(ctx, insecure, p, tls.Server)
}

// SecureOutbound implements sec.SecureTransport. As TLS 1.3 has it, that the
// other side refuses our certificate shows only at the first Read.
func (t *Transport) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	return t.secure(ctx, insecure, p, tls.Client)
}

func (t *Transport) secure(ctx context.Context, insecure net.Conn, p peer.ID, side func(net.Conn, *tls.Config) *tls.Conn) (sec.SecureConn, error) {
	config, keys := t.identity.ConfigForPeer(p)
	config.NextProtos = append(t.muxers[:len(t.muxers):len(t.muxers)], config.NextProtos...)
	c, err := t.handshake(ctx, side(failpoint.Conn(insecure), config), keys)
	if err != nil {
		insecure.Close()
		return nil, err
	}
	return c, nil
}

func (t *Transport) handshake(ctx context.Context, c *tls.Conn, keys <-chan crypto.PubKey) (*conn, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	key, ok := <-keys // the handshake has sent it and closed the channel
	if !ok {
		return nil, errNoKey
	}
	remote, err := peer.IDFromPublicKey(key)
	if err != nil {
		return nil, err
	}
	muxer := c.ConnectionState().NegotiatedProtocol
	if muxer == noMuxer {
		muxer = ""
	}
	return &conn{Conn: c, local: t.self, remote: remote, key: key, state: network.ConnectionState{
		Security: libp2ptls.ID, StreamMultiplexer: protocol.ID(muxer), UsedEarlyMuxerNegotiation: muxer != "",
	}}, nil
}

// conn implements sec.SecureConn.
type conn struct {
	*tls.Conn
	local, remote peer.ID
	key           crypto.PubKey
	state         network.ConnectionState
}

func (c *conn) LocalPeer() peer.ID                 { return c.local }
func (c *conn) RemotePeer() peer.ID                { return c.remote }
func (c *conn) RemotePublicKey() crypto.PubKey     { return c.key }
func (c *conn) ConnState() network.ConnectionState { return c.state }

var _ sec.SecureTransport = (*Transport)(nil)
