package turns

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/fields"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/keyspace/line"
	"github.com/anchormesh/anchormesh/node/machine"
)

var errMalformed = errors.New("malformed message about a hand-over of a line")

// Kinds of answers.
const (
	answerRange = 0
	answerStale = 1
)

// wish asks the leader of a segment to adopt, and returns the range that has; nil if
// there is fresher news of where it is.
func (x *Turns) wish(ctx context.Context, d *anchormesh.Descriptor, t *machine.Turn, a *machine.Switching) (*anchormesh.KeyRange, error) {
	if a == nil {
		a = &machine.Switching{}
	}
	answer, err := x.lines.AskAdopt(ctx, d, append(fields.AppendBytes(nil, t.From), machine.Switch(a)[1:]...))
	if err != nil {
		return nil, err
	}
	if len(answer) == 0 {
		return nil, errMalformed
	}
	switch rest := answer[1:]; answer[0] {
	case answerRange:
		start, rest, ok := cutBytes(rest)
		end, rest, also := cutBytes(rest)
		if !ok || !also || len(rest) > 0 {
			return nil, errMalformed
		}
		return &anchormesh.KeyRange{Start: start, End: end}, nil
	case answerStale:
		fresh, err := meshpb.DecodeDescriptor(rest)
		if err == nil {
			x.table.Learn(fresh)
		}
		return nil, err
	}
	return nil, errMalformed
}

// Adopt is the stamps.Adopter of this node.
func (x *Turns) Adopt(segment anchormesh.SegmentID, generation anchormesh.Generation, wish []byte, done func([]byte, error)) {
	from, rest, ok := cutBytes(wish)
	a, err := machine.ParseSwitching(rest)
	if !ok || err != nil {
		done(nil, errMalformed)
		return
	}
	st, leads := x.engine.Status(segment)
	r, here := x.host.Get(segment)
	if !here || !leads || !st.Leads() {
		done(nil, line.ErrNotLeader)
		return
	}
	x.engine.ReadIndex(segment, func(_ uint64, err error) {
		s := r.Machine.State()
		d := s.Descriptor
		switch {
		case err != nil:
			done(nil, line.ErrRound)
		case d.Generation != generation:
			done(append([]byte{answerStale}, meshpb.EncodeDescriptor(d)...), nil)
		case a.Number == 0, s.Turn.By == a.By && s.Turn.Number >= a.Number,
			!bytes.Equal(d.Line, from) && !bytes.Equal(d.Line, a.Line):
			done(answerOf(d), nil)
		default:
			x.engine.Submit(segment, consensus.Proposal{
				Generation: generation, Term: st.Term, Alone: true, Payload: machine.Switch(a),
				Done: func(res consensus.Result) { done(answerOf(d), res.Err) },
			})
		}
	})
}

func answerOf(d *anchormesh.Descriptor) []byte {
	return fields.AppendBytes(fields.AppendBytes([]byte{answerRange}, d.Range.Start), d.Range.End)
}

func cutBytes(b []byte) (v, rest []byte, ok bool) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, false
	}
	return b[k : k+int(n) : k+int(n)], b[k+int(n):], true
}
