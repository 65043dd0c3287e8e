package dispatch

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/node/route"
)

// network is who is connected, and who could be.
type network struct {
	connected, reachable map[anchormesh.NodeID]bool
}

func (n network) Call(context.Context, anchormesh.NodeID, uint8, ...[]byte) ([]byte, error) {
	return nil, errors.New("not called here")
}
func (n network) Connected(id anchormesh.NodeID) bool { return n.connected[id] }
func (n network) Connect(ctx context.Context, id anchormesh.NodeID) error {
	if n.reachable[id] {
		return nil
	}
	<-ctx.Done() // a host that does not even refuse
	return ctx.Err()
}

// A node that holds no anchor and is connected to a follower only must dial the
// leader that the follower names; one that does not answer costs a moment, once.
func TestALeaderThatWasHeardOfIsDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		desc := &anchormesh.Descriptor{Segment: 1, Generation: 1, Anchors: []anchormesh.Anchor{
			{Node: "leader", Replica: 1, Role: anchormesh.Voter}, {Node: "follower", Replica: 2, Role: anchormesh.Voter},
		}}
		links := network{connected: map[anchormesh.NodeID]bool{"follower": true}, reachable: map[anchormesh.NodeID]bool{"leader": true}}
		table := route.NewTable()
		table.Learn(desc)
		d := &Dispatcher{self: "me", table: table, caller: links}
		if to := d.anchor(t.Context(), desc, 0); to != "follower" {
			t.Errorf("without a leader known %q is asked", to)
		}
		table.SetLeader(1, "leader")
		for try := range 3 {
			if to := d.anchor(t.Context(), desc, try); to != "leader" {
				t.Errorf("try %d goes to %q", try, to)
			}
		}
		delete(links.reachable, "leader")
		begin := time.Now()
		if to := d.anchor(t.Context(), desc, 0); to != "follower" || time.Since(begin) != dialWait {
			t.Errorf("with a silent leader %q is asked after %v", to, time.Since(begin))
		}
		if to := d.anchor(t.Context(), desc, 1); to != "follower" || time.Since(begin) != dialWait {
			t.Errorf("then %q is asked after %v", to, time.Since(begin))
		}
	})
}
