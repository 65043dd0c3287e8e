package meshtest

import (
	"errors"
	"sync"
	"testing"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/gossip"
)

// gazette keeps the newest issue of each node: news are its number and the issue.
type gazette struct {
	mu    sync.Mutex
	names []anchormesh.NodeID
	issue map[byte]byte
}

func (g *gazette) hear(b []byte) (anchormesh.NodeID, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(b) != 2 || int(b[0]) >= len(g.names) || b[1] <= g.issue[b[0]] {
		return "", false
	}
	g.issue[b[0]] = b[1]
	return g.names[b[0]], true
}

func (g *gazette) newest(of byte) byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.issue[of]
}

// testNews: what each node tells reaches all others, the newest of each in the end.
func testNews(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 3)
	var names []anchormesh.NodeID
	for _, n := range nodes {
		names = append(names, n.ID())
	}
	var readers []*gazette
	for _, n := range nodes {
		g := &gazette{names: names, issue: make(map[byte]byte)}
		n.HandleNews(g.hear)
		readers = append(readers, g)
	}
	for issue := byte(1); issue <= 3; issue++ {
		for i, n := range nodes {
			if err := n.Tell([]byte{byte(i), issue}); err != nil {
				t.Fatal(err)
			}
		}
	}
	testkit.Eventually(t, "everybody has the newest of everybody", func() bool {
		for i, g := range readers {
			for of := range nodes {
				if of != i && g.newest(byte(of)) != 3 {
					return false
				}
			}
		}
		return true
	})
	if err := nodes[0].Tell(make([]byte, gossip.NewsBytesMax+1)); !errors.Is(err, mesh.ErrNewsTooLarge) {
		t.Errorf("news that are too large: %v", err)
	}
}
