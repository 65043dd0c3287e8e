package frame

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"

	"github.com/anchormesh/anchormesh/internal/invariant"
)

// These define the stored format; they never change within a format version.
const (
	HeaderBytes     = 32
	Align           = 32
	SectorBytes     = 512
	PayloadBytesMax = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC-32C of b, continued from sum.
func Checksum(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// Mix folds two numbers into a sum to continue a checksum from, so that the
// checksum covers them without their being copied next to the bytes. It is the
// finalizer of SplitMix64 (Steele, Lea, Flood 2014), twice.
func Mix(a, b uint64) uint32 { return uint32(splitMix(splitMix(a)+b) >> 32) }

func splitMix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Padded returns the bytes that a frame of n payload bytes occupies.
func Padded(n int) int { return (HeaderBytes + n + Align - 1) &^ (Align - 1) }

// Header is a frame's header.
type Header struct {
	Length int    // of the payload, in bytes
	Seq    uint64 // 1 higher than the frame before
	Mark   uint64
	sum    uint32 // of the payload
	blanks uint32
}

// Seal fills in the header of a frame: b is HeaderBytes of room followed by the
// payload. The frame is to be written at offset of the file with that seed.
// What follows b up to Padded must be zero.
func Seal(b []byte, seed uint32, offset int64, seq, mark uint64) {
	payload := b[HeaderBytes:]
	if offset%Align != 0 || len(payload) > PayloadBytesMax || seq == 0 {
		invariant.Broken("frame %d of %d bytes at offset %d", seq, len(payload), offset)
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(payload)))
	binary.LittleEndian.PutUint64(b[8:], seq)
	binary.LittleEndian.PutUint64(b[16:], mark)
	binary.LittleEndian.PutUint32(b[24:], Checksum(0, payload))
	binary.LittleEndian.PutUint32(b[28:], countBlanks(payload, offset+HeaderBytes))
	binary.LittleEndian.PutUint32(b, headerSum(b, seed, offset))
}

func headerSum(b []byte, seed uint32, offset int64) uint32 {
	return Checksum(Mix(uint64(seed), uint64(offset)), b[4:HeaderBytes])
}

// ParseHeader reads the header at the beginning of b, which was read from
// offset. It reports false if there is none.
func ParseHeader(b []byte, seed uint32, offset int64) (Header, bool) {
	if len(b) < HeaderBytes || binary.LittleEndian.Uint32(b) != headerSum(b, seed, offset) {
		return Header{}, false
	}
	h := Header{
		Length: int(binary.LittleEndian.Uint32(b[4:])),
		Seq:    binary.LittleEndian.Uint64(b[8:]),
		Mark:   binary.LittleEndian.Uint64(b[16:]),
		sum:    binary.LittleEndian.Uint32(b[24:]),
		blanks: binary.LittleEndian.Uint32(b[28:]),
	}
	return h, h.Length <= PayloadBytesMax && h.Seq > 0
}

// Matches reports whether payload is what the header was sealed over.
func (h Header) Matches(payload []byte) bool {
	return len(payload) == h.Length && Checksum(0, payload) == h.sum
}

// countBlanks counts the sectors of which b, which begins at offset, holds a
// part that is all zero.
func countBlanks(b []byte, offset int64) uint32 {
	var blanks uint32
	for len(b) > 0 {
		n := min(len(b), SectorBytes-int(offset%SectorBytes))
		if Blank(b[:n]) {
			blanks++
		}
		b, offset = b[n:], offset+int64(n)
	}
	return blanks
}

// Blank reports whether b holds only zeros.
func Blank(b []byte) bool {
	for len(b) >= 8 {
		if binary.LittleEndian.Uint64(b) != 0 {
			return false
		}
		b = b[8:]
	}
	var rest uint64
	for _, c := range b {
		rest |= uint64(c)
	}
	return bits.Len64(rest) == 0
}
