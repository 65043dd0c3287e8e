package node

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/approvals"
	"github.com/anchormesh/anchormesh/node/trust"
)

// consent is how anchors agree to writes, and how much each of them counts.
type consent struct {
	verifier  *approvals.Verifier
	approvals *approvals.Approvals
	trust     *trust.Keeper
}

// newTrust connects the ledgers' keeper to the replicas of this node.
func (n *Node) newTrust(a *assembly) *trust.Keeper {
	cfg := n.governance.trust
	cfg.Self, cfg.Sign, cfg.Verify, cfg.Logger = a.mesh.Self().ID, a.identity.Sign, a.verifier.Verify, n.log
	count := a.metrics.Consent()
	cfg.Listener = trust.Listener{
		Weighed: func(_ anchormesh.SegmentID, from, to uint32) { count.Weighed(to > from) },
		Differs: func(anchormesh.SegmentID, anchormesh.NodeID) { count.Differs() },
	}
	return trust.New(cfg, a.host, a.engine, a.mesh)
}

// newApprovals connects the approvals of writes to the replicas of this node.
func (n *Node) newApprovals(a *assembly) *approvals.Approvals {
	core := approval.DefaultConfig()
	core.Patience = 2 * n.cfg.Raft.Election
	count := a.metrics.Consent()
	return approvals.New(approvals.Config{
		Self: a.mesh.Self().ID, Sign: a.identity.Sign, Verifier: a.verifier, Core: core, Logger: n.log,
		Listener: approvals.Listener{
			Decided: count.Decided, Thrown: count.Thrown, Voted: count.Voted,
			Invalid: func(id anchormesh.SegmentID, node anchormesh.NodeID) {
				count.Invalid()
				a.trust.Invalid(id, node)
			},
		},
	}, a.host, a.engine, a.lines, a.mesh)
}

// forged follows approved batches that came with votes nobody gave: whoever led then has
// proposed them.
func (n *Node) forged(a *assembly, segment anchormesh.SegmentID, term uint64, err error) {
	st, ok := a.engine.Status(segment)
	n.log.Error("an entry with forged approvals was refused", "segment", segment, "term", term, "leader", st.Leader.Short(), "err", err)
	a.metrics.Consent().Invalid()
	if ok && st.Term == term && st.Leader != a.mesh.Self().ID {
		a.trust.Invalid(segment, st.Leader)
	}
}

// newVerifier checks signatures of nodes.
func newVerifier() *approvals.Verifier { return approvals.NewVerifier(wire.SignedBy) }
