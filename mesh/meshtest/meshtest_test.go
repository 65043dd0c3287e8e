package meshtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
)

func TestConformance(t *testing.T) {
	Conformance(t, func(t *testing.T, n int) []Mesh {
		network := NewNetwork(1)
		var nodes []Mesh
		for i := range n {
			node := network.Add(anchormesh.NodeID(fmt.Sprint("n", i)), mesh.Member{})
			t.Cleanup(func() { node.Close() })
			nodes = append(nodes, node)
		}
		return nodes
	})
}

func two() (*Network, *Node, *Node) {
	n := NewNetwork(1)
	return n, n.Add("a", mesh.Member{}), n.Add("b", mesh.Member{})
}

func TestDelayIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two()
		n.SetLink("a", "b", Link{Delay: 30 * time.Millisecond})
		n.SetLink("b", "a", Link{Delay: 20 * time.Millisecond})
		b.HandleCalls(1, echo)
		begun := time.Now()
		if _, err := a.Call(t.Context(), "b", 1); err != nil || time.Since(begun) != 50*time.Millisecond {
			t.Fatalf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestJitterKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two()
		n.SetLink("a", "b", Link{Jitter: time.Second})
		var got []byte
		b.HandleMessages(0, func(_ anchormesh.NodeID, p []byte) { got = append(got, p...) })
		for i := range byte(50) {
			a.Send("b", 0, []byte{i})
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(got) != 50 || !slices.IsSorted(got) {
			t.Fatalf("%v", got)
		}
	})
}

func TestLossIsAsAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two()
		n.SetLink("a", "b", Link{Loss: 0.3})
		got := 0
		b.HandleMessages(0, func(anchormesh.NodeID, []byte) { got++ })
		for range 1000 {
			a.Send("b", 0, nil)
		}
		synctest.Wait()
		if got < 630 || got > 770 {
			t.Fatalf("%d of 1000 arrived", got)
		}
	})
}

func TestOneWayCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two()
		var down, up []anchormesh.NodeID
		a.SetEvents(mesh.Events{
			PeerDown: func(id anchormesh.NodeID) { down = append(down, id) },
			PeerUp:   func(id anchormesh.NodeID) { up = append(up, id) },
		})
		hears := map[anchormesh.NodeID]int{}
		for _, node := range []*Node{a, b} {
			node.HandleMessages(0, func(from anchormesh.NodeID, _ []byte) { hears[from]++ })
		}
		b.HandleCalls(1, func(anchormesh.NodeID, []byte, mesh.Responder) {})
		done := make(chan error, 1)
		go func() {
			_, err := a.Call(context.Background(), "b", 1)
			done <- err
		}()
		synctest.Wait()
		n.Cut("a", "b")
		if err := <-done; !errors.Is(err, mesh.ErrUnknownOutcome) {
			t.Fatalf("the call under way: %v", err)
		}
		a.Send("b", 0, nil)
		b.Send("a", 0, nil)
		synctest.Wait()
		if hears["a"] != 0 || hears["b"] != 1 {
			t.Fatalf("%v", hears)
		}
		for _, x := range [][2]*Node{{a, b}, {b, a}} {
			if _, err := x[0].Call(t.Context(), x[1].ID(), 1); !errors.Is(err, mesh.ErrUnreachable) {
				t.Fatalf("%v", err)
			}
		}
		n.Heal("a", "b")
		a.Send("b", 0, nil)
		synctest.Wait()
		if hears["a"] != 1 || len(down) != 1 || len(up) != 1 {
			t.Fatalf("%v, down %v, up %v", hears, down, up)
		}
	})
}

func TestResetsLeaveOutcomesUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two()
		n.SetLink("a", "b", Link{Reset: 0.5})
		served, unknown := 0, 0
		b.HandleCalls(1, func(_ anchormesh.NodeID, _ []byte, r mesh.Responder) { served++; r.Reply() })
		for range 400 {
			if _, err := a.Call(t.Context(), "b", 1); errors.Is(err, mesh.ErrUnknownOutcome) {
				unknown++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if unknown < 150 || unknown > 250 || served < 250 || served > 350 {
			t.Fatalf("%d unknown, %d served", unknown, served)
		}
	})
}

func TestCrashAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := two()
		old := b.Self().Boot
		n.Crash("b")
		if m, _ := a.View().Get("b"); m.State != mesh.Alive {
			t.Fatal("a crash is seen before anybody observed it")
		}
		if a.Send("b", 0, nil) {
			t.Fatal("a message to a crashed node was taken")
		}
		n.Observe("a", "b", mesh.Dead)
		if m, _ := a.View().Get("b"); m.State != mesh.Dead {
			t.Fatalf("%+v", m)
		}
		b = n.Add("b", mesh.Member{})
		b.HandleCalls(1, echo)
		if m, _ := a.View().Get("b"); m.State != mesh.Alive || m.Boot == old {
			t.Fatalf("%+v", m)
		}
		if _, err := a.Call(t.Context(), "b", 1); err != nil {
			t.Fatal(err)
		}
	})
}

func TestPartitionAndHeal(t *testing.T) {
	n := NewNetwork(1)
	ids := []anchormesh.NodeID{"a", "b", "c"}
	var nodes []*Node
	for _, id := range ids {
		nodes = append(nodes, n.Add(id, mesh.Member{}))
	}
	n.Partition(ids[:2], ids[2:])
	if !nodes[0].Connected("b") || nodes[0].Connected("c") || nodes[2].Connected("b") {
		t.Fatal("the cut is elsewhere")
	}
	n.Partition(ids)
	if !nodes[0].Connected("c") || !nodes[2].Connected("b") {
		t.Fatal("not healed")
	}
}
