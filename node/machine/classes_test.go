package machine

import (
	"slices"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
)

// Structure and the parts of transactions over several segments are synced in light
// segments, too, behind a stamp as well; keys and leases are not.
func TestWhatMustLast(t *testing.T) {
	stamped := func(op keyspace.Op) []byte { return append(keyspace.AppendStamp(nil, 7), byte(op), 1) }
	for op, want := range map[keyspace.Op]bool{
		keyspace.OpPut: false, keyspace.OpDeleteRange: false, keyspace.OpTxn: false, keyspace.OpLeaseGrant: false, keyspace.OpLeaseOpen: false,
		keyspace.OpPrepare: true, keyspace.OpCommit: true, keyspace.OpAbort: true, keyspace.OpDecide: true, keyspace.OpForget: true, keyspace.OpLeaseEnd: true,
		OpSplit: true, OpWindow: true, OpFreeze: true, OpAdopt: true, OpVote: true, OpTrust: true, OpHardened: true,
	} {
		if got := MustLast([]byte{byte(op), 1}); got != want {
			t.Errorf("%v: %v, want %v", op, got, want)
		}
		if op < keyspace.OpStructural {
			if got := MustLast(stamped(op)); got != want {
				t.Errorf("%v behind a stamp: %v, want %v", op, got, want)
			}
		}
	}
	for _, b := range [][]byte{nil, {}, {byte(keyspace.OpStamped), 1}} {
		if !MustLast(b) {
			t.Errorf("%v cannot be told, and need not last", b)
		}
	}
}

// Writers wait for the acknowledgements of a policy, a group that mends itself does not.
func TestWhatWaitsForAcks(t *testing.T) {
	for op, want := range map[keyspace.Op]bool{
		keyspace.OpPut: true, keyspace.OpStamped: true, keyspace.OpCommit: true, OpApproved: true,
		OpSplit: false, OpWindow: false, OpAdopt: false, OpTrust: false, OpHardened: false,
	} {
		if got := Gated([]byte{byte(op)}); got != want {
			t.Errorf("%v: %v, want %v", op, got, want)
		}
	}
	all := policy.Acks{All: true}
	for _, c := range []struct {
		policy *policy.Policy
		want   consensus.Acks
	}{
		{nil, consensus.Acks{}},
		{&policy.Policy{Class: anchormesh.Strong}, consensus.Acks{}},
		{&policy.Policy{Class: anchormesh.Strong, Acks: all}, consensus.Acks{All: true}},
		{&policy.Policy{Class: anchormesh.Strong, Acks: policy.Acks{Count: 4}}, consensus.Acks{Count: 4}},
		{&policy.Policy{Class: anchormesh.Light, Acks: all}, consensus.Acks{}},
	} {
		s := &State{Descriptor: &anchormesh.Descriptor{}, Policy: c.policy}
		if c.policy != nil {
			s.Descriptor.Class = c.policy.Class
		}
		if got := s.Acks(); got != c.want {
			t.Errorf("%+v asks for %+v, want %+v", c.policy, got, c.want)
		}
	}
}

// A segment that is light no more waits for those who held a replica then, and for
// nobody who came or went since.
func TestWhoHasToHarden(t *testing.T) {
	anchors := func(ids ...anchormesh.ReplicaID) (out []anchormesh.Anchor) {
		for _, id := range ids {
			out = append(out, anchormesh.Anchor{Node: anchormesh.NodeID(rune('a' + id)), Replica: id, Role: anchormesh.Voter})
		}
		return out
	}
	s := &State{Descriptor: &anchormesh.Descriptor{Class: anchormesh.Normal, Anchors: anchors(1, 3, 4)}}
	s.reclass(anchormesh.Light)
	if s.Hardening() || !s.Light() {
		t.Errorf("%+v", s)
	}
	s.reclass(anchormesh.Strong)
	if !slices.Equal(s.Soft, []anchormesh.ReplicaID{1, 3, 4}) || s.Light() {
		t.Errorf("waits for %v", s.Soft)
	}
	s.Descriptor.Anchors = anchors(3, 4, 5)
	if got := s.stillSoft(); !slices.Equal(got, []anchormesh.ReplicaID{3, 4}) {
		t.Errorf("after a replacement it waits for %v", got)
	}
	s.reclass(anchormesh.Light)
	if s.Hardening() {
		t.Errorf("light again, it waits for %v", s.Soft)
	}
	if got, err := replicas(appendReplicas(nil, []anchormesh.ReplicaID{2, 9})); err != nil || !slices.Equal(got, []anchormesh.ReplicaID{2, 9}) {
		t.Errorf("read back %v, %v", got, err)
	}
	for _, bad := range [][]byte{{2, 2}, {3, 1}, {0x80}} {
		if got, err := replicas(bad); err == nil {
			t.Errorf("%v was read as %v", bad, got)
		}
	}
}
