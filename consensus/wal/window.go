package wal

import (
	"errors"
	"fmt"
	"io"

	"github.com/anchormesh/anchormesh/internal/frame"
)

const windowBytes = 1 << 20 // read ahead while a file is replayed

// window reads a file front to back in large pieces.
type window struct {
	f     *logFile
	buf   []byte // holds the file from start on
	start int64
}

func (w *window) reset(f *logFile) { w.f, w.buf, w.start = f, w.buf[:0], 0 }

// bytes returns n bytes of the file from off on, valid until the next call; nil
// if the file is too short.
func (w *window) bytes(off, n int64) ([]byte, error) {
	if off+n > w.f.header.size {
		return nil, nil
	}
	if off < w.start || off+n > w.start+int64(len(w.buf)) {
		size := min(max(n, windowBytes), w.f.header.size-off)
		if int64(cap(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		w.buf, w.start = w.buf[:size], off
		if _, err := w.f.f.ReadAt(w.buf, off); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("reading %s at offset %d: %w", w.f.name, off, err)
		}
	}
	return w.buf[off-w.start:][:n], nil
}

// frame returns the frame at off; a nil payload if no whole one stands there.
func (w *window) frame(off int64) (frame.Header, []byte, error) {
	b, err := w.bytes(off, frame.HeaderBytes)
	if err != nil || b == nil {
		return frame.Header{}, nil, err
	}
	h, ok := frame.ParseHeader(b, w.f.seed, off)
	if !ok {
		return frame.Header{}, nil, nil
	}
	b, err = w.bytes(off, int64(frame.HeaderBytes+h.Length))
	if err != nil || b == nil || !h.Matches(b[frame.HeaderBytes:]) {
		return frame.Header{}, nil, err
	}
	return h, b[frame.HeaderBytes:], nil
}

// tail returns everything from the end of f's whole frames on.
func (w *window) tail(f *logFile) ([]byte, error) {
	w.f, w.start = f, 0
	w.buf = make([]byte, f.header.size-f.end)
	if len(w.buf) == 0 {
		return nil, nil
	}
	if _, err := f.f.ReadAt(w.buf, f.end); err != nil {
		return nil, fmt.Errorf("reading %s at offset %d: %w", f.name, f.end, err)
	}
	w.start = f.end
	return w.buf, nil
}
