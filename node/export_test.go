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

// Hurry makes a node judge and place within seconds what else takes minutes.
func (n *Node) Hurry(judge func(*entropy.Config), placing func(*place.Config)) {
	g := &n.governance
	n.cfg.Recruit.AutoSplit = true
	judge(&g.judge)
	placing(&g.place)
	g.window, g.planEvery = 500*time.Millisecond, 500*time.Millisecond
	g.recruit.RetryAfter = 2 * time.Second
}
