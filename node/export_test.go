package node

import (
	"time"

	"github.com/anchormesh/anchormesh/anchors/place"
	"github.com/anchormesh/anchormesh/entropy"
)

// Hurry makes a node judge and place within seconds what else takes minutes.
func (n *Node) Hurry(judge func(*entropy.Config), placing func(*place.Config)) {
	g := &n.governance
	n.cfg.Recruit.AutoSplit = true
	judge(&g.judge)
	placing(&g.place)
	g.window, g.planEvery = 500*time.Millisecond, 500*time.Millisecond
	g.recruit.RetryAfter = 2 * time.Second
}
