package neighbours_test

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/neighbours"
	"github.com/anchormesh/anchormesh/node/summary"
)

// identity is a key whose node ID is its public half in hex.
type identity struct{ ed25519.PrivateKey }

func (i identity) PublicKey() []byte { return i.Public().(ed25519.PublicKey) }
func (i identity) Sign(b []byte) ([]byte, error) {
	return ed25519.Sign(i.PrivateKey, b), nil
}

func nodeOf(key []byte) (anchormesh.NodeID, error) {
	return anchormesh.NodeID(hex.EncodeToString(key)), nil
}

// node is one of a mesh, whose figures a test sets.
type node struct {
	*neighbours.Neighbours
	id       anchormesh.NodeID
	mesh     *meshtest.Node
	replicas atomic.Uint64
	leaving  atomic.Bool
	stop     context.CancelFunc
}

func start(t *testing.T, net *meshtest.Network, number byte, of anchormesh.MeshID) *node {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = number
	who := identity{ed25519.NewKeyFromSeed(seed)}
	n := &node{}
	n.id, _ = nodeOf(who.PublicKey())
	n.mesh = net.Add(n.id, mesh.Member{Mesh: of})
	n.Neighbours = neighbours.New(neighbours.Config{
		Own: func() summary.Summary {
			return summary.Summary{Replicas: n.replicas.Load(), Leaving: n.leaving.Load()}
		},
		Mesh: func() anchormesh.MeshID { return of }, Identity: who, NodeOf: nodeOf, Logger: slog.New(slog.DiscardHandler),
	}, n.mesh)
	n.mesh.HandleNews(n.Hear)
	ctx, stop := context.WithCancel(context.Background())
	n.stop = stop
	t.Cleanup(func() { stop(); n.mesh.Close() })
	go n.Run(ctx)
	return n
}

// What a node says is known to all others soon, also where the two have no
// connection, and to who comes later; who is silent counts for nothing in the end.
func TestSummariesGetAround(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		a, b, c := start(t, net, 1, 7), start(t, net, 2, 7), start(t, net, 3, 7)
		net.Cut(a.id, c.id)
		net.Cut(c.id, a.id)
		a.replicas.Store(40)
		time.Sleep(12 * time.Second)
		for _, n := range []*node{b, c} {
			if h := n.Heard(time.Now())[a.id]; h.Replicas != 40 {
				t.Errorf("%s has heard %+v", n.id.Short(), h)
			}
		}
		a.leaving.Store(true)
		time.Sleep(7 * time.Second)
		if h := c.Heard(time.Now())[a.id]; !h.Leaving {
			t.Errorf("a leaves, and c has heard %+v", h)
		}
		late := start(t, net, 4, 7)
		time.Sleep(10 * time.Second)
		if h, ok := late.Heard(time.Now())[a.id]; !ok || !h.Leaving || h.Replicas != 40 {
			t.Errorf("the newcomer has heard %+v", h)
		}
		a.stop()
		time.Sleep(3 * time.Minute)
		heard := c.Heard(time.Now())
		if _, ok := heard[a.id]; ok || len(heard) != 2 {
			t.Errorf("after three silent minutes: %+v", heard)
		}
	})
}

// A summary of another mesh, of a stranger, under a false key or from the past is not
// taken and not passed on.
func TestWhatIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := meshtest.NewNetwork(1)
		a, b := start(t, net, 1, 7), start(t, net, 2, 7)
		time.Sleep(7 * time.Second)
		who := identity{ed25519.NewKeyFromSeed(append([]byte{1}, make([]byte, 31)...))}
		seal := func(of anchormesh.MeshID, epoch uint64, by identity) []byte {
			return summary.Summary{Epoch: epoch, Replicas: 99}.Seal(of, [32]byte(by.PublicKey()), func(s []byte) []byte { return ed25519.Sign(by.PrivateKey, s) })
		}
		stranger := identity{ed25519.NewKeyFromSeed(append([]byte{9}, make([]byte, 31)...))}
		forged := seal(7, 1<<62, who)
		forged[len(forged)-1] ^= 1
		for name, sealed := range map[string][]byte{
			"another mesh": seal(8, 1<<62, who), "a stranger": seal(7, 1<<62, stranger), "forged": forged,
			"old": seal(7, 1, who), "junk": {1, 2, 3}, "nothing": nil,
		} {
			if of, newer := b.Hear(sealed); newer {
				t.Errorf("%s: taken as news of %s", name, of)
			}
		}
		if of, newer := b.Hear(seal(7, 1<<62, who)); !newer || of != a.id {
			t.Errorf("a genuine one was not taken: %s, %v", of, newer)
		}
		if _, newer := a.Hear(seal(7, 1<<62, who)); newer {
			t.Error("a node takes what is said of itself")
		}
	})
}
