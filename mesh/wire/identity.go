package wire

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// IdentityFile is the name of the identity key in a data directory: one line,
//
//	anchormesh-identity-v1:<base64 of the libp2p private key>
//
// readable by its owner only.
const IdentityFile = "identity.key"

const (
	identityPrefix   = "anchormesh-identity-v1:"
	identityBytesMax = 4096
)

// ErrIdentity is returned when the identity file is not one, is damaged, or is
// of a kind this version does not know. Nothing is overwritten: a node with a
// new identity would be another node, so an operator has to decide.
var ErrIdentity = errors.New("not a usable identity key")

// Identity is a node's ed25519 key and the peer ID that follows from it.
type Identity struct {
	id  anchormesh.NodeID
	pid peer.ID
	key crypto.PrivKey
}

// NodeID returns the peer ID in its text form.
func (i Identity) NodeID() anchormesh.NodeID { return i.id }

// Sign signs a message with the node's key (ed25519, 64 bytes).
func (i Identity) Sign(msg []byte) ([]byte, error) { return i.key.Sign(msg) }

// PublicKey returns the 32 bytes of the ed25519 public key.
func (i Identity) PublicKey() []byte {
	raw, err := i.key.GetPublic().Raw()
	if err != nil {
		panic("wire: an ed25519 key without bytes: " + err.Error())
	}
	return raw
}

// SignedBy reports whether a message was signed with a node's key, which the node's
// ID holds.
func SignedBy(node anchormesh.NodeID, msg, signature []byte) bool {
	pid, err := peer.Decode(string(node))
	if err != nil {
		return false
	}
	key, err := pid.ExtractPublicKey()
	if err != nil {
		return false
	}
	ok, err := key.Verify(msg, signature)
	return err == nil && ok
}

// NodeIDOf returns the node ID that belongs to an ed25519 public key.
func NodeIDOf(public []byte) (anchormesh.NodeID, error) {
	key, err := crypto.UnmarshalEd25519PublicKey(public)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	pid, err := peer.IDFromPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return anchormesh.NodeID(pid.String()), nil
}

// NewIdentity draws an identity that is kept nowhere.
func NewIdentity() (Identity, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return Identity{}, fmt.Errorf("identity key: %w", err)
	}
	return newIdentity(key)
}

func newIdentity(key crypto.PrivKey) (Identity, error) {
	pid, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return Identity{}, fmt.Errorf("identity key: %w", err)
	}
	return Identity{id: anchormesh.NodeID(pid.String()), pid: pid, key: key}, nil
}

// LoadIdentity reads the identity kept in dir, and makes one if there is none.
// A crash leaves either no identity or a whole one.
func LoadIdentity(files fsys.FS, dir string) (Identity, error) {
	path := filepath.Join(dir, IdentityFile)
	text, err := fsys.ReadSmall(files, path, identityBytesMax)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createIdentity(files, dir)
	case err != nil:
		return Identity{}, fmt.Errorf("identity key %s cannot be read: %w", path, err)
	}
	id, err := parseIdentity(text)
	if err != nil {
		return Identity{}, fmt.Errorf("identity key %s: %w", path, err)
	}
	return id, nil
}

func createIdentity(files fsys.FS, dir string) (Identity, error) {
	id, err := NewIdentity()
	if err != nil {
		return Identity{}, err
	}
	raw, err := crypto.MarshalPrivateKey(id.key)
	if err != nil {
		return Identity{}, fmt.Errorf("identity key: %w", err)
	}
	text := identityPrefix + base64.StdEncoding.EncodeToString(raw) + "\n"
	if err := fsys.WriteSmall(files, dir, IdentityFile, []byte(text)); err != nil {
		return Identity{}, fmt.Errorf("identity key cannot be kept in %s: %w", dir, err)
	}
	return id, nil
}

func parseIdentity(text []byte) (Identity, error) {
	body, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(identityPrefix))
	if !ok {
		return Identity{}, fmt.Errorf("%w: want one line that begins with %q", ErrIdentity, identityPrefix)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(body))
	if err != nil {
		return Identity{}, fmt.Errorf("%w: what follows %q is not base64", ErrIdentity, identityPrefix)
	}
	key, err := crypto.UnmarshalPrivateKey(raw)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: the key is damaged", ErrIdentity)
	}
	if _, ok := key.(*crypto.Ed25519PrivateKey); !ok {
		return Identity{}, fmt.Errorf("%w: want an ed25519 key, have %s", ErrIdentity, key.Type())
	}
	return newIdentity(key)
}
