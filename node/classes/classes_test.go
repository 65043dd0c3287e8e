package classes_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/policy"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/classes"
	"github.com/anchormesh/anchormesh/node/hosttest"
)

// A node stops between a segment's being light no more and its word that all is on disk.
// It looks what there is to say as soon as it runs again, before the replica has caught up
// with its log and can be asked; it must ask again.
func TestWhoCannotSayYetThatAllIsOnDiskIsAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const segment = anchormesh.SegmentID(7)
		d, net := hosttest.NewDisk(t), meshtest.NewNetwork(1)
		class := func(n *hosttest.Node, c anchormesh.Class) {
			n.Govern(segment, &policy.Policy{Class: c, Anchors: policy.Anchors{Count: 1}})
		}
		soft := func(n *hosttest.Node) int {
			r, _ := n.Host.Get(segment)
			return len(r.Machine.State().Soft)
		}
		leader := func(n *hosttest.Node) {
			hosttest.Eventually(t, time.Minute, "leader", func() bool {
				st, ok := n.Engine.Status(segment)
				return ok && st.Leads()
			})
		}
		n := hosttest.Start(t, d, net, "a")
		if err := n.Host.Genesis(1, segment, "", 1); err != nil {
			t.Fatal(err)
		}
		leader(n)
		class(n, anchormesh.Light)
		n.Put(segment, "k", "v")
		class(n, anchormesh.Normal)
		n.Commit(segment)
		n.Put(segment, "k", "w") // in the log, and not in the store
		if soft(n) != 1 {
			t.Fatal("nobody has to say that all is on disk")
		}
		<-time.After(time.Second)
		cut := d.Copy()
		n.Stop()

		n = hosttest.Start(t, cut, net, "a")
		ctx, stop := context.WithCancel(t.Context())
		reporter := classes.New(classes.Config{Self: "a", Logger: slog.New(slog.DiscardHandler)}, n.Host, n.Engine, n.Table, n.Mesh)
		done := make(chan error, 1)
		go func() { done <- reporter.Run(ctx) }()
		leader(n)
		hosttest.Eventually(t, time.Minute, "word that all is on disk", func() bool { return soft(n) == 0 })
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		n.Stop()
	})
}
