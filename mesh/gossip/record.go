package gossip

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/view"
)

// The record is memberlist's node metadata, which may have 512 bytes: more
// would panic the process.
const (
	recordBytesMax = 512
	recordVersion  = 1
	recordFlagLeft = 1

	recordFixedBytes = 1 + 1 + ed25519.PublicKeySize + 8 + 8 // before the epoch
	addrsMax         = 8
)

// recordDomain keeps a record's signature from being taken for any other.
const recordDomain = "anchormesh node record v1\n"

var (
	// ErrRecordTooLarge is returned when what a node has to say of itself does
	// not fit into a record.
	ErrRecordTooLarge = errors.New("node record is too large")
	errRecord         = errors.New("malformed node record")
	errSignature      = errors.New("node record with a wrong signature")
	errBinding        = errors.New("node record under another node's name")
)

// Signer is the identity of this node.
type Signer interface {
	NodeID() anchormesh.NodeID
	PublicKey() []byte // ed25519
	Sign(msg []byte) ([]byte, error)
}

// encode signs a record:
//
//	version 1 | flags 1 | public key 32 | mesh 8 | boot 8 | epoch uvarint
//	name | zone | version            each: length 1, bytes
//	count 1, peer addresses          likewise
//	count 1, client URLs             likewise
//	signature 64, ed25519 over the domain and everything before
func encode(r *view.Record, key Signer) ([]byte, error) {
	b := []byte{recordVersion, 0}
	if r.Left {
		b[1] = recordFlagLeft
	}
	b = append(b, key.PublicKey()...)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Mesh))
	b = binary.BigEndian.AppendUint64(b, r.Boot)
	b = binary.AppendUvarint(b, r.Epoch)
	texts := []string{r.Name, r.Zone, r.Version}
	for _, s := range append(append(texts, r.PeerAddrs...), r.ClientURLs...) {
		if len(s) > 255 {
			return nil, fmt.Errorf("%w: %q has %d bytes, at most 255 fit", ErrRecordTooLarge, s, len(s))
		}
	}
	if len(r.PeerAddrs) > addrsMax || len(r.ClientURLs) > addrsMax {
		return nil, fmt.Errorf("%w: %d peer addresses and %d client URLs, at most %d of each fit",
			ErrRecordTooLarge, len(r.PeerAddrs), len(r.ClientURLs), addrsMax)
	}
	for _, s := range texts {
		b = appendText(b, s)
	}
	for _, list := range [][]string{r.PeerAddrs, r.ClientURLs} {
		b = append(b, byte(len(list)))
		for _, s := range list {
			b = appendText(b, s)
		}
	}
	if over := len(b) + ed25519.SignatureSize - recordBytesMax; over > 0 {
		return nil, fmt.Errorf("%w by %d bytes: name, zone, version, peer addresses and client URLs "+
			"share %d; shorten them", ErrRecordTooLarge, over, recordBytesMax-recordFixedBytes-ed25519.SignatureSize)
	}
	sig, err := key.Sign(append([]byte(recordDomain), b...))
	if err != nil {
		return nil, fmt.Errorf("signing the node record: %w", err)
	}
	return append(b, sig...), nil
}

func appendText(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }

// decode reads a record and checks its signature. idOf names the node that a
// public key belongs to.
func decode(b []byte, idOf func(public []byte) (anchormesh.NodeID, error)) (view.Record, error) {
	r, public, body, err := parse(b)
	if err != nil {
		return view.Record{}, err
	}
	if !ed25519.Verify(public, append([]byte(recordDomain), body...), b[len(body):]) {
		return view.Record{}, errSignature
	}
	if r.ID, err = idOf(public); err != nil {
		return view.Record{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	r.Raw = string(b)
	return r, nil
}

// parse reads a record without judging it. It accepts exactly what encode
// makes.
func parse(b []byte) (r view.Record, public ed25519.PublicKey, body []byte, err error) {
	if len(b) > recordBytesMax || len(b) < recordFixedBytes+ed25519.SignatureSize {
		return r, nil, nil, fmt.Errorf("%w: %d bytes", errRecord, len(b))
	}
	if b[0] != recordVersion {
		return r, nil, nil, fmt.Errorf("%w: version %d, this node knows %d", errRecord, b[0], recordVersion)
	}
	if b[1]&^recordFlagLeft != 0 {
		return r, nil, nil, fmt.Errorf("%w: flags %#x", errRecord, b[1])
	}
	r.Left = b[1] == recordFlagLeft
	body = b[:len(b)-ed25519.SignatureSize]
	public = ed25519.PublicKey(b[2 : 2+ed25519.PublicKeySize])
	r.Mesh = anchormesh.MeshID(binary.BigEndian.Uint64(b[34:]))
	r.Boot = binary.BigEndian.Uint64(b[42:])
	in := reader{rest: body[recordFixedBytes:]}
	r.Epoch = in.uvarint()
	r.Name, r.Zone, r.Version = in.text(), in.text(), in.text()
	r.PeerAddrs, r.ClientURLs = in.list(), in.list()
	if in.failed || len(in.rest) > 0 {
		return r, nil, nil, fmt.Errorf("%w: its parts do not fit its length", errRecord)
	}
	return r, public, body, nil
}

// reader takes a record apart. After a failure everything it returns is empty.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 || n > 1 && r.rest[n-1] == 0 { // a longer form than needed
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

func (r *reader) byte() int {
	if len(r.rest) == 0 {
		r.fail()
		return 0
	}
	c := r.rest[0]
	r.rest = r.rest[1:]
	return int(c)
}

func (r *reader) text() string {
	n := r.byte()
	if n > len(r.rest) {
		r.fail()
		return ""
	}
	s := string(r.rest[:n])
	r.rest = r.rest[n:]
	return s
}

func (r *reader) list() []string {
	n := r.byte()
	if n > addrsMax {
		r.fail()
		return nil
	}
	var out []string
	for range n {
		out = append(out, r.text())
	}
	return out
}

func (r *reader) fail() { r.failed, r.rest = true, nil }

// memberName is how memberlist knows one process of a node. The boot is in it
// so that a restarted node is a new member there: memberlist would refuse the
// old name from a new address until it has given the old one up.
func memberName(id anchormesh.NodeID, boot uint64) string {
	return fmt.Sprintf("%s.%016x", id, boot)
}

// nodeOf returns the node ID in a member's name.
func nodeOf(name string) anchormesh.NodeID {
	id, _, _ := strings.Cut(name, ".")
	return anchormesh.NodeID(id)
}
