package host_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/keeper"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
)

// All machines of a light segment lose power. What its replicas report lets a keeper give
// it up, and it begins anew on the one with the most, although that is forgetful itself:
// with all that was on disk a second before, above all old revisions, and for good. Who
// has less refuses.
func TestALightSegmentBeginsAnewFromTheDisks(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) {
			net, disks := meshtest.NewNetwork(1), threeDisks(t)
			nodes := group(t, disks, net)
			amend(t, nodes[0], anchormesh.Light)
			hosttest.Eventually(t, time.Minute, "all to acknowledge from memory", func() bool {
				open(nodes[0])
				return nodes[0].Log.Group(segment).Memory() && nodes[1].Log.Group(segment).Memory() && nodes[2].Log.Group(segment).Memory()
			})
			nodes[0].Put(segment, "early", "v")
			hosttest.Eventually(t, time.Minute, "the early write everywhere", func() bool {
				_, b := nodes[1].Get(segment, "early")
				_, c := nodes[2].Get(segment, "early")
				return b && c
			})
			<-time.After(2 * time.Second) // and that to be on disk
			for k := range 50 {
				nodes[0].Put(segment, fmt.Sprint("late", k), "v")
			}
			r, _ := nodes[0].Host.Get(segment)
			last, _ := r.Machine.Segment().Revision()
			for i, n := range nodes {
				disks[i] = disks[i].PowerCut(seed + uint64(i))
				n.Stop()
			}
			var record *keeper.Record
			lost := false
			for i, id := range []anchormesh.NodeID{"a", "b", "c"} {
				nodes[i] = hosttest.Start(t, disks[i], net, id)
				f := nodes[i].Host.Forgotten()
				if len(f) != 1 {
					t.Fatalf("seed %d: %d forgotten on %s", seed, len(f), id)
				}
				rep, err := nodes[i].Host.Obituary(f[0])
				must(t, err)
				if lost {
					continue
				}
				record, lost, err = record.Report(rep)
				must(t, err)
				if lost != (i == 1) {
					t.Fatalf("seed %d: lost %v with report %d", seed, lost, i+1)
				}
			}
			c, _ := record.Case(segment)
			order := host.Order{
				Rule: lineage.Rule{Decision: anchormesh.Hash{1}}, Why: lineage.Evidence{Reason: lineage.Recovery, Operator: machine.KeeperOperator},
				Generation: c.Generation(), Least: c.Best().Left,
			}
			chosen := 0
			for i, n := range nodes {
				_, has, ok := n.Host.Reach(segment)
				if !ok {
					t.Fatalf("seed %d: nothing is left on node %d", seed, i)
				}
				if has.Less(order.Least) {
					if _, err := n.Host.Recover(segment, order); !errors.Is(err, machine.ErrRefused) {
						t.Fatalf("seed %d: %v has less than %v, and begins anew: %v", seed, has, order.Least, err)
					}
					continue
				}
				chosen = i
			}
			n := nodes[chosen]
			d, err := n.Host.Recover(segment, order)
			must(t, err)
			if again, err := n.Host.Recover(segment, order); err != nil || again.Generation != d.Generation {
				t.Errorf("seed %d: the order again: %v, %v", seed, again, err)
			}
			other := order
			other.Rule.Decision = anchormesh.Hash{2}
			if _, err := n.Host.Recover(segment, other); !errors.Is(err, machine.ErrRefused) {
				t.Errorf("seed %d: another decision about the old generation: %v", seed, err)
			}
			hosttest.Eventually(t, time.Minute, "a leader", func() bool { st, ok := n.Engine.Status(segment); return ok && st.Leads() })
			n.Put(segment, "after", "v")
			checkAnew(t, n, d, last)
			n.Stop()
			disks[chosen].Reboot()
			n = hosttest.Start(t, disks[chosen], net, n.ID)
			hosttest.Eventually(t, time.Minute, "a leader after a restart", func() bool { st, ok := n.Engine.Status(segment); return ok && st.Leads() })
			checkAnew(t, n, d, last)
			for i, old := range nodes { // the others give way
				if i == chosen {
					continue
				}
				must(t, old.Host.Descriptor(d))
				if f := old.Host.Forgotten(); len(f) != 0 {
					t.Errorf("seed %d: node %d still has %+v", seed, i, f)
				}
			}
		})
	}
}

// checkAnew looks at a segment that has begun anew.
func checkAnew(t *testing.T, n *hosttest.Node, d *anchormesh.Descriptor, last anchormesh.Revision) {
	t.Helper()
	r, ok := n.Host.Get(segment)
	if !ok || len(n.Host.Forgotten()) != 0 || r.ID != d.Anchors[0].Replica || len(d.Anchors) != 1 {
		t.Fatalf("%+v on %s, forgotten %v", d, n.ID, n.Host.Forgotten())
	}
	if v, _ := n.Get(segment, "early"); v != "v" {
		t.Error("what was on all disks is gone")
	}
	if v, _ := n.Get(segment, "after"); v != "v" {
		t.Error("what was written afterwards is gone")
	}
	for k, seen := 49, false; k >= 0; k-- { // a prefix of the log is left
		_, has := n.Get(segment, fmt.Sprint("late", k))
		if seen && !has {
			t.Errorf("late%d is gone, and one behind it is not", k)
		}
		seen = seen || has
	}
	if _, compacted := r.Machine.Segment().Revision(); compacted <= last {
		t.Errorf("history is compacted up to %d, and %d had been shown", compacted, last)
	}
	if e := r.Machine.State().Chain.Last(); e.Kind != lineage.Recovered || e.Evidence.Operator != machine.KeeperOperator {
		t.Errorf("the lineage ends with %+v", e)
	}
}
