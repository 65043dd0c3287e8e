package txns

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
)

// What a request asks for: its first byte.
const (
	askLocks   = 1 // TxnID, locks, reads; answered by grant and what was read
	askRelease = 2 // TxnID
	askPrepare = 3 // keyspace.Origin, commit.Prepare
	askCommit  = 4 // commit.Finish
	askAbort   = 5 // commit.Finish
	askDecide  = 6 // commit.Decide
	askForget  = 7 // TxnID, as commit encodes it
)

// opOf is the command of the log that a request becomes.
func opOf(kind byte) keyspace.Op {
	switch kind {
	case askPrepare:
		return keyspace.OpPrepare
	case askCommit:
		return keyspace.OpCommit
	case askAbort:
		return keyspace.OpAbort
	case askDecide:
		return keyspace.OpDecide
	}
	return keyspace.OpForget
}

var errMalformed = errors.New("malformed message about a transaction")

// wanted is a request for locks.
type wanted struct {
	txn   commit.TxnID
	locks []commit.Lock
	reads []commit.Read
}

// got is its answer.
type got struct {
	grant  commit.Grant
	values []commit.Got
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (w *wanted) encode() []byte {
	b := append(make([]byte, 0, 256), w.txn[:]...)
	b = binary.AppendUvarint(b, uint64(len(w.locks)))
	for _, l := range w.locks {
		b = appendBool(fields.AppendBytes(fields.AppendBytes(b, l.Range.Start), l.Range.End), l.Exclusive)
	}
	b = binary.AppendUvarint(b, uint64(len(w.reads)))
	for _, r := range w.reads {
		b = appendBool(fields.AppendBytes(fields.AppendBytes(b, r.Range.Start), r.Range.End), r.Values)
		b = binary.AppendVarint(b, r.Revision)
	}
	return b
}

func decodeWanted(b []byte) (*wanted, error) {
	r := &reader{fields.Reader{Rest: b}}
	w := &wanted{txn: r.txn()}
	for n := r.Count(); n > 0 && !r.Bad; n-- {
		w.locks = append(w.locks, commit.Lock{Range: r.keys(), Exclusive: r.bool()})
	}
	for n := r.Count(); n > 0 && !r.Bad; n-- {
		w.reads = append(w.reads, commit.Read{Range: r.keys(), Values: r.bool(), Revision: r.int()})
	}
	return w, r.end()
}

// Errors of a read travel as numbers.
var readErrors = []error{nil, keyspace.ErrCompacted, keyspace.ErrFutureRev}

func (g *got) encode() []byte {
	p := g.grant.Place
	b := binary.AppendUvarint(make([]byte, 0, 256), p.Term)
	b = binary.AppendUvarint(b, uint64(p.Generation))
	b = fields.AppendBytes(b, []byte(p.Scope))
	b = binary.AppendUvarint(b, g.grant.Number)
	b = binary.AppendUvarint(b, uint64(len(g.values)))
	for i := range g.values {
		v := &g.values[i]
		fault := byte(0)
		for k, err := range readErrors {
			if k > 0 && errors.Is(v.Err, err) {
				fault = byte(k)
			}
		}
		b = binary.AppendUvarint(append(b, fault), uint64(len(v.KVs)))
		for k := range v.KVs {
			b = binary.AppendUvarint(b, uint64(v.KVs[k].Size()))
			b = codec.AppendKeyValue(b, &v.KVs[k])
		}
	}
	return b
}

func decodeGot(b []byte) (*got, error) {
	r := &reader{fields.Reader{Rest: b}}
	g := &got{}
	g.grant.Place = commit.Place{Term: r.Number(), Generation: anchormesh.Generation(r.Number()), Scope: string(r.Bytes())}
	g.grant.Number = r.Number()
	for n := r.Count(); n > 0 && !r.Bad; n-- {
		var v commit.Got
		if fault := r.Byte(); int(fault) < len(readErrors) {
			v.Err = readErrors[fault]
		} else {
			r.Bad = true
		}
		for k := r.Count(); k > 0 && !r.Bad; k-- {
			var kv codec.KeyValue
			r.Bad = codec.ParseKeyValue(r.Bytes(), &kv) != nil || r.Bad
			v.KVs = append(v.KVs, kv)
		}
		g.values = append(g.values, v)
	}
	return g, r.end()
}

// head begins a request to a segment.
func head(kind byte, d *anchormesh.Descriptor) []byte {
	b := binary.AppendUvarint(append(make([]byte, 0, 24), kind), uint64(d.Segment))
	return binary.AppendUvarint(b, uint64(d.Generation))
}

// request is a parsed one.
type request struct {
	kind       byte
	segment    anchormesh.SegmentID
	generation anchormesh.Generation
	body       []byte
}

func parseRequest(b []byte) (request, error) {
	r := &reader{fields.Reader{Rest: b}}
	q := request{kind: r.Byte(), segment: anchormesh.SegmentID(r.Number()), generation: anchormesh.Generation(r.Number())}
	if r.Bad || q.kind < askLocks || q.kind > askForget {
		return q, errMalformed
	}
	q.body = r.Rest
	return q, nil
}

// reader reads fields; the first fault sticks.
type reader struct{ fields.Reader }

func (r *reader) int() int64 {
	v, n := binary.Varint(r.Rest)
	if n <= 0 {
		r.Bad, r.Rest = true, nil
		return 0
	}
	r.Rest = r.Rest[n:]
	return v
}

func (r *reader) bool() bool { return r.Byte() == 1 }
func (r *reader) keys() anchormesh.KeyRange {
	return anchormesh.KeyRange{Start: r.Bytes(), End: r.Bytes()}
}

func (r *reader) txn() (id commit.TxnID) {
	copy(id[:], r.Take(uint64(len(id))))
	return id
}

func (r *reader) end() error {
	if r.Bad || len(r.Rest) > 0 {
		return fmt.Errorf("%w: %d bytes are left", errMalformed, len(r.Rest))
	}
	return nil
}
