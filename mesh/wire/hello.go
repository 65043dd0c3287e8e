package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multistream"

	"github.com/anchormesh/anchormesh"
)

// Stream protocols between nodes. All begin with a hello and its answer.
const (
	protocolMessages protocol.ID = "/anchormesh/messages/1"
	protocolCalls    protocol.ID = "/anchormesh/calls/1"
	protocolBulk     protocol.ID = "/anchormesh/bulk/1"
)

// helloVersion is spoken by this code, and nothing else is understood.
const helloVersion = 1

const (
	helloHeadBytes   = 19  // version 1, class 1, mesh 8, boot 8, name length 1
	welcomeHeadBytes = 11  // version 1, status 1, boot 8, text length 1
	helloTextMax     = 255 // of a bulk protocol's name or a refusal's sentence
)

// Status of a welcome.
const (
	statusOK uint8 = iota
	statusVersion
	statusMesh
	statusHandler
)

var errHello = errors.New("malformed hello")

// hello opens a stream: who speaks (beyond what TLS proved) and what for.
//
//	version 1 | class 1 | mesh ID 8 | boot 8 | name length 1 | name
type hello struct {
	version uint8
	class   Class             // of a messages stream
	mesh    anchormesh.MeshID // zero: the opener belongs to none yet
	boot    uint64
	name    string // of a bulk stream's protocol
}

// welcome answers it.
//
//	version 1 | status 1 | boot 8 | text length 1 | text
type welcome struct {
	version uint8
	status  uint8
	boot    uint64
	text    string // why not, one sentence
}

func (h hello) append(b []byte) []byte {
	b = append(b, h.version, byte(h.class))
	b = binary.BigEndian.AppendUint64(b, uint64(h.mesh))
	b = binary.BigEndian.AppendUint64(b, h.boot)
	b = append(b, byte(len(h.name)))
	return append(b, h.name...)
}

func (w welcome) append(b []byte) []byte {
	text := w.text[:min(len(w.text), helloTextMax)]
	b = append(b, w.version, w.status)
	b = binary.BigEndian.AppendUint64(b, w.boot)
	b = append(b, byte(len(text)))
	return append(b, text...)
}

// readHello reads a hello. Of another version only the version is read: what
// follows it may mean anything.
func readHello(r io.Reader) (hello, error) {
	var head [helloHeadBytes]byte
	if _, err := io.ReadFull(r, head[:1]); err != nil {
		return hello{}, err
	}
	if head[0] != helloVersion {
		return hello{version: head[0]}, nil
	}
	if _, err := io.ReadFull(r, head[1:]); err != nil {
		return hello{}, err
	}
	h := hello{
		version: head[0],
		class:   Class(head[1]),
		mesh:    anchormesh.MeshID(binary.BigEndian.Uint64(head[2:])),
		boot:    binary.BigEndian.Uint64(head[10:]),
	}
	if h.class > ClassMax {
		return hello{}, fmt.Errorf("%w: class %d", errHello, h.class)
	}
	name := make([]byte, head[18])
	if _, err := io.ReadFull(r, name); err != nil {
		return hello{}, err
	}
	h.name = string(name)
	return h, nil
}

func readWelcome(r io.Reader) (welcome, error) {
	var head [welcomeHeadBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return welcome{}, err
	}
	w := welcome{version: head[0], status: head[1], boot: binary.BigEndian.Uint64(head[2:])}
	text := make([]byte, head[10])
	if _, err := io.ReadFull(r, text); err != nil {
		return welcome{}, err
	}
	w.text = string(text)
	return w, nil
}

// err turns a refusal into the error its receiver sees.
func (w welcome) err() error {
	switch w.status {
	case statusOK:
		return nil
	case statusHandler:
		return fmt.Errorf("%w: %s", ErrNoHandler, w.text)
	}
	return fmt.Errorf("%w: %s", ErrRefused, w.text)
}

// greet opens a stream's protocol from the opener's side: protocol selection
// and hello travel together, so that a stream costs one round trip.
func greet(s io.ReadWriteCloser, proto protocol.ID, h hello) (welcome, error) {
	lazy := multistream.NewMSSelect(s, proto)
	if _, err := lazy.Write(h.append(nil)); err != nil {
		return welcome{}, err
	}
	w, err := readWelcome(lazy)
	if errors.As(err, new(multistream.ErrNotSupported[protocol.ID])) {
		return welcome{}, fmt.Errorf("%w: it does not speak %s, so it runs another version", ErrRefused, proto)
	}
	if err != nil {
		return welcome{}, err
	}
	return w, w.err()
}
