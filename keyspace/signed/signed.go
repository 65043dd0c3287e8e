package signed

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// Metadata is the name of the gRPC metadata entry that carries a proof. gRPC encodes
// what ends in "-bin" by itself.
const Metadata = "anchormesh-proof-bin"

// ProofBytes is the length of a proof.
const ProofBytes = ed25519.PublicKeySize + 8 + ed25519.SignatureSize

// What a proof may be refused for.
var (
	ErrProof  = errors.New("the signature is not one of this request, in this scope of this mesh")
	ErrReplay = errors.New("the counter of the signature has been used, or is too old to tell")
)

// Message is what is signed.
type Message struct {
	Mesh    uint64
	Scope   string
	Method  byte
	Request []byte
}

const domain = "anchormesh signed write 1\n"

func (m *Message) bytes(counter uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(domain), m.Mesh)
	b = append(binary.AppendUvarint(b, uint64(len(m.Scope))), m.Scope...)
	b = binary.BigEndian.AppendUint64(append(b, m.Method), counter)
	sum := sha256.Sum256(m.Request)
	return append(b, sum[:]...)
}

// Sign makes a proof. key is an ed25519 key; counter one that it has not used for the
// scope, above zero.
func Sign(key ed25519.PrivateKey, counter uint64, m *Message) []byte {
	out := append(make([]byte, 0, ProofBytes), key.Public().(ed25519.PublicKey)...)
	out = binary.BigEndian.AppendUint64(out, counter)
	return append(out, ed25519.Sign(key, m.bytes(counter))...)
}

// Key is an ed25519 public key.
type Key [ed25519.PublicKeySize]byte

// Proof is a verified proof.
type Proof struct {
	Key     Key
	Counter uint64
}

// Verify reads and verifies a proof; the error is ErrProof.
func Verify(b []byte, m *Message) (Proof, error) {
	if len(b) != ProofBytes {
		return Proof{}, ErrProof
	}
	var p Proof
	copy(p.Key[:], b)
	p.Counter = binary.BigEndian.Uint64(b[len(p.Key):])
	if p.Counter == 0 || !ed25519.Verify(p.Key[:], m.bytes(p.Counter), b[len(p.Key)+8:]) {
		return Proof{}, ErrProof
	}
	return p, nil
}

// Peer is the key's libp2p peer ID: the key itself behind a header, in base 58.
func (p Proof) Peer() string { return p.Key.Peer() }

// peerHeader says identity hash, 36 bytes: a protobuf of key type Ed25519 and 32 bytes.
const peerHeader = "\x00\x24\x08\x01\x12\x20"

// Peer is the key's libp2p peer ID.
func (k Key) Peer() string { return base58(append([]byte(peerHeader), k[:]...)) }

const alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

func base58(b []byte) string {
	zeros := 0
	for zeros < len(b) && b[zeros] == 0 {
		zeros++
	}
	var digits []byte // of base 58, the lowest first
	for _, c := range b[zeros:] {
		carry := int(c)
		for i := range digits {
			carry += int(digits[i]) << 8
			digits[i], carry = byte(carry%58), carry/58
		}
		for ; carry > 0; carry /= 58 {
			digits = append(digits, byte(carry%58))
		}
	}
	out := make([]byte, 0, zeros+len(digits))
	for range zeros {
		out = append(out, alphabet[0])
	}
	for i := len(digits) - 1; i >= 0; i-- {
		out = append(out, alphabet[digits[i]])
	}
	return string(out)
}
