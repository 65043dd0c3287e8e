package node

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"time"

	"github.com/anchormesh/anchormesh"
)

// follow keeps the node in its mesh: it creates the mesh if it is told to,
// adopts the mesh it meets, and looks at the anchor groups when nodes come or
// go. It ends with ctx.
func (n *Node) follow(ctx context.Context, a *assembly) error {
	if n.cfg.Mesh.Genesis {
		if err := n.genesis(a); err != nil {
			return err
		}
	}
	views := a.mesh.Subscribe()
	remind := time.NewTicker(remindInterval)
	defer remind.Stop()
	for {
		n.adopt(a)
		select {
		case <-ctx.Done():
			return nil
		case <-views:
			a.steward.Kick()
		case <-remind.C:
			if a.host.Mesh() == 0 {
				n.log.Warn("this node belongs to no mesh yet: start one node with --genesis and name any node of the mesh with --join")
			}
		}
	}
}

// remindInterval is how often a node without a mesh says so.
const remindInterval = 30 * time.Second

// genesis creates the mesh, once; in a directory that knows a mesh it only
// finishes what a crash may have left.
func (n *Node) genesis(a *assembly) error {
	rec := a.dir.Record()
	if rec.Mesh != 0 && rec.Genesis == 0 {
		return nil // this node joined a mesh before
	}
	id, segment := rec.Mesh, rec.Genesis
	if id == 0 {
		id, segment = anchormesh.MeshID(randomID()), anchormesh.SegmentID(randomID())
		n.log.Info("genesis: a new mesh", "mesh", id, "segment", segment)
	}
	if err := a.host.Genesis(id, segment, n.cfg.Identity.Zone, int(n.cfg.Recruit.Anchors)); err != nil {
		return err
	}
	return a.mesh.SetMeshID(id)
}

// randomID returns a random number that is not zero.
func randomID() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails: see crypto/rand
		if id := binary.BigEndian.Uint64(b[:]); id != 0 {
			return id
		}
	}
}

// adopt makes this node a member of the one mesh it has met.
func (n *Node) adopt(a *assembly) {
	if a.host.Mesh() != 0 || n.cfg.Mesh.Genesis {
		return
	}
	ids := a.mesh.MeshIDs()
	if len(ids) > 1 {
		n.log.Error("nodes of several meshes use this mesh key; this node joins none until one is left", "meshes", ids)
	}
	if len(ids) != 1 {
		return
	}
	if err := a.host.JoinMesh(ids[0]); err != nil {
		n.log.Error("the mesh cannot be joined", "mesh", ids[0], "err", err)
		return
	}
	n.log.Info("joined a mesh", "mesh", ids[0])
	if err := a.mesh.SetMeshID(ids[0]); err != nil {
		n.log.Error("the mesh cannot be announced", "err", err)
	}
}
