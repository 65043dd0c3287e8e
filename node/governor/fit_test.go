package governor

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/scope"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

// What holds the keys of a new scope may be changing: each reason names the segment and
// the prefix, passes, and is no ground to vote against it.
func TestWhyNoScopeCanBeMadeNow(t *testing.T) {
	for what, c := range map[string]struct {
		group  func() (degraded, changing bool)
		change func(*anchormesh.Descriptor)
		why    string
	}{
		"joint": {why: "is changing", change: func(d *anchormesh.Descriptor) { d.Joint = true }},
		"learning": {why: "is still learning", change: func(d *anchormesh.Descriptor) {
			d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: "b", Replica: d.NextReplica, Role: anchormesh.Learner})
			d.NextReplica++
		}},
		"degraded": {why: "is degraded or changing", group: func() (bool, bool) { return true, false }},
		"changing": {why: "is degraded or changing", group: func() (bool, bool) { return false, true }},
		"well":     {},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
				if err := n.Host.Genesis(1, 7, "east", 3); err != nil {
					t.Fatal(err)
				}
				n.Put(7, "k", "v")
				g := &Governor{host: n.Host, engine: n.Engine, table: n.Table}
				g.cfg.Group = func(anchormesh.SegmentID) (bool, bool) {
					if c.group == nil {
						return false, false
					}
					return c.group()
				}
				if c.change != nil {
					d, _ := n.Table.Segment(7)
					d = d.Clone()
					d.Changed++
					c.change(d)
					n.Table.Learn(d)
				}
				err := g.Fit(t.Context(), []byte("/s/"))
				if c.why == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !errors.Is(err, ErrNotNow) || errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.why) ||
					!strings.Contains(err.Error(), "segment 0000000000000007") || !strings.Contains(err.Error(), `"/s/"`) {
					t.Errorf("%v", err)
				}
			})
		})
	}
	if err := outcome(scope.ErrBusy); !errors.Is(err, ErrNotNow) {
		t.Errorf("a home that carries something out: %v", err)
	}
}
