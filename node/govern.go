package node

import (
	"context"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/machine"
)

// newGovernor makes what lets scopes govern themselves.
func (n *Node) newGovernor(a *assembly) *governor.Governor {
	return governor.New(governor.Config{
		Self: a.mesh.Self().ID, Logger: n.log, Sign: a.identity.Sign,
		Split: func(ctx context.Context, id anchormesh.SegmentID, at []byte, why lineage.Evidence) error {
			_, err := a.steward.Split(ctx, id, at, why, false)
			return err
		},
		Group: a.group, Proof: func(_ anchormesh.SegmentID, entry anchormesh.Hash) *lineage.Proof { return a.proofs.Proof(entry) },
		Listener: governor.Listener{}, Compile: machine.CompileRule,
	}, a.host, a.engine, a.table, a.mesh)
}
