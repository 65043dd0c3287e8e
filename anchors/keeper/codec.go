package keeper

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fields"
)

// version is the first byte of everything encoded here.
const version = 1

// nodeBytesMax is that of package lineage.
const nodeBytesMax = 128

// ErrMalformed is returned for bytes that are no canonical encoding.
var ErrMalformed = errors.New("keeper: malformed bytes")

// validate checks what a report says by itself.
func (rep *Report) validate() error {
	bad := rep.Segment == 0 || rep.Generation == 0 || rep.Replica == 0 || rep.Node == "" ||
		len(rep.Confs) == 0 || len(rep.Confs) > ConfsMax || len(rep.Holders) > VotersMax ||
		!slices.Contains(rep.Holders, rep.Holder) || !slices.IsSortedFunc(rep.Holders, compareHolders)
	for _, c := range rep.Confs {
		bad = bad || len(c) == 0 || len(c) > VotersMax || !ascending(c)
	}
	for _, h := range rep.Holders {
		bad = bad || h.Replica == 0 || h.Node == "" || len(h.Node) > nodeBytesMax
	}
	if bad {
		return fmt.Errorf("%w: replica %d of segment %s, generation %d", ErrReport, rep.Replica, rep.Segment, rep.Generation)
	}
	return nil
}

func ascending(c Conf) bool {
	for i := range c {
		if c[i] == 0 || i > 0 && cmp.Compare(c[i-1], c[i]) >= 0 {
			return false
		}
	}
	return true
}

func (h Holder) append(b []byte) []byte {
	return fields.AppendBytes(fields.AppendNumbers(b, uint64(h.Replica)), []byte(h.Node))
}

func (rep *Report) append(b []byte) []byte {
	b = fields.AppendNumbers(b, uint64(rep.Segment), uint64(rep.Generation))
	b = fields.AppendNumbers(rep.Holder.append(b), rep.Left.Term, rep.Left.Index, uint64(len(rep.Confs)))
	for _, c := range rep.Confs {
		b = fields.AppendNumbers(b, uint64(len(c)))
		for _, id := range c {
			b = fields.AppendNumbers(b, uint64(id))
		}
	}
	b = fields.AppendNumbers(b, uint64(len(rep.Holders)))
	for _, h := range rep.Holders {
		b = h.append(b)
	}
	return b
}

// Encode returns the report as it travels and stands in the log.
func (rep *Report) Encode() []byte { return rep.append([]byte{version}) }

// DecodeReport reads what Encode wrote, and nothing else.
func DecodeReport(b []byte) (Report, error) {
	r := reader{fields.Reader{Rest: b, Minimal: true}}
	r.version()
	rep := r.report()
	if err := r.end(); err != nil {
		return Report{}, err
	}
	return rep, rep.validate()
}

// Encode returns the stored form; nil for a record that knows of nothing.
func (r *Record) Encode() []byte {
	if r == nil || len(r.Cases) == 0 && len(r.Floors) == 0 {
		return nil
	}
	b := fields.AppendNumbers([]byte{version}, uint64(len(r.Cases)))
	for i := range r.Cases {
		c := &r.Cases[i]
		b = fields.AppendNumbers(b, uint64(c.Segment), uint64(len(c.Reports)))
		for j := range c.Reports {
			b = c.Reports[j].append(b)
		}
		b = c.Chosen.append(append(b, c.Entry[:]...))
	}
	b = fields.AppendNumbers(b, uint64(len(r.Floors)))
	for _, f := range r.Floors {
		b = fields.AppendNumbers(b, uint64(f.Segment), uint64(f.Generation))
	}
	return b
}

// Decode reads what Encode wrote, and refuses anything else.
func Decode(b []byte) (*Record, error) {
	if len(b) == 0 {
		return nil, nil
	}
	r := reader{fields.Reader{Rest: b, Minimal: true}}
	r.version()
	out := &Record{}
	for range r.AtMost(CasesMax) {
		c := Case{Segment: anchormesh.SegmentID(r.Number())}
		for range r.AtMost(ReportsMax) {
			c.Reports = append(c.Reports, r.report())
		}
		copy(c.Entry[:], r.Take(uint64(len(c.Entry))))
		c.Chosen = r.holder()
		out.Cases = append(out.Cases, c)
	}
	for range r.AtMost(FloorsMax) {
		out.Floors = append(out.Floors, Floor{anchormesh.SegmentID(r.Number()), anchormesh.Generation(r.Number())})
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if !bytes.Equal(out.Encode(), b) {
		return nil, fmt.Errorf("%w: not canonical", ErrMalformed)
	}
	return out, nil
}

// reader takes an encoding apart. After the first failure it returns zeros.
type reader struct{ fields.Reader }

func (r *reader) version() {
	if r.Byte() != version {
		r.Fail()
	}
}

func (r *reader) end() error {
	if !r.Whole() {
		return fmt.Errorf("%w: cut short, over a limit or of another version", ErrMalformed)
	}
	return nil
}

func (r *reader) holder() Holder {
	return Holder{anchormesh.ReplicaID(r.Number()), anchormesh.NodeID(r.BytesAtMost(nodeBytesMax))}
}

func (r *reader) report() Report {
	rep := Report{Segment: anchormesh.SegmentID(r.Number()), Generation: anchormesh.Generation(r.Number()), Holder: r.holder()}
	rep.Left = Position{r.Number(), r.Number()}
	for range r.AtMost(ConfsMax) {
		var c Conf
		for range r.AtMost(VotersMax) {
			c = append(c, anchormesh.ReplicaID(r.Number()))
		}
		rep.Confs = append(rep.Confs, c)
	}
	for range r.AtMost(VotersMax) {
		rep.Holders = append(rep.Holders, r.holder())
	}
	return rep
}
