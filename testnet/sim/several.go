package sim

import (
	"bytes"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/testnet/check"
)

// several answers a call whose keys are in several segments of one scope: ranges only.
func (p *process) several(c *call, done func([]byte, error)) {
	parts, whole := p.table.Covering(c.keys)
	switch {
	case !whole:
		done(nil, errRetry)
		return
	case c.op.Kind != check.Range:
		done(nil, errSpans)
		return
	}
	var q codec.RangeRequest
	if err := codec.ParseRange(c.raw, &q); err != nil {
		done(nil, err)
		return
	}
	p.lines.ask(parts[0].Line, func(at anchormesh.Revision, err error) {
		switch {
		case err != nil:
			done(nil, lineFailed(err))
		case q.Revision > at:
			done(nil, keyspace.ErrFutureRev)
		default:
			p.rangeOver(parts, q, at, done)
		}
	})
}

// rangeOver reads all parts at one revision of the scope's line.
func (p *process) rangeOver(parts []*anchormesh.Descriptor, q codec.RangeRequest, at anchormesh.Revision, done func([]byte, error)) {
	merge := codec.NewRangeMerge(q)
	answers, left, over := make([][]byte, len(parts)), len(parts), false
	p.mesh.stats.Wide++
	for i, desc := range parts {
		part := merge.Part()
		part.Serializable = false
		clip(&part, desc.Range)
		req := &request{raw: codec.AppendRange(nil, &part), at: at}
		end := func(_ uint64, resp []byte, err error) {
			if over {
				return
			}
			if answers[i] = resp; err != nil {
				over = true
				done(nil, err)
				return
			}
			if left--; left > 0 {
				return
			}
			over = true
			for _, a := range answers {
				if err := merge.Add(codec.Chunks{a}); err != nil {
					done(nil, err)
					return
				}
			}
			done(merge.Finish(codec.Header{ClusterID: uint64(meshID), Revision: at}).Bytes(), nil)
		}
		if r := p.host.held[desc.Segment]; r != nil {
			p.readHere(r, desc, req, end)
		} else {
			p.forward(desc, req, p.anchor(desc, 0), new(bool), end)
		}
	}
}

// clip cuts a range request to the keys of a segment.
func clip(q *codec.RangeRequest, to anchormesh.KeyRange) {
	keys := anchormesh.RequestRange(q.Key, q.RangeEnd).Intersect(to)
	q.Key, q.RangeEnd = keys.Start, keys.End
	if len(q.Key) == 0 {
		q.Key = []byte{0}
	}
	if len(q.RangeEnd) == 0 {
		q.RangeEnd = []byte{0}
	}
}

// compactScope compacts every segment of a scope that was split, the home at last.
func (p *process) compactScope(scope anchormesh.KeyRange) {
	parts, whole := p.table.Covering(scope)
	if !whole || !bytes.Equal(parts[0].Range.Start, scope.Start) {
		return
	}
	slices.Reverse(parts)
	p.lines.ask(parts[0].Line, func(at anchormesh.Revision, err error) {
		if rev := at - p.rng.Int64N(20); err == nil && rev > 1 {
			p.compactParts(parts, &request{op: keyspace.OpCompact, raw: marshal(compaction(rev)), at: at})
		}
	})
}

func (p *process) compactParts(parts []*anchormesh.Descriptor, req *request) {
	if len(parts) == 0 {
		return
	}
	p.lines.barrier(parts[0], req.at, func(_ uint64, err error) {
		if err != nil {
			return
		}
		p.toSegment(parts[0], req, 0, new(bool), func(uint64, []byte, error) { p.compactParts(parts[1:], req) })
	})
}
