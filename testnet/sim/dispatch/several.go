package dispatch

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/testnet/check"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/txns"
)

// several answers a call whose keys are in several segments of one scope.
func (p *dispatcher) several(c *Call, done func([]byte, error)) {
	parts, whole := p.Table.Covering(c.keys)
	switch {
	case !whole:
		done(nil, node.ErrRetry)
		return
	case c.Op.Kind != check.Range:
		c.giveUp = txns.At(p.Process).Do(txns.Request{Kind: c.Op.Kind, Raw: c.raw, Command: c.Command(), Keys: c.keys, Again: c.try > 0}, done)
		return
	}
	var q codec.RangeRequest
	if err := codec.ParseRange(c.raw, &q); err != nil {
		done(nil, err)
		return
	}
	p.lines.Ask(parts[0].Line, func(at anchormesh.Revision, err error) {
		switch {
		case err != nil:
			done(nil, lineFailed(err))
		case q.Revision > at:
			done(nil, keyspace.ErrFutureRev)
		default:
			p.rangeOver(parts, q, at, c.try, done)
		}
	})
}

// rangeOver reads all parts at one revision of the scope's line.
func (p *dispatcher) rangeOver(parts []*anchormesh.Descriptor, q codec.RangeRequest, at anchormesh.Revision, try int, done func([]byte, error)) {
	merge := codec.NewRangeMerge(q)
	answers, left, over := make([][]byte, len(parts)), len(parts), false
	p.Mesh.Stats.Wide++
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
			done(merge.Finish(codec.Header{ClusterID: uint64(node.MeshID), Revision: at}).Bytes(), nil)
		}
		if r := p.Host.Held[desc.Segment]; r != nil {
			p.readHere(r, desc, req, end)
		} else {
			p.forward(desc, req, p.anchor(desc, try), new(bool), end)
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
