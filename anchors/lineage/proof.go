package lineage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// Limits of a proof.
const (
	// SignaturesMax has room for both sets of voters.
	SignaturesMax = 2 * VotersMax
	// SignatureBytesMax is twice the size of an ed25519 signature.
	SignatureBytesMax = 128
)

// ErrUnproven is returned for a proof with too few good signatures.
var ErrUnproven = errors.New("lineage: not proven")

// Signature is a voter's word that it applied an entry.
type Signature struct {
	Node  anchormesh.NodeID
	Bytes []byte
}

// Proof is an entry, which names its index and term, with the signatures of
// voters that applied it. Signatures ascend by node.
type Proof struct {
	Entry      *Entry
	Signatures []Signature
}

// Statement is what a voter signs once it has applied the entry with this hash.
// The hash stands for everything in the entry: mesh, segment, index, term.
func Statement(entry anchormesh.Hash) []byte {
	return append([]byte("anchormesh lineage applied v1\n"), entry[:]...)
}

// Add puts a node's signature in, in place of an earlier one of that node. It
// does not verify it. Beyond SignaturesMax it does nothing.
func (p *Proof) Add(node anchormesh.NodeID, signature []byte) {
	i, found := slices.BinarySearchFunc(p.Signatures, node, func(s Signature, n anchormesh.NodeID) int {
		return bytes.Compare([]byte(s.Node), []byte(n))
	})
	switch {
	case found:
		p.Signatures[i].Bytes = signature
	case len(p.Signatures) < SignaturesMax:
		p.Signatures = slices.Insert(p.Signatures, i, Signature{node, signature})
	}
}

// Verify reports whether a majority of the voters signed, of both sets if there
// are two. Who the voters are the caller must know: from its own log, or from
// the entry before in a chain it trusts; with nothing to go by, Entry.Voters
// makes the proof consistent with itself, no more. verify checks one signature;
// those of strangers and bad ones count for nothing.
func (p *Proof) Verify(voters Voters, verify func(node anchormesh.NodeID, statement, signature []byte) bool) error {
	if err := p.Entry.Validate(); err != nil {
		return err
	}
	if len(voters.Incoming) == 0 {
		return fmt.Errorf("%w: no voters are known", ErrUnproven)
	}
	statement := Statement(p.Entry.Hash())
	good := make(map[anchormesh.NodeID]bool, len(p.Signatures))
	for _, s := range p.Signatures {
		votes := slices.Contains(voters.Incoming, s.Node) || slices.Contains(voters.Outgoing, s.Node)
		if votes && verify(s.Node, statement, s.Bytes) {
			good[s.Node] = true
		}
	}
	for _, set := range [][]anchormesh.NodeID{voters.Incoming, voters.Outgoing} {
		signed := 0
		for _, id := range set {
			if good[id] {
				signed++
			}
		}
		if len(set) > 0 && signed <= len(set)/2 {
			return fmt.Errorf("%w: %d of %d voters signed %s of segment %s at index %d",
				ErrUnproven, signed, len(set), p.Entry.Kind, p.Entry.Segment, p.Entry.Index)
		}
	}
	return nil
}

// Encode returns the form that travels and is kept.
func (p *Proof) Encode() []byte {
	b := fields.AppendBytes([]byte{version}, p.Entry.Append(nil))
	b = binary.AppendUvarint(b, uint64(len(p.Signatures)))
	for _, s := range p.Signatures {
		b = fields.AppendBytes(fields.AppendBytes(b, []byte(s.Node)), s.Bytes)
	}
	return b
}

// DecodeProof reads what Encode wrote. It does not verify signatures.
func DecodeProof(b []byte) (*Proof, error) {
	r := reader{fields.Reader{Rest: b}}
	r.version()
	e, err := DecodeEntry(r.bytes(entryBytesMax))
	if err != nil {
		return nil, err
	}
	p := &Proof{Entry: e}
	for range r.count(r.Number(), SignaturesMax) {
		p.Add(anchormesh.NodeID(r.bytes(NodeIDBytesMax)), r.bytes(SignatureBytesMax))
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.Encode(), b) {
		return nil, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	return p, nil
}
