package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"unique"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// ledgerVersion is the first byte of an encoded ledger.
const ledgerVersion = 2

// entryVersion is that of an encoded entry.
const entryVersion = 2

// ErrEncoding says that bytes are no encoded ledger or entry.
var ErrEncoding = errors.New("the trust ledger cannot be read")

// SignatureBytesMax is twice the size of an ed25519 signature.
const SignatureBytesMax = 128

// nodeBytesMax bounds a node's name.
const nodeBytesMax = 128

// Encode returns the canonical form; that of nil is empty. It must not be modified.
//
//	version 1 | version of the ledger | names | weights | before 32 | base | steps | poll, reports of the last
//
// All numbers are uvarints; nodes are places in the sorted list of names.
func (l *Ledger) Encode() []byte {
	if l == nil {
		return nil
	}
	if l.made == nil {
		return l.encoded
	}
	p := l.made
	w := writer{names: p.names(l.weights)}
	w.b = append(w.b, ledgerVersion)
	w.uint(l.version)
	w.uint(uint64(len(w.names)))
	for _, n := range w.names {
		w.bytes([]byte(n))
	}
	w.weights(l.weights)
	w.b = append(w.b, p.before[:]...)
	w.weights(p.base)
	w.uint(uint64(len(p.history)))
	for i := range p.history {
		w.step(&p.history[i])
	}
	w.poll(p.poll)
	w.reports(p.last)
	return w.b
}

// In returns the ledger, kept in b: a copy of its encoding that is there anyway.
func (l *Ledger) In(b []byte) *Ledger {
	if !bytes.Equal(b, l.Encode()) {
		panic("trust: a ledger was stored as something else")
	}
	return &Ledger{version: l.version, weights: l.weights, digest: l.digest, encoded: slices.Clip(b)}
}

// names lists every node that a ledger with these weights speaks of.
func (p *past) names(weights []Weight) (out []anchormesh.NodeID) {
	for _, list := range [][]Weight{weights, p.base} {
		for _, w := range list {
			out = append(out, w.Node)
		}
	}
	for i := range p.history {
		for _, o := range p.history[i].Opinions {
			out = append(out, o.Node)
		}
	}
	for i := range p.last {
		out = append(out, p.last[i].By)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Decode reads what Encode wrote. A ledger whose weights do not follow from its history
// is refused. The ledger keeps b.
func Decode(b []byte) (*Ledger, error) {
	l, err := Read(b)
	if l == nil || err != nil {
		return nil, err
	}
	if err := l.Replay(); err != nil {
		return nil, err
	}
	l.made, l.encoded = nil, slices.Clip(b)
	return l, nil
}

// Read reads what Encode wrote and replays nothing.
func Read(b []byte) (*Ledger, error) {
	if len(b) == 0 {
		return nil, nil
	}
	l, p, err := parse(b)
	if err != nil {
		return nil, err
	}
	l.made = p
	return l, nil
}

// parse is Read: a ledger without its past, and that.
func parse(b []byte) (*Ledger, *past, error) {
	if b[0] != ledgerVersion {
		return nil, nil, fmt.Errorf("%w: unknown version %d", ErrEncoding, b[0])
	}
	r := reader{Reader: fields.Reader{Rest: b[1:], Minimal: true}}
	l, p := &Ledger{version: r.AtMost(1 << 62)}, &past{}
	r.readNames()
	l.weights, p.before, p.base = r.weights(), r.hash(), r.weights()
	for range r.AtMost(HistoryMax) {
		p.history = append(p.history, r.step())
	}
	p.poll, p.last = r.poll(), r.reports()
	if r.Bad || len(r.Rest) > 0 || !p.consecutive(l.version) {
		return nil, nil, ErrEncoding
	}
	l.digest = checkpoint(behind(p.poll.Ledger, &p.history[len(p.history)-1]), l.weights)
	if !slices.Equal(p.names(l.weights), r.names) {
		return nil, nil, fmt.Errorf("%w: names that are not spoken of", ErrEncoding)
	}
	return l, p, nil
}

// consecutive reports whether the history ends at the version, without a gap.
func (p *past) consecutive(version uint64) bool {
	for i := range p.history {
		if p.history[i].Version+uint64(len(p.history)-1-i) != version || p.history[i].Version == 0 {
			return false
		}
	}
	return len(p.history) > 0
}

// Statement is what a reporter signs.
func (p *Poll) Statement(r *Report) []byte {
	w := writer{b: []byte("anchormesh trust report v2\n")}
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
	w := writer{b: append(dst, entryVersion), names: p.Voters}
	w.poll(p)
	w.reports(reports)
	return w.b
}

// ParseEntry reads what AppendEntry appended.
func ParseEntry(b []byte) (*Poll, []Report, error) {
	if len(b) == 0 || b[0] != entryVersion {
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
	for _, v := range []uint64{uint64(p.Mesh), uint64(p.Segment), uint64(p.Generation), p.Term, p.Version} {
		w.uint(v)
	}
	w.b = append(w.b, p.Ledger[:]...)
	w.uint(uint64(len(p.Voters)))
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
		// Thousands of ledgers name the same few nodes: they share the bytes.
		n := anchormesh.NodeID(unique.Make(string(r.BytesAtMost(nodeBytesMax))).Value())
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
	s.Evidence = r.hash()
	return s
}

func (r *reader) hash() (h anchormesh.Hash) {
	if len(r.Rest) < len(h) {
		r.Fail()
		return h
	}
	r.Rest = r.Rest[copy(h[:], r.Rest):]
	return h
}

func (r *reader) poll() *Poll {
	const most = 1<<64 - 1
	p := &Poll{Mesh: anchormesh.MeshID(r.AtMost(most)), Segment: anchormesh.SegmentID(r.AtMost(most)), Generation: anchormesh.Generation(r.AtMost(most))}
	p.Term, p.Version, p.Ledger = r.AtMost(most), r.AtMost(most), r.hash()
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
