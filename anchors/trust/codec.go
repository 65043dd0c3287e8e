package trust

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// ledgerVersion is the first byte of an encoded ledger.
const ledgerVersion = 1

// ErrEncoding says that bytes are no encoded ledger or entry.
var ErrEncoding = errors.New("the trust ledger cannot be read")

// SignatureBytesMax is twice the size of an ed25519 signature.
const SignatureBytesMax = 128

// nodeBytesMax bounds a node's name.
const nodeBytesMax = 128

// Encode returns the canonical form; that of nil is empty.
//
//	version 1 | version of the ledger | names | weights | base | steps | reports of the last
//
// All numbers are uvarints; nodes are places in the sorted list of names.
func (l *Ledger) Encode() []byte {
	if l == nil {
		return nil
	}
	w := writer{names: l.names()}
	w.b = append(w.b, ledgerVersion)
	w.uint(l.version)
	w.uint(uint64(len(w.names)))
	for _, n := range w.names {
		w.bytes([]byte(n))
	}
	w.weights(l.weights)
	w.weights(l.base)
	w.uint(uint64(len(l.history)))
	for i := range l.history {
		w.step(&l.history[i])
	}
	w.reports(l.last)
	return w.b
}

// names lists every node that the ledger speaks of.
func (l *Ledger) names() (out []anchormesh.NodeID) {
	for _, list := range [][]Weight{l.weights, l.base} {
		for _, w := range list {
			out = append(out, w.Node)
		}
	}
	for i := range l.history {
		for _, o := range l.history[i].Opinions {
			out = append(out, o.Node)
		}
	}
	for i := range l.last {
		out = append(out, l.last[i].By)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Decode reads what Encode wrote. A ledger whose weights do not follow from its history
// is refused.
func Decode(b []byte) (*Ledger, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if b[0] != ledgerVersion {
		return nil, fmt.Errorf("%w: unknown version %d", ErrEncoding, b[0])
	}
	r := reader{Reader: fields.Reader{Rest: b[1:], Minimal: true}}
	l := &Ledger{version: r.AtMost(1 << 62)}
	r.readNames()
	l.weights, l.base = r.weights(), r.weights()
	for range r.AtMost(HistoryMax) {
		l.history = append(l.history, r.step())
	}
	l.last = r.reports()
	if r.Bad || len(r.Rest) > 0 || !l.consecutive() {
		return nil, ErrEncoding
	}
	if !slices.Equal(l.names(), r.names) {
		return nil, fmt.Errorf("%w: names that are not spoken of", ErrEncoding)
	}
	return l, l.Replay()
}

// consecutive reports whether the history ends at the version, without a gap.
func (l *Ledger) consecutive() bool {
	for i := range l.history {
		if l.history[i].Version+uint64(len(l.history)-1-i) != l.version || l.history[i].Version == 0 {
			return false
		}
	}
	return len(l.history) > 0
}

// Statement is what a reporter signs.
func (p *Poll) Statement(r *Report) []byte {
	w := writer{b: []byte("anchormesh trust report v1\n")}
	w.poll(p)
	w.bytes([]byte(r.By))
	w.measures(r.Measures)
	return w.b
}

// evidence is the hash of an entry's reports.
func (p *Poll) evidence(reports []Report) anchormesh.Hash {
	return sha256.Sum256(p.AppendEntry(nil, reports))
}

// AppendEntry appends the form that an entry of the log holds: the poll and the reports.
func (p *Poll) AppendEntry(dst []byte, reports []Report) []byte {
	w := writer{b: append(dst, 1), names: p.Voters}
	w.poll(p)
	w.reports(reports)
	return w.b
}

// ParseEntry reads what AppendEntry appended.
func ParseEntry(b []byte) (*Poll, []Report, error) {
	if len(b) == 0 || b[0] != 1 {
		return nil, nil, ErrEncoding
	}
	r := reader{Reader: fields.Reader{Rest: b[1:], Minimal: true}}
	p := r.poll()
	r.names = p.Voters
	reports := r.reports()
	if r.Bad || len(r.Rest) > 0 {
		return nil, nil, ErrEncoding
	}
	return p, reports, nil
}

// writer appends; nodes are written as their place among names.
type writer struct {
	b     []byte
	names []anchormesh.NodeID
}

func (w *writer) uint(v uint64) { w.b = binary.AppendUvarint(w.b, v) }

func (w *writer) bytes(v []byte) {
	w.uint(uint64(len(v)))
	w.b = append(w.b, v...)
}

func (w *writer) node(n anchormesh.NodeID) {
	i, found := slices.BinarySearch(w.names, n)
	if !found {
		panic("trust: a node without a name: " + string(n))
	}
	w.uint(uint64(i))
}

func (w *writer) weights(list []Weight) {
	w.uint(uint64(len(list)))
	for _, x := range list {
		w.node(x.Node)
		w.uint(uint64(x.Weight))
	}
}

func (w *writer) step(s *Step) {
	for _, v := range []uint64{s.Version, s.Index, s.Term, uint64(len(s.Opinions))} {
		w.uint(v)
	}
	for _, o := range s.Opinions {
		w.node(o.Node)
		w.uint(uint64(o.Points + StepMax))
		w.uint(uint64(o.Of))
	}
	w.b = append(w.b, s.Evidence[:]...)
}

func (w *writer) poll(p *Poll) {
	for _, v := range []uint64{uint64(p.Mesh), uint64(p.Segment), uint64(p.Generation), p.Term, p.Version, uint64(len(p.Voters))} {
		w.uint(v)
	}
	for _, v := range p.Voters {
		w.bytes([]byte(v))
	}
}

func (w *writer) reports(list []Report) {
	w.uint(uint64(len(list)))
	for i := range list {
		w.node(list[i].By)
		w.measures(list[i].Measures)
		w.bytes(list[i].Signature)
	}
}

func (w *writer) measures(list []Measure) {
	w.uint(uint64(len(list)))
	for _, m := range list {
		for _, v := range []uint32{m.Answered, m.Missed, m.Late, m.Invalid, m.Differs} {
			w.uint(uint64(v))
		}
	}
}

// reader reads; the first fault sticks.
type reader struct {
	fields.Reader
	names []anchormesh.NodeID
}

func (r *reader) node() anchormesh.NodeID {
	i := r.AtMost(1 << 16)
	if i >= uint64(len(r.names)) {
		r.Fail()
		return ""
	}
	return r.names[i]
}

func (r *reader) readNames() {
	for range r.AtMost(1 << 12) {
		n := anchormesh.NodeID(r.BytesAtMost(nodeBytesMax))
		if r.Bad || len(r.names) > 0 && r.names[len(r.names)-1] >= n {
			r.Fail()
			return
		}
		r.names = append(r.names, n)
	}
}

func (r *reader) weights() (out []Weight) {
	for range r.AtMost(AbsentMax + VotersMax) {
		w := Weight{r.node(), uint32(r.AtMost(Cap))}
		if w.Weight < Least || len(out) > 0 && out[len(out)-1].Node >= w.Node {
			r.Fail()
		}
		if r.Bad {
			return nil
		}
		out = append(out, w)
	}
	return out
}

func (r *reader) step() (s Step) {
	s.Version, s.Index, s.Term = r.AtMost(1<<62), r.AtMost(1<<62), r.AtMost(1<<62)
	for range r.AtMost(VotersMax) {
		o := Opinion{Node: r.node(), Points: int(r.AtMost(2*StepMax)) - StepMax, Of: int(r.AtMost(VotersMax))}
		if len(s.Opinions) > 0 && s.Opinions[len(s.Opinions)-1].Node >= o.Node {
			r.Fail()
		}
		if r.Bad {
			return s
		}
		s.Opinions = append(s.Opinions, o)
	}
	if len(r.Rest) < len(s.Evidence) {
		r.Fail()
		return s
	}
	r.Rest = r.Rest[copy(s.Evidence[:], r.Rest):]
	return s
}

func (r *reader) poll() *Poll {
	const most = 1<<64 - 1
	p := &Poll{Mesh: anchormesh.MeshID(r.AtMost(most)), Segment: anchormesh.SegmentID(r.AtMost(most)), Generation: anchormesh.Generation(r.AtMost(most))}
	p.Term, p.Version = r.AtMost(most), r.AtMost(most)
	for range r.AtMost(VotersMax) {
		p.Voters = append(p.Voters, anchormesh.NodeID(r.BytesAtMost(nodeBytesMax)))
	}
	return p
}

func (r *reader) reports() (out []Report) {
	for range r.AtMost(VotersMax) {
		x := Report{By: r.node(), Measures: r.measures(), Signature: slices.Clone(r.BytesAtMost(SignatureBytesMax))}
		if r.Bad {
			return nil
		}
		out = append(out, x)
	}
	return out
}

func (r *reader) measures() (out []Measure) {
	for range r.AtMost(VotersMax) {
		var m Measure
		for _, f := range []*uint32{&m.Answered, &m.Missed, &m.Late, &m.Invalid, &m.Differs} {
			*f = uint32(r.AtMost(1<<32 - 1))
		}
		out = append(out, m)
	}
	return out
}
