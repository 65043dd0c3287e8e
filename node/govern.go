package node

import (
	"context"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/node/admin"
	"github.com/anchormesh/anchormesh/node/charter"
	"github.com/anchormesh/anchormesh/node/governor"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// newGovernor makes what lets scopes govern themselves.
func (n *Node) newGovernor(a *assembly) *governor.Governor {
	return governor.New(governor.Config{
		Self: a.mesh.Self().ID, Logger: n.log, Sign: a.identity.Sign,
		Split: a.steward.SplitBy,
		Merge: func(ctx context.Context, left anchormesh.SegmentID, by *machine.Decision) error {
			_, err := a.merger.MergeBy(ctx, left, by)
			return err
		},
		CanMerge: func(ctx context.Context, left anchormesh.SegmentID) error {
			_, err := a.merger.Merge(ctx, left, lineage.Evidence{Reason: lineage.Operator}, true)
			return err
		},
		Move:  a.steward.Move,
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

// orderKinds are the orders that operators vote on, where they vote.
var orderKinds = map[string]scope.Kind{"split": scope.Split, "merge": scope.Merge, "move": scope.Move}

// ordered puts an order to the vote if operators vote in the segment's scope.
func (a *assembly) ordered(ctx context.Context, o admin.Order) (prefix []byte, id uint64, wanted bool, err error) {
	if !a.governor.Manual(o.Segment) {
		return nil, 0, false, nil
	}
	r, err := a.governor.Propose(ctx, governor.Change{
		Kind: orderKinds[o.Kind], Segment: o.Segment, Key: o.Key, From: o.From, To: o.To, Operator: o.Operator,
	})
	return r.Scope, r.ID, true, charter.Fault(err)
}

// newCharter makes what shows scopes to operators and takes their orders.
func (n *Node) newCharter(a *assembly) *charter.Service {
	return charter.New(charter.Config{
		Scopes: a.governor, Mesh: a.mesh, Peers: a.peers, Host: a.host, Engine: a.engine, Table: a.table, Compile: machine.CompileRule,
		Nodes: func() []place.Node { return a.steward.Nodes(time.Now()) },
	})
}
