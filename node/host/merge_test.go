package host_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/anchors/merge"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
)

const rightSegment anchormesh.SegmentID = 11

// order puts a structural command, or a stamped write, into a segment's log.
func order(n *hosttest.Node, id anchormesh.SegmentID, command []byte) error {
	r, ok := n.Host.Get(id)
	if !ok {
		return consensus.ErrNoGroup
	}
	done := make(chan error, 1)
	n.Engine.Submit(id, consensus.Proposal{
		Generation: r.Machine.Descriptor().Generation, Alone: true, Payload: command,
		Done: func(res consensus.Result) { done <- res.Err },
	})
	return <-done
}

// write is a put with a revision.
func write(t *testing.T, rev anchormesh.Revision, key, value string) []byte {
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	must(t, err)
	return keyspace.AppendCommand(keyspace.AppendStamp(nil, rev), keyspace.OpPut, raw)
}

func leads(n *hosttest.Node, id anchormesh.SegmentID) bool {
	st, ok := n.Engine.Status(id)
	return ok && st.Leads()
}

// halves starts a node that leads a segment and what was cut off it at m.
func halves(t *testing.T, d *hosttest.Disk, net *meshtest.Network) *hosttest.Node {
	t.Helper()
	n := genesis(t, d, net)
	n.Put(segment, "a", "v")
	n.Put(segment, "z", "v")
	must(t, order(n, segment, (&machine.Split{At: []byte("m"), Right: rightSegment}).Command()))
	hosttest.Eventually(t, time.Minute, "right half", func() bool { return leads(n, rightSegment) })
	return n
}

// attempt is the next attempt to merge the two.
func attempt(n *hosttest.Node, right anchormesh.SegmentID) (merge.Attempt, merge.Pair) {
	l, _ := n.Host.Get(segment)
	r, _ := n.Host.Get(right)
	state := l.Machine.State()
	return state.Left.Next(state.Descriptor.Generation), merge.Pair{Left: state.Side(), Right: r.Machine.State().Side()}
}

func mergeHalves(t *testing.T, n *hosttest.Node) {
	t.Helper()
	mergeWith(t, n, rightSegment)
}

// mergeWith does what the leaders do.
func mergeWith(t *testing.T, n *hosttest.Node, right anchormesh.SegmentID) {
	t.Helper()
	at, pair := attempt(n, right)
	must(t, order(n, segment, machine.Open(at, &pair)))
	must(t, order(n, right, machine.Freeze(at, &pair)))
	must(t, n.Host.Confirm(right, at))
	must(t, order(n, segment, machine.Absorb(at, &lineage.Evidence{})))
}

func gone(n *hosttest.Node, id anchormesh.SegmentID) bool {
	_, here := n.Host.Get(id)
	return !here && !slices.Contains(n.Log.Groups(), id)
}

// Counterexample 5c: a merge may be cut short anywhere. The two segments or the one are
// there after a start, with everything that was acknowledged; the right's log stays as
// long as the absorb may have to be applied again, and no longer.
func TestMergeCutShortAnywhere(t *testing.T) {
	for seed := range uint64(1) {
		synctest.Test(t, func(t *testing.T) {
			d, net := hosttest.NewDisk(t), meshtest.NewNetwork(1)
			n := halves(t, d, net)
			rec := d.Record(seed)
			must(t, order(n, rightSegment, write(t, 20, "z", "w")))
			written := rec.Len()
			mergeHalves(t, n)
			merged := rec.Len()
			must(t, order(n, segment, write(t, 30, "zz", "x")))
			later := rec.Len()
			hosttest.Eventually(t, time.Minute, "end of the right", func() bool { return gone(n, rightSegment) })
			n.Commit(segment)
			disks := rec.Stop()
			n.Stop()
			ones := 0
			for i, disk := range disks {
				n := hosttest.Start(t, disk, net, "a")
				hosttest.Eventually(t, time.Minute, "leader", func() bool { return leads(n, segment) })
				// Its absorb may be applied again while the write is on its way.
				hosttest.Eventually(t, time.Minute, "write", func() bool {
					err := order(n, segment, write(t, 100, "b", "after"))
					if err != nil && !errors.Is(err, machine.ErrGeneration) {
						t.Fatal(err)
					}
					return err == nil
				})
				l, _ := n.Host.Get(segment)
				in := segment
				if l.Machine.Descriptor().Range.End != nil {
					in = rightSegment
				} else {
					ones++
					hosttest.Eventually(t, time.Minute, "end of the right", func() bool { return gone(n, rightSegment) })
				}
				if in == rightSegment && i >= merged {
					t.Errorf("seed %d, cut %d: the merge was acknowledged and is forgotten", seed, i)
				}
				if in == rightSegment {
					hosttest.Eventually(t, time.Minute, "leader of the right", func() bool { return leads(n, rightSegment) })
				}
				if i >= written { // a leader has it in its log, and may be about to apply it
					hosttest.Eventually(t, time.Minute, fmt.Sprintf("z in %s behind cut %d of seed %d", in, i, seed), func() bool {
						v, _ := n.Get(in, "z")
						return v == "w"
					})
				}
				if v, _ := n.Get(in, "zz"); i >= later && v != "x" {
					t.Errorf("seed %d, cut %d: zz is %q", seed, i, v)
				}
				n.Stop()
			}
			if ones == 0 || ones == len(disks) {
				t.Errorf("of %d cuts %d left one segment", len(disks), ones)
			}
		})
	}
}

// A node that came late to the left's log finds its stale right in the way of the
// snapshot, which tells of the merge: it gives way. As long as the right may be needed
// it stays, whatever is said of it.
func TestASnapshotOfTheMergedSegmentReplacesTheRight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		d := hosttest.NewDisk(t)
		n := halves(t, d, net)
		at, pair := attempt(n, rightSegment)
		must(t, order(n, segment, machine.Open(at, &pair)))
		must(t, order(n, rightSegment, machine.Freeze(at, &pair)))
		must(t, n.Host.Confirm(rightSegment, at))
		n.Commit(segment)
		n.Stop()
		behind := d.Copy() // open and frozen, and no more

		n = hosttest.Start(t, d, net, "a")
		hosttest.Eventually(t, time.Minute, "leader", func() bool { return leads(n, segment) })
		must(t, order(n, segment, machine.Absorb(at, &lineage.Evidence{})))
		must(t, order(n, segment, write(t, 30, "z", "merged")))
		s := export(t, n, 1)
		want := n.Hash(segment)
		n.Stop()

		n = hosttest.Start(t, behind, net, "a")
		must(t, n.Host.Retire(rightSegment, 1))
		if _, here := n.Host.Get(rightSegment); !here {
			t.Fatal("a frozen right went while the left was here")
		}
		must(t, s.install(n))
		if got := n.Hash(segment); got != want {
			t.Errorf("hash %s, want %s", got, want)
		}
		if !gone(n, rightSegment) || n.Dir.Record().Retired[rightSegment] != 1 {
			t.Errorf("the right is still here: %v", n.Host.Segments())
		}
	})
}

// What was merged may be cut where it was joined. A node that has the absorb still before
// it needs the right, which the snapshot of the new right part would replace; one that came
// behind the absorb by a snapshot does not, and is rid of it.
func TestASnapshotOfTheNewRightPartWaitsForTheAbsorb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const next = rightSegment + 1
		net := meshtest.NewNetwork(1)
		d := hosttest.NewDisk(t)
		n := halves(t, d, net)
		at, pair := attempt(n, rightSegment)
		must(t, order(n, segment, machine.Open(at, &pair)))
		must(t, order(n, rightSegment, machine.Freeze(at, &pair)))
		must(t, n.Host.Confirm(rightSegment, at))
		n.Commit(segment)
		n.Stop()
		early, late, stray := d.Copy(), d.Copy(), d.Copy()

		n = hosttest.Start(t, d, net, "a")
		hosttest.Eventually(t, time.Minute, "leader", func() bool { return leads(n, segment) })
		must(t, order(n, segment, machine.Absorb(at, &lineage.Evidence{})))
		must(t, order(n, segment, (&machine.Split{At: []byte("m"), Right: next}).Command()))
		hosttest.Eventually(t, time.Minute, "new right half", func() bool { return leads(n, next) })
		left, right := export(t, n, 1), exportOf(t, n, next, 1)
		r, _ := n.Host.Get(next)
		later := r.Machine.Descriptor()
		n.Stop()

		n = hosttest.Start(t, early, net, "a")
		if err := right.install(n); !errors.Is(err, host.ErrOverlap) {
			t.Errorf("the new right part came before the absorb: %v", err)
		}
		hosttest.Eventually(t, time.Minute, "leader", func() bool { return leads(n, segment) })
		must(t, order(n, segment, machine.Absorb(at, &lineage.Evidence{})))
		if v, _ := n.Get(segment, "z"); v != "v" {
			t.Errorf("behind the absorb z is %q", v)
		}
		n.Stop()

		n = hosttest.Start(t, late, net, "a")
		into, err := n.Host.Install(left.offer) // it may be one from before the absorb
		must(t, err)
		must(t, n.Host.Retire(rightSegment, 1))
		if _, here := n.Host.Get(rightSegment); !here {
			t.Error("a frozen right went while the left was on its way")
		}
		into.Abort()
		must(t, left.install(n))
		must(t, right.install(n))
		if v, _ := n.Get(next, "z"); v != "v" || !gone(n, rightSegment) {
			t.Errorf("behind the snapshots z is %q in %v", v, n.Host.Segments())
		}
		n.Stop()

		n = hosttest.Start(t, stray, net, "a")
		n.Table.Learn(later)
		if s := n.Host.Stray(); len(s) != 0 {
			t.Errorf("%d replicas are stray before the absorb", len(s))
		}
		must(t, left.install(n))
		s := n.Host.Stray()
		if len(s) != 1 {
			t.Fatalf("%d replicas are stray, of which the right should be one", len(s))
		}
		n.Host.Superseded(s[0])
		if !gone(n, rightSegment) {
			t.Error("a right that was absorbed elsewhere is still here")
		}
	})
}

// A confirmation is for good, and only of what was frozen by that attempt; a thaw takes
// it back. A segment that is thawed serves as before.
func TestConfirmAndThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, net := hosttest.NewDisk(t), meshtest.NewNetwork(1)
		n := halves(t, d, net)
		at, pair := attempt(n, rightSegment)
		if err := n.Host.Confirm(rightSegment, at); !errors.Is(err, host.ErrNotFrozen) {
			t.Errorf("a confirmation before the freeze: %v", err)
		}
		must(t, order(n, segment, machine.Open(at, &pair)))
		must(t, order(n, rightSegment, machine.Freeze(at, &pair)))
		other := at
		other.Number++
		if err := n.Host.Confirm(rightSegment, other); !errors.Is(err, host.ErrNotFrozen) {
			t.Errorf("a confirmation of another attempt: %v", err)
		}
		must(t, n.Host.Confirm(rightSegment, at))
		must(t, n.Host.Confirm(rightSegment, at))
		n.Stop()
		n = hosttest.Start(t, d, net, "a")
		if r, ok := n.Host.Get(rightSegment); !ok || !r.Machine.State().Frozen() || n.Dir.Record().Frozen[rightSegment] != 1 {
			t.Fatalf("after a restart: %v, record %+v", ok, n.Dir.Record())
		}
		hosttest.Eventually(t, time.Minute, "leaders", func() bool { return leads(n, segment) && leads(n, rightSegment) })
		if err := order(n, rightSegment, write(t, 20, "z", "w")); !errors.Is(err, machine.ErrFrozen) {
			t.Errorf("a write of the frozen right: %v", err)
		}
		must(t, order(n, segment, machine.Abort(at)))
		must(t, order(n, rightSegment, machine.Thaw(at, merge.Aborted)))
		must(t, order(n, rightSegment, write(t, 20, "z", "w")))
		<-time.After(time.Minute) // of the bubble: the record follows
		n.Stop()
		if frozen := n.Dir.Record().Frozen; len(frozen) != 0 {
			t.Errorf("the record still knows of the freeze: %v", frozen)
		}
	})
}

// Where the left is gone from a node, a right that is routed elsewhere is named as
// stray, and given up on the word of those who hold its keys; not before.
func TestStrays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := halves(t, hosttest.NewDisk(t), meshtest.NewNetwork(1))
		at, pair := attempt(n, rightSegment)
		pair.Left.Segment = 99 // some left that this node has nothing of
		must(t, order(n, rightSegment, machine.Freeze(at, &pair)))
		if s := n.Host.Stray(); len(s) != 0 {
			t.Errorf("%d replicas are stray, and nobody claims their keys", len(s))
		}
		later := &anchormesh.Descriptor{
			Segment: 99, Generation: 5, Range: anchormesh.KeyRange{Start: []byte("l")},
			Anchors: []anchormesh.Anchor{{Node: "z", Replica: 1, Role: anchormesh.Voter}},
		}
		n.Table.Learn(later)
		s := n.Host.Stray()
		if len(s) != 1 || s[0].Machine.Descriptor().Segment != rightSegment {
			t.Fatalf("%d replicas are stray, of which the right should be one", len(s))
		}
		n.Host.Superseded(s[0])
		if !gone(n, rightSegment) {
			t.Error("a right that was merged elsewhere is still here")
		}
	})
}

// What was merged can be cut and merged again, behind an attempt that failed; the segment
// that is cut off has a new name, and attempts are numbered in each generation.
func TestSplitsAndMergesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, net := hosttest.NewDisk(t), meshtest.NewNetwork(1)
		n := halves(t, d, net)
		mergeHalves(t, n)
		hosttest.Eventually(t, time.Minute, "end of the right", func() bool { return gone(n, rightSegment) })
		must(t, order(n, segment, write(t, 100, "z", "once")))
		const next = rightSegment + 1
		must(t, order(n, segment, (&machine.Split{At: []byte("m"), Right: next}).Command()))
		hosttest.Eventually(t, time.Minute, "right half", func() bool { return leads(n, next) })
		at, pair := attempt(n, next)
		must(t, order(n, segment, machine.Open(at, &pair)))
		must(t, order(n, segment, machine.Abort(at)))
		if again, _ := attempt(n, next); again.Number != at.Number+1 || again.Generation != at.Generation {
			t.Errorf("behind attempt %v comes %v", at, again)
		}
		mergeWith(t, n, next)
		hosttest.Eventually(t, time.Minute, "end of the right", func() bool { return gone(n, next) })
		if v, _ := n.Get(segment, "z"); v != "once" {
			t.Errorf("z is %q", v)
		}
		n.Stop()
		n = hosttest.Start(t, d, net, "a")
		if v, _ := n.Get(segment, "z"); v != "once" || len(n.Host.Segments()) != 1 {
			t.Errorf("after a restart z is %q in %v", v, n.Host.Segments())
		}
	})
}
