package node

import (
	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh/wire"
	"github.com/anchormesh/anchormesh/node/proofs"
)

// newProofs makes the keeper of what proves the lineages of the replicas here.
func (n *Node) newProofs(a *assembly) *proofs.Keeper {
	return proofs.New(proofs.Config{
		Key:   proofs.Key{Self: a.identity.NodeID(), Sign: a.identity.Sign, Verify: wire.SignedBy},
		Files: fsys.OS, Dir: a.dir.Path(), Logger: n.log,
	}, lineages{a}, a.mesh)
}

// lineages tells of the replicas here.
type lineages struct{ *assembly }

// Segments implements proofs.Replicas.
func (l lineages) Segments() []anchormesh.SegmentID { return l.host.Segments() }

// Lineage implements proofs.Replicas.
func (l lineages) Lineage(id anchormesh.SegmentID) (proofs.Replica, bool) {
	r, ok := l.host.Get(id)
	if !ok {
		return proofs.Replica{}, false
	}
	st, ok := l.engine.Status(id)
	return proofs.Replica{Chain: r.Machine.State().Chain, Since: r.Since, Leads: ok && st.Leads()}, true
}
