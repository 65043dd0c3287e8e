package meshpb

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/anchormesh/anchormesh"
)

// Limits of a descriptor. They bound what one peer can make another hold.
const (
	// AnchorsMax leaves room for seven voters, their seven successors while a
	// configuration is joint, and some learners.
	AnchorsMax = 32
	// NodeIDBytesMax is far above the 52 characters of an ed25519 peer ID.
	NodeIDBytesMax = 128
	// ZoneBytesMax is the longest zone name that the configuration accepts.
	ZoneBytesMax = 64
)

// ValidateDescriptor checks the rules that every descriptor keeps: mesh and
// segment are named; the range is not empty and lies in the scope; anchors
// ascend by replica ID, none twice, no node twice, all below NextReplica; at
// least one votes. It returns ErrInvalid with the first rule broken.
func ValidateDescriptor(d *anchormesh.Descriptor) error {
	switch {
	case d.Mesh == 0:
		return fmt.Errorf("%w: no mesh ID", ErrInvalid)
	case d.Segment == 0:
		return fmt.Errorf("%w: no segment ID", ErrInvalid)
	case d.Range.Empty():
		return fmt.Errorf("%w: the range %v is empty", ErrInvalid, d.Range)
	case !anchormesh.PrefixRange(d.Scope).Covers(d.Range):
		return fmt.Errorf("%w: the range %v leaves the scope %q", ErrInvalid, d.Range, d.Scope)
	case !bytes.HasPrefix(d.Scope, d.Line):
		return fmt.Errorf("%w: the scope %q is not inside that of the line, %q", ErrInvalid, d.Scope, d.Line)
	case len(d.Anchors) > AnchorsMax:
		return fmt.Errorf("%w: %d anchors, at most %d", ErrInvalid, len(d.Anchors), AnchorsMax)
	}
	return validateAnchors(d)
}

func validateAnchors(d *anchormesh.Descriptor) error {
	last, voters := anchormesh.ReplicaID(0), 0
	seen := make(map[anchormesh.NodeID]bool, len(d.Anchors))
	for _, a := range d.Anchors {
		switch {
		case a.Node == "" || len(a.Node) > NodeIDBytesMax || !utf8.ValidString(string(a.Node)):
			return fmt.Errorf("%w: anchor %d has no usable node ID", ErrInvalid, a.Replica)
		case a.Replica == 0:
			return fmt.Errorf("%w: the anchor on node %s has replica ID 0", ErrInvalid, a.Node)
		case a.Replica <= last:
			return fmt.Errorf("%w: anchors are not in ascending order of replica IDs at %d", ErrInvalid, a.Replica)
		case a.Replica >= d.NextReplica:
			return fmt.Errorf("%w: replica %d is not below the next one, %d", ErrInvalid, a.Replica, d.NextReplica)
		case seen[a.Node]:
			return fmt.Errorf("%w: node %s is an anchor twice", ErrInvalid, a.Node)
		case a.Role != anchormesh.Voter && a.Role != anchormesh.Learner:
			return fmt.Errorf("%w: anchor %d has role %d", ErrInvalid, a.Replica, a.Role)
		case len(a.Zone) > ZoneBytesMax || !utf8.ValidString(a.Zone):
			return fmt.Errorf("%w: anchor %d has no usable zone", ErrInvalid, a.Replica)
		}
		if a.Role == anchormesh.Voter {
			voters++
		}
		last, seen[a.Node] = a.Replica, true
	}
	if voters == 0 {
		return fmt.Errorf("%w: no anchor votes", ErrInvalid)
	}
	return nil
}
