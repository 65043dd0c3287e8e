package node

import (
	"errors"
	"time"

	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/entropy"
	"github.com/anchormesh/anchormesh/node/governor"
)

// Scopes returns what operators use, once the node serves.
func (n *Node) Scopes() (governor.Scopes, error) {
	a := n.serving.Load()
	if a == nil {
		return nil, errors.New("the node does not serve")
	}
	return a.governor, nil
}

// Rest makes a node join what has been dormant for seconds, where it else takes half
// an hour.
func (n *Node) Rest() {
	g := &n.governance
	n.cfg.Recruit.AutoMerge = true
	g.judge.MinAge, g.judge.SleepAfter, g.judge.MergeAfter, g.judge.Memory = time.Second, 2*time.Second, 3*time.Second, time.Second
	g.window, g.asleep, g.planEvery = 500*time.Millisecond, 500*time.Millisecond, 500*time.Millisecond
	g.pairing.Again, g.pairing.Settle = time.Second, time.Second
	g.pairing.Backoff = place.Backoff{Base: time.Second, Max: 4 * time.Second}
	g.place.Settle, g.place.DeclinedFor = time.Second, time.Second
}

// Hurry makes a node judge and place within seconds what else takes minutes.
func (n *Node) Hurry(judge func(*entropy.Config), placing func(*place.Config)) {
	g := &n.governance
	n.cfg.Recruit.AutoSplit = true
	judge(&g.judge)
	placing(&g.place)
	g.window, g.planEvery = 500*time.Millisecond, 500*time.Millisecond
	g.recruit.RetryAfter = 2 * time.Second
}
