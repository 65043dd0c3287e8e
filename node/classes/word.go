package classes

import (
	"encoding/binary"
	"errors"

	"github.com/anchormesh/anchormesh"
)

// kind says what a word says of a replica.
type kind byte

const (
	forgot kind = iota + 1
	onDisk
)

const wordVersion = 1

var errWord = errors.New("word about a replica's class cannot be read")

// word is what a node says of a replica of its own.
type word struct {
	kind    kind
	segment anchormesh.SegmentID
	replica anchormesh.ReplicaID
}

func (w word) encode() []byte {
	b := w.segment.AppendKey([]byte{wordVersion, byte(w.kind)})
	return binary.AppendUvarint(b, uint64(w.replica))
}

func parseWord(b []byte) (word, error) {
	if len(b) < 10 || b[0] != wordVersion {
		return word{}, errWord
	}
	w := word{kind: kind(b[1]), segment: anchormesh.SegmentID(binary.BigEndian.Uint64(b[2:]))}
	id, n := binary.Uvarint(b[10:])
	if n <= 0 || 10+n != len(b) || w.segment == 0 || w.kind != forgot && w.kind != onDisk {
		return word{}, errWord
	}
	w.replica = anchormesh.ReplicaID(id)
	return w, nil
}
