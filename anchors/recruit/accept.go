package recruit

import (
	"fmt"
	"maps"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Invitation is what a leader sends to a node.
type Invitation struct {
	Mesh       anchormesh.MeshID
	Segment    anchormesh.SegmentID
	Generation anchormesh.Generation
	From       anchormesh.NodeID
	Bytes      int64 // size of the segment's state
	// Optional: the replica comes for balance, so the node's share counts.
	Optional bool
}

// Load is how a node stands when it is asked. Limits that are 0 are none.
type Load struct {
	Mesh          anchormesh.MeshID
	Leaving       bool // the node is being taken out of the mesh
	Replicas      int  // those being installed included
	ReplicasMax   int
	Installing    int   // replicas being installed now
	Promised      int   // accepted for other segments, and not here yet
	InstallingMax int   // of both together
	Even          int   // an even share of the mesh's replicas, as far as this node knows
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
	case l.ReplicasMax > 0 && l.Replicas+l.Promised >= l.ReplicasMax:
		return false, fmt.Sprintf("the node holds %d replicas, its limit", l.Replicas+l.Promised)
	case l.InstallingMax > 0 && l.Installing+l.Promised >= l.InstallingMax:
		return false, fmt.Sprintf("the node is installing %d replicas, its limit", l.Installing+l.Promised)
	case inv.Optional && l.Even > 0 && l.Replicas+l.Promised >= l.Even:
		return false, fmt.Sprintf("the node holds %d replicas, and an even share is %d", l.Replicas+l.Promised, l.Even)
	case l.FreeBytes-inv.Bytes < l.ReserveBytes:
		return false, fmt.Sprintf("the node has %d bytes free, the segment takes %d and %d are to stay free",
			l.FreeBytes, inv.Bytes, l.ReserveBytes)
	}
	return true, ""
}

// Promises are the invitations that a node accepted and whose replicas have not
// come yet. Without them a node that many leaders invite at once would accept all
// of them, because none is being installed yet. They are as many as Accept allows.
type Promises struct {
	until map[anchormesh.SegmentID]time.Time
}

// Give notes that the segment's invitation was accepted; the promise ends at until.
func (p *Promises) Give(segment anchormesh.SegmentID, until time.Time) {
	if p.until == nil {
		p.until = make(map[anchormesh.SegmentID]time.Time)
	}
	p.until[segment] = until
}

// Count is how many are open to segments other than this one, which may be asked
// for again; held says whether a replica has come.
func (p *Promises) Count(now time.Time, segment anchormesh.SegmentID, held func(anchormesh.SegmentID) bool) int {
	maps.DeleteFunc(p.until, func(s anchormesh.SegmentID, until time.Time) bool { return !now.Before(until) || held(s) })
	n := len(p.until)
	if _, ok := p.until[segment]; ok {
		n--
	}
	return n
}
