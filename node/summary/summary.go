package summary

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
)

// BytesMax bounds a sealed summary.
const BytesMax = 200

const (
	version       = 1
	keyBytes      = 32
	sigBytes      = 64
	flagLeaving   = 1
	context       = "anchormesh node summary v1\n"
	packetsPerSec = 15 // memberlist: 3 members each 200 ms
	packetBytes   = 1400
	everyAtLeast  = 5 * time.Second
)

var (
	// ErrMalformed is returned for bytes that are not a summary of this version.
	ErrMalformed = errors.New("summary: malformed")
	// ErrForged is returned for a summary of another mesh or with a bad signature.
	ErrForged = errors.New("summary: not signed by its node for this mesh")
)

// Summary is how a node stands.
type Summary struct {
	Epoch    uint64
	Leaving  bool   // it is being drained
	Pressure uint64 // the largest of the segments it leads, in thousandths of the threshold
	Load     uint64 // of all segments it leads together, likewise
	FreeMiB  uint64 // on the disk of its data directory
	Room     uint64 // how many more replicas it would take; 0: none
	Replicas uint64 // that it holds
	Leaders  uint64 // of these it leads
	Sleeping uint64 // of these cost nothing now
	Leases   uint64 // that it keeps
}

func (s *Summary) numbers() [9]*uint64 {
	return [...]*uint64{&s.Epoch, &s.Pressure, &s.Load, &s.FreeMiB, &s.Room, &s.Replicas, &s.Leaders, &s.Sleeping, &s.Leases}
}

// Seal returns the form that travels: signed with the key of the node.
func (s Summary) Seal(mesh anchormesh.MeshID, key [keyBytes]byte, sign func(statement []byte) []byte) []byte {
	b := append([]byte{version}, key[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(mesh))
	flags := byte(0)
	if s.Leaving {
		flags = flagLeaving
	}
	b = append(b, flags)
	for _, n := range s.numbers() {
		b = binary.AppendUvarint(b, *n)
	}
	return append(b, sign(append([]byte(context), b...))...)
}

// Open reads what Seal wrote, for this mesh, and returns whose key signed it.
func Open(b []byte, mesh anchormesh.MeshID, verify func(key [keyBytes]byte, statement, signature []byte) bool) (key [keyBytes]byte, s Summary, err error) {
	const head = 1 + keyBytes + 8 + 1
	if len(b) > BytesMax || len(b) < head+sigBytes || b[0] != version || b[head-1] > flagLeaving {
		return key, s, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	}
	signed, signature := b[:len(b)-sigBytes], b[len(b)-sigBytes:]
	copy(key[:], b[1:])
	s.Leaving = b[head-1] == flagLeaving
	rest := signed[head:]
	for _, n := range s.numbers() {
		v, size := binary.Uvarint(rest)
		if size <= 0 || size > 1 && rest[size-1] == 0 {
			return key, s, fmt.Errorf("%w: a number cannot be read", ErrMalformed)
		}
		*n, rest = v, rest[size:]
	}
	if len(rest) > 0 {
		return key, s, fmt.Errorf("%w: %d bytes too many", ErrMalformed, len(rest))
	}
	if binary.BigEndian.Uint64(b[1+keyBytes:]) != uint64(mesh) || !verify(key, append([]byte(context), signed...), signature) {
		return key, s, ErrForged
	}
	return key, s, nil
}

// Every returns how often a node may renew its summary in a mesh of so many.
func Every(nodes int) time.Duration {
	repeats := 0
	for reach := 1; reach < nodes+1; reach *= 10 {
		repeats += 4
	}
	const half = packetsPerSec * packetBytes / 2
	return max(everyAtLeast, time.Duration(nodes*repeats*BytesMax)*time.Second/half)
}

// Worth reports whether a summary differs enough from the last one told: by an
// eighth in any figure that placing looks at, or in leaving.
func (s Summary) Worth(told Summary) bool {
	differs := func(a, b, noise uint64) bool { return max(a, b)-min(a, b) > max(b/8, noise) }
	return s.Leaving != told.Leaving ||
		differs(s.Pressure, told.Pressure, 100) || differs(s.Load, told.Load, 100) || differs(s.FreeMiB, told.FreeMiB, 1024) ||
		(s.Room == 0) != (told.Room == 0) || differs(s.Room, told.Room, 0) ||
		differs(s.Replicas, told.Replicas, 0) || differs(s.Leaders, told.Leaders, 0) ||
		differs(s.Sleeping, told.Sleeping, 16) || differs(s.Leases, told.Leases, 256)
}
