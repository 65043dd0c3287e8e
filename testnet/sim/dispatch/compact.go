package dispatch

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"bytes"
	"slices"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/plan"
	"github.com/anchormesh/anchormesh/testnet/sim/wire"
)

// compactScope compacts every segment of a scope that was split, the home at last.
func (p *dispatcher) compactScope(scope anchormesh.KeyRange) {
	parts, whole := p.Table.Covering(scope)
	if !whole || !bytes.Equal(parts[0].Range.Start, scope.Start) {
		return
	}
	slices.Reverse(parts)
	p.lines.Ask(parts[0].Line, func(at anchormesh.Revision, err error) {
		if rev := at - p.Rng.Int64N(20); err == nil && rev > 1 {
			p.compactParts(parts, &request{op: keyspace.OpCompact, raw: wire.Marshal(compaction(rev)), at: at})
		}
	})
}

func (p *dispatcher) compactParts(parts []*anchormesh.Descriptor, req *request) {
	if len(parts) == 0 {
		return
	}
	p.lines.Barrier(parts[0], req.at, func(_ uint64, err error) {
		if err != nil {
			return
		}
		p.toSegment(parts[0], req, 0, new(bool), func(uint64, []byte, error) { p.compactParts(parts[1:], req) })
	})
}

// CompactSome proposes to compact a segment that this node leads.
func (p *dispatcher) CompactSome() {
	for _, r := range p.Host.Sorted() {
		d := r.Machine.Descriptor()
		g := p.Groups[d.Segment]
		if g == nil || !g.Leads() || d.Stamped {
			continue
		}
		current, _ := r.Machine.Segment().Revision()
		rev := current - p.Rng.Int64N(20)
		if rev > 1 {
			p.Propose(d.Segment, d.Generation, keyspace.AppendCommand(nil, keyspace.OpCompact, wire.Marshal(compaction(rev))), func(consensus.Result) {})
		}
	}
	if s := plan.Pick(p.Rng, p.Mesh.Segments...); p.Mesh.SplitLines[node.LineOf(s.ID)] {
		p.compactScope(s.Rng)
	}
}

func compaction(rev int64) wire.ProtoMessage { return &pb.CompactionRequest{Revision: rev} }
