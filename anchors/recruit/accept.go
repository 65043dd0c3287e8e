package recruit

import (
	"fmt"

	"github.com/anchormesh/anchormesh"
)

// Invitation is what a leader sends to a node.
type Invitation struct {
	Mesh       anchormesh.MeshID
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	From       anchormesh.NodeID
	Bytes      int64 // size of the segment's state
}

// Load is how a node stands when it is asked. Limits that are 0 are none.
type Load struct {
	Mesh          anchormesh.MeshID
	Leaving       bool // the node is being taken out of the mesh
	Replicas      int
	ReplicasMax   int
	Installing    int // replicas being installed now
	InstallingMax int
	FreeBytes     int64 // on the disk of the data directory
	ReserveBytes  int64 // to be left free
}

// Accept decides whether a node takes a replica. The reason is one sentence for
// the inviter's log; it is empty if ok.
func Accept(l Load, inv Invitation) (ok bool, reason string) {
	switch {
	case inv.Mesh != l.Mesh:
		return false, fmt.Sprintf("the invitation is for mesh %v, this node is in %v", inv.Mesh, l.Mesh)
	case l.Leaving:
		return false, "the node is leaving"
	case l.ReplicasMax > 0 && l.Replicas >= l.ReplicasMax:
		return false, fmt.Sprintf("the node holds %d replicas, its limit", l.Replicas)
	case l.InstallingMax > 0 && l.Installing >= l.InstallingMax:
		return false, fmt.Sprintf("the node is installing %d replicas, its limit", l.Installing)
	case l.FreeBytes-inv.Bytes < l.ReserveBytes:
		return false, fmt.Sprintf("the node has %d bytes free, the segment takes %d and %d are to stay free",
			l.FreeBytes, inv.Bytes, l.ReserveBytes)
	}
	return true, ""
}
