package policy

import "github.com/anchormesh/anchormesh"

// Presets are the names of policies to start from.
var Presets = []string{"ephemeral", "standard", "critical"}

// Preset returns the policy of that name; false if there is none.
func Preset(name string) (*Policy, bool) {
	switch name {
	case "ephemeral":
		return Ephemeral(), true
	case "standard":
		return Standard(), true
	case "critical":
		return Critical(), true
	}
	return nil, false
}

// Ephemeral is for what may be lost when a majority's machines stop at once, and
// goes away by itself: events, heartbeats, presence. Every key hangs on a lease.
func Ephemeral() *Policy {
	return &Policy{
		Class:     anchormesh.Light,
		Anchors:   Anchors{Count: 3},
		Writes:    Writes{TTLRequired: true},
		Priority:  3,
		Retention: Retention{Seconds: 600},
	}
}

// Standard is etcd's contract, and what a mesh begins with.
func Standard() *Policy {
	return &Policy{Class: anchormesh.Normal, Anchors: Anchors{Count: 3}}
}

// Critical is for what must neither be lost nor changed by one node's mistake:
// secrets, configuration. A write is approved by the anchors before it is
// proposed, and on the disks of four of five before it is answered. Scopes inside
// may only be stricter.
func Critical() *Policy {
	return &Policy{
		Class:     anchormesh.Strong,
		Anchors:   Anchors{Count: 5},
		Acks:      Acks{Count: 4},
		Approvals: Approvals{Threshold: Fraction{1, 2}},
		Amend:     Amend{Threshold: Fraction{3, 5}},
		Priority:  8,
		Binding:   []string{"acks", "amend.threshold", "anchors.count", "approvals.threshold", "class"},
	}
}
