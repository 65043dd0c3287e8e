package node

import (
	"context"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/node/charter"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/host"
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
		Number: a.lines.Number,
		Recover: func(id anchormesh.SegmentID, how host.Order) (*anchormesh.Descriptor, error) {
			d, err := a.host.Recover(id, how)
			if err == nil {
				a.proofs.Changed(id)
				a.exchange.Announce(id)
			}
			return d, err
		},
		Listener: governor.Listener(a.metrics.Governing()), Compile: machine.CompileRule,
	}, a.host, a.engine, a.table, a.mesh)
}

// newCharter makes what shows scopes to operators and takes their orders.
func (n *Node) newCharter(a *assembly) *charter.Service {
	return charter.New(charter.Config{
		Scopes: a.governor, Mesh: a.mesh, Peers: a.peers, Host: a.host, Engine: a.engine, Table: a.table, Compile: machine.CompileRule,
		Nodes: func() []place.Node { return a.steward.Nodes(time.Now()) },
	})
}
