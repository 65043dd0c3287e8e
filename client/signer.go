package client

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh/keyspace/signed"
)

// Signer signs the writes of a client, for scopes whose policy asks for it
// (writes.signed). A client signs for one scope: writes elsewhere pass as they are signed, for
// nobody there looks. The zero Signer is not valid.
//
// A proof serves once. Who signs with one key in several processes must give each a key
// of its own, or requests may be refused as used.
type Signer struct {
	mesh  uint64
	scope string
	key   ed25519.PrivateKey
	last  atomic.Uint64
}

// NewSigner returns a signer for a scope of a mesh. key is an ed25519 key, mesh the mesh's ID
// (an answer's header calls it cluster ID).
func NewSigner(mesh uint64, scope string, key ed25519.PrivateKey) (*Signer, error) {
	switch {
	case len(key) != ed25519.PrivateKeySize:
		return nil, fmt.Errorf("client: a key of %d bytes is no ed25519 key", len(key))
	case mesh == 0:
		return nil, errors.New("client: a signer needs the mesh ID")
	}
	return &Signer{mesh: mesh, scope: scope, key: key}, nil
}

// Peer returns the peer ID that the scope knows the signer by.
func (s *Signer) Peer() string {
	return signed.Key(s.key.Public().(ed25519.PublicKey)).Peer()
}

// signedMethods are the writes that scopes judge, by the number that a proof has for
// them.
var signedMethods = map[string]byte{
	"/etcdserverpb.KV/Put":         1,
	"/etcdserverpb.KV/DeleteRange": 2,
	"/etcdserverpb.KV/Txn":         3,
}

// DialOption makes a client sign; it belongs into Config.Etcd.DialOptions, or into those of
// any other etcd client. What clientv3 sends again is signed anew.
func (s *Signer) DialOption() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(s.sign)
}

func (s *Signer) sign(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	number, ok := signedMethods[method]
	m, isMessage := req.(proto.Message)
	if ok && isMessage {
		raw, err := proto.Marshal(m)
		if err != nil {
			return err
		}
		proof := signed.Sign(s.key, s.counter(), &signed.Message{Mesh: s.mesh, Scope: s.scope, Method: number, Request: raw})
		ctx = metadata.AppendToOutgoingContext(ctx, signed.Metadata, string(proof))
	}
	return invoke(ctx, method, req, reply, cc, opts...)
}

// counter is the time, or one more than the last.
func (s *Signer) counter() uint64 {
	for {
		last := s.last.Load()
		next := max(last+1, uint64(time.Now().UnixNano()))
		if s.last.CompareAndSwap(last, next) {
			return next
		}
	}
}
