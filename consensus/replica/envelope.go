package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
)

// envelopeVersion is stored in every entry; an unknown one is refused.
const envelopeVersion = 1

// ErrEnvelope says that an entry's data is not an envelope of a known version.
var ErrEnvelope = errors.New("log entry is not a known envelope")

// Envelope is what the log holds for one batch of requests.
type Envelope struct {
	Term       uint64
	Generation anchormesh.Generation
	Sequence   uint64
	Payloads   [][]byte
}

func (e *Envelope) append(dst []byte) []byte {
	dst = append(dst, envelopeVersion)
	dst = binary.AppendUvarint(dst, e.Term)
	dst = binary.AppendUvarint(dst, uint64(e.Generation))
	dst = binary.AppendUvarint(dst, e.Sequence)
	dst = binary.AppendUvarint(dst, uint64(len(e.Payloads)))
	for _, p := range e.Payloads {
		dst = binary.AppendUvarint(dst, uint64(len(p)))
		dst = append(dst, p...)
	}
	return dst
}

func (e *Envelope) size() int {
	n := 1 + 4*binary.MaxVarintLen64
	for _, p := range e.Payloads {
		n += binary.MaxVarintLen32 + len(p)
	}
	return n
}

// ParseEnvelope reads the form drawn in the package comment. The payloads alias
// data.
func ParseEnvelope(data []byte) (Envelope, error) {
	e, count, rest, err := parseHeader(data)
	if err != nil {
		return e, err
	}
	e.Payloads = make([][]byte, 0, count)
	return e, splitPayloads(rest, count, func(p []byte) { e.Payloads = append(e.Payloads, p) })
}

// eachPayload calls f with the requests of an envelope, in order.
func eachPayload(data []byte, f func([]byte)) error {
	_, count, rest, err := parseHeader(data)
	if err != nil {
		return err
	}
	return splitPayloads(rest, count, f)
}

func parseHeader(data []byte) (e Envelope, count uint64, rest []byte, err error) {
	if len(data) == 0 || data[0] != envelopeVersion {
		return e, 0, nil, fmt.Errorf("%w: %d bytes, first %x", ErrEnvelope, len(data), data[:min(len(data), 1)])
	}
	rest = data[1:]
	for _, field := range []*uint64{&e.Term, (*uint64)(&e.Generation), &e.Sequence, &count} {
		v, n := binary.Uvarint(rest)
		if n <= 0 {
			return e, 0, nil, fmt.Errorf("%w: header cut short", ErrEnvelope)
		}
		*field, rest = v, rest[n:]
	}
	if count > uint64(len(rest)) {
		return e, 0, nil, fmt.Errorf("%w: %d requests in %d bytes", ErrEnvelope, count, len(rest))
	}
	return e, count, rest, nil
}

func splitPayloads(rest []byte, count uint64, f func([]byte)) error {
	for i := range count {
		size, n := binary.Uvarint(rest)
		if n <= 0 || size > uint64(len(rest)-n) {
			return fmt.Errorf("%w: request %d of %d cut short", ErrEnvelope, i, count)
		}
		f(rest[n : n+int(size) : n+int(size)])
		rest = rest[n+int(size):]
	}
	if len(rest) != 0 {
		return fmt.Errorf("%w: %d bytes behind the last request", ErrEnvelope, len(rest))
	}
	return nil
}
