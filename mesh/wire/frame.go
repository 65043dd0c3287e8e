package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Sizes of frame heads. A change of any needs another protocol ID.
const (
	lengthBytes      = 4                // of everything after it
	requestHeadBytes = lengthBytes + 13 // id 8, timeout 4, method 1
	answerHeadBytes  = lengthBytes + 10 // id 8, code 2
	readBufferBytes  = 64 << 10         // one read takes a whole yamux frame
	payloadStepBytes = 1 << 20          // a large payload is allocated as it arrives
	timeoutMax       = time.Duration(1<<32-1) * time.Millisecond
)

var errFrame = errors.New("malformed frame")

// request and answer are the heads of frames; payloads follow them.
type request struct {
	id      uint64
	timeout uint32 // milliseconds, zero for none
	method  uint8
}

type answer struct {
	id   uint64
	code uint16
}

func partsLen(parts [][]byte) int {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	return n
}

func appendParts(buf []byte, parts [][]byte) []byte {
	for _, p := range parts {
		buf = append(buf, p...)
	}
	return buf
}

func appendMessage(buf []byte, size int, parts [][]byte) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(size))
	return appendParts(buf, parts)
}

func appendRequest(buf []byte, r request, size int, parts [][]byte) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(requestHeadBytes-lengthBytes+size))
	buf = binary.BigEndian.AppendUint64(buf, r.id)
	buf = binary.BigEndian.AppendUint32(buf, r.timeout)
	buf = append(buf, r.method)
	return appendParts(buf, parts)
}

func appendAnswer(buf []byte, a answer, size int, parts [][]byte) []byte {
	buf = binary.BigEndian.AppendUint32(buf, uint32(answerHeadBytes-lengthBytes+size))
	buf = binary.BigEndian.AppendUint64(buf, a.id)
	buf = binary.BigEndian.AppendUint16(buf, a.code)
	return appendParts(buf, parts)
}

// frameReader reads frames of one kind from a stream. It allocates nothing but
// the payloads it returns, which belong to the caller.
type frameReader struct {
	r     *bufio.Reader
	limit int // of a payload
}

func newFrameReader(r io.Reader, limit int) *frameReader {
	return &frameReader{r: bufio.NewReaderSize(r, readBufferBytes), limit: limit}
}

// head waits for a frame's head and checks its length; the payload has the
// returned size.
func (f *frameReader) head(size int) (head []byte, payload int, err error) {
	head, err = f.r.Peek(size)
	if err != nil {
		if len(head) > 0 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, 0, err
	}
	n := int64(binary.BigEndian.Uint32(head)) - int64(size-lengthBytes)
	if n < 0 || n > int64(f.limit) {
		return nil, 0, fmt.Errorf("%w: payload of %d bytes, at most %d allowed", errFrame, n, f.limit)
	}
	return head, int(n), nil
}

func (f *frameReader) message() ([]byte, error) {
	_, n, err := f.head(lengthBytes)
	if err != nil {
		return nil, err
	}
	f.r.Discard(lengthBytes)
	return f.payload(n)
}

func (f *frameReader) request() (request, []byte, error) {
	h, n, err := f.head(requestHeadBytes)
	if err != nil {
		return request{}, nil, err
	}
	r := request{
		id:      binary.BigEndian.Uint64(h[4:]),
		timeout: binary.BigEndian.Uint32(h[12:]),
		method:  h[16],
	}
	f.r.Discard(requestHeadBytes)
	p, err := f.payload(n)
	return r, p, err
}

func (f *frameReader) answer() (answer, []byte, error) {
	h, n, err := f.head(answerHeadBytes)
	if err != nil {
		return answer{}, nil, err
	}
	a := answer{id: binary.BigEndian.Uint64(h[4:]), code: binary.BigEndian.Uint16(h[12:])}
	f.r.Discard(answerHeadBytes)
	p, err := f.payload(n)
	return a, p, err
}

// payload reads n bytes. A peer that only claims a large payload must not make
// us allocate it: memory grows as bytes arrive.
func (f *frameReader) payload(n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	p := make([]byte, min(n, payloadStepBytes))
	got := 0
	for {
		k, err := io.ReadFull(f.r, p[got:])
		got += k
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		if got == n {
			return p, nil
		}
		grown := make([]byte, min(n, 2*len(p)))
		copy(grown, p)
		p = grown
	}
}

// timeoutMillis is how long a deadline leaves, at least one millisecond.
func timeoutMillis(now, deadline time.Time) uint32 {
	left := min(deadline.Sub(now), timeoutMax)
	return uint32(max(left.Milliseconds(), 1))
}
