package audit

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy/document"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// Signed checks a signature with the key that a node's ID holds.
func Signed(node anchormesh.NodeID, statement, signature []byte) bool {
	return wire.SignedBy(node, statement, signature)
}

// PolicyHash names the policy that a document says, for a scope.
func PolicyHash(text, scope string) (anchormesh.Hash, error) {
	p, err := document.Read([]byte(text), "", []byte(scope), nil)
	if err != nil {
		return anchormesh.Hash{}, err
	}
	return p.Hash(), nil
}
