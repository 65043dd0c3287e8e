package commit

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/anchormesh/anchormesh"
)

// format is the first byte of every command and row.
const format = 1

// writer appends numbers as uvarints and byte strings behind their length.
type writer struct{ b []byte }

func begin(id TxnID) *writer { return &writer{append([]byte{format}, id[:]...)} }

func (w *writer) uint(v uint64)  { w.b = binary.AppendUvarint(w.b, v) }
func (w *writer) bytes(v []byte) { w.uint(uint64(len(v))); w.b = append(w.b, v...) }

func (w *writer) bool(v bool) {
	if v {
		w.b = append(w.b, 1)
	} else {
		w.b = append(w.b, 0)
	}
}

func (w *writer) span(r anchormesh.KeyRange) { w.bytes(r.Start); w.bytes(r.End) }

func (w *writer) spans(spans []anchormesh.KeyRange) {
	w.uint(uint64(len(spans)))
	for _, s := range spans {
		w.span(s)
	}
}

func (w *writer) locks(locks []Lock) {
	w.uint(uint64(len(locks)))
	for _, l := range locks {
		w.span(l.Range)
		w.bool(l.Exclusive)
	}
}

func (w *writer) writes(writes []Write) {
	w.uint(uint64(len(writes)))
	for i := range writes {
		x := &writes[i]
		w.uint(uint64(x.Sub))
		w.bool(x.Delete)
		w.bytes(x.Key)
		if !x.Delete {
			w.bytes(x.Value)
			w.uint(uint64(x.Lease))
		}
	}
}

func (w *writer) verdict(v Verdict) { w.bool(v.Commit); w.uint(uint64(v.Revision)) }

// reader is a writer's counterpart; after the first error it returns zeroes.
type reader struct {
	b   []byte
	err error
}

func open(b []byte) (*reader, TxnID) {
	r := &reader{b: b}
	if v := r.take(1); r.err == nil && v[0] != format {
		r.fail("format")
	}
	return r, TxnID(append(r.take(16), make([]byte, 16)...)[:16])
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	r.b = nil
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail("too short")
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) uint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail("number")
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) bytes() []byte { return bytes.Clone(r.take(r.uint())) }

func (r *reader) bool() bool {
	b := r.take(1)
	if len(b) == 1 && b[0] > 1 {
		r.fail("flag")
	}
	return len(b) == 1 && b[0] == 1
}

// count reads the length of a list whose elements take at least size bytes each.
func (r *reader) count(size int) int {
	n := r.uint()
	if n > uint64(len(r.b)/size) {
		r.fail("list")
		return 0
	}
	return int(n)
}

func (r *reader) span() anchormesh.KeyRange {
	s := anchormesh.KeyRange{Start: r.bytes(), End: r.bytes()}
	if r.err == nil && s.Empty() {
		r.fail("empty range")
	}
	return s
}

func (r *reader) spans() []anchormesh.KeyRange {
	var out []anchormesh.KeyRange
	for n := r.count(2); n > 0 && r.err == nil; n-- {
		out = append(out, r.span())
	}
	return out
}

// locks reads at least one.
func (r *reader) locks() []Lock {
	var out []Lock
	for n := r.count(3); n > 0 && r.err == nil; n-- {
		out = append(out, Lock{Range: r.span(), Exclusive: r.bool()})
	}
	if len(out) == 0 {
		r.fail("no locks")
	}
	return out
}

func (r *reader) writes() []Write {
	var out []Write
	for n := r.count(3); n > 0 && r.err == nil; n-- {
		sub := r.uint()
		if sub > math.MaxUint32 || len(out) > 0 && sub <= uint64(out[len(out)-1].Sub) {
			r.fail("order of writes")
		}
		w := Write{Sub: uint32(sub), Delete: r.bool(), Key: r.bytes()}
		if !w.Delete {
			w.Value, w.Lease = r.bytes(), int64(r.uint())
		}
		out = append(out, w)
	}
	return out
}

// verdict reads a revision above zero of a commit, zero of an abort.
func (r *reader) verdict() Verdict {
	v := Verdict{Commit: r.bool(), Revision: int64(r.uint())}
	if r.err == nil && (v.Commit != (v.Revision > 0) || v.Revision < 0) {
		r.fail("revision")
	}
	return v
}

func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("too long")
	}
	return r.err
}
