package node

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/approvals"
)

// consent is how anchors agree to writes.
type consent struct {
	verifier  *approvals.Verifier
	approvals *approvals.Approvals
}

// newApprovals connects the approvals of writes to the replicas of this node.
func (n *Node) newApprovals(a *assembly) *approvals.Approvals {
	core := approval.DefaultConfig()
	core.Patience = 2 * n.cfg.Raft.Election
	return approvals.New(approvals.Config{
		Self: a.mesh.Self().ID, Sign: a.identity.Sign, Verifier: a.verifier, Core: core, Logger: n.log,
	}, a.host, a.engine, a.lines, a.mesh)
}

// forged follows approved batches that came with votes nobody gave.
func (n *Node) forged(segment anchormesh.SegmentID, term uint64, err error) {
	n.log.Error("an entry with forged approvals was refused", "segment", segment, "term", term, "err", err)
}

// newVerifier checks signatures of nodes.
func newVerifier() *approvals.Verifier { return approvals.NewVerifier(wire.SignedBy) }
