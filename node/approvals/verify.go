package approvals

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/node/machine"
)

// rememberMax is how many good signatures a Verifier remembers at most, of 32 bytes each.
const rememberMax = 8192

// Verifier checks signatures. It remembers good ones: a leader has seen the votes
// that it applies, and a voter its own. That is no state: what is forgotten is checked
// again, with the same result.
type Verifier struct {
	check machine.Verify

	mu       sync.Mutex
	new, old map[[32]byte]struct{}
}

// NewVerifier returns a verifier that checks by check.
func NewVerifier(check machine.Verify) *Verifier {
	return &Verifier{check: check, new: make(map[[32]byte]struct{})}
}

// Verify is a machine.Verify.
func (v *Verifier) Verify(node anchormesh.NodeID, statement, signature []byte) bool {
	key := nameOf(node, statement, signature)
	if v.knows(key) {
		return true
	}
	if !v.check(node, statement, signature) {
		return false
	}
	v.remember(key)
	return true
}

// Made notes a signature of this node's own.
func (v *Verifier) Made(node anchormesh.NodeID, statement, signature []byte) {
	v.remember(nameOf(node, statement, signature))
}

func (v *Verifier) knows(key [32]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, known := v.new[key]
	if !known {
		_, known = v.old[key]
	}
	return known
}

func (v *Verifier) remember(key [32]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.new) >= rememberMax/2 {
		v.new, v.old = make(map[[32]byte]struct{}, rememberMax/2), v.new
	}
	v.new[key] = struct{}{}
}

// nameOf tells everything that is checked from everything else.
func nameOf(node anchormesh.NodeID, statement, signature []byte) [32]byte {
	h := sha256.New()
	var lengths [16]byte
	binary.BigEndian.PutUint64(lengths[:], uint64(len(node)))
	binary.BigEndian.PutUint64(lengths[8:], uint64(len(statement)))
	h.Write(lengths[:])
	h.Write([]byte(node))
	h.Write(statement)
	h.Write(signature)
	return [32]byte(h.Sum(nil))
}
