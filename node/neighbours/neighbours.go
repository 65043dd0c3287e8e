package neighbours

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/summary"
)

// interval is how often the node looks whether it should say something.
const interval = time.Second

// Mesh is what this package needs of the mesh.
type Mesh interface {
	Tell(news []byte) error
	View() mesh.View
	Self() mesh.Member
}

// Identity signs for this node.
type Identity interface {
	PublicKey() []byte // ed25519
	Sign(statement []byte) ([]byte, error)
}

// Config of Neighbours.
type Config struct {
	// Own says how this node stands; its epoch is filled in.
	Own      func() summary.Summary
	Mesh     func() anchormesh.MeshID // zero: none yet
	Identity Identity
	NodeOf   func(public []byte) (anchormesh.NodeID, error) // names the node of a key
	Logger   *slog.Logger
}

// Neighbours tells and hears.
type Neighbours struct {
	cfg  Config
	mesh Mesh

	pace  summary.Pace // owned by Run
	epoch uint64       // likewise

	mu   sync.Mutex
	book summary.Book
}

// New returns Neighbours that know nobody yet; Run starts to tell.
func New(cfg Config, m Mesh) *Neighbours { return &Neighbours{cfg: cfg, mesh: m} }

// Run tells until ctx ends.
func (n *Neighbours) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		n.tell(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// epochShift leaves room for so many summaries per record of the node, whose epoch
// grows across restarts.
const epochShift = 20

func (n *Neighbours) tell(now time.Time) {
	view := n.mesh.View()
	n.mu.Lock()
	n.book.Keep(func(id anchormesh.NodeID) bool { _, ok := view.Get(id); return ok })
	n.mu.Unlock()
	nodes := len(view.Alive())
	if n.cfg.Mesh() == 0 || !n.pace.Ready(now, nodes) {
		return
	}
	s := n.cfg.Own()
	if !n.pace.Due(now, nodes, s) {
		return
	}
	n.epoch = max(n.epoch+1, n.mesh.Self().Epoch<<epochShift)
	s.Epoch = n.epoch
	sealed, err := n.seal(s)
	if err == nil {
		err = n.mesh.Tell(sealed)
	}
	if err != nil {
		n.cfg.Logger.Error("how this node stands cannot be told", "err", err)
		return
	}
	n.pace.Told(now, nodes, s)
}

func (n *Neighbours) seal(s summary.Summary) (sealed []byte, err error) {
	key := [ed25519.PublicKeySize]byte(n.cfg.Identity.PublicKey())
	sealed = s.Seal(n.cfg.Mesh(), key, func(statement []byte) (signature []byte) {
		signature, err = n.cfg.Identity.Sign(statement)
		return signature
	})
	return sealed, err
}

// Hear judges a summary; it is the mesh's news handler.
func (n *Neighbours) Hear(sealed []byte) (of anchormesh.NodeID, newer bool) {
	n.mu.Lock()
	known := n.book.Knows(sealed)
	n.mu.Unlock()
	if known {
		return "", false
	}
	key, s, err := summary.Open(sealed, n.cfg.Mesh(), func(key [ed25519.PublicKeySize]byte, statement, signature []byte) bool {
		return ed25519.Verify(key[:], statement, signature)
	})
	if err != nil {
		n.cfg.Logger.Debug("a summary was not taken", "err", err)
		return "", false
	}
	if of, err = n.cfg.NodeOf(key[:]); err != nil || of == n.mesh.Self().ID {
		return "", false
	}
	if _, member := n.mesh.View().Get(of); !member {
		return "", false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return of, n.book.Take(time.Now(), of, sealed, s)
}

// Heard returns the newest summary of each other node, stale ones left out.
func (n *Neighbours) Heard(now time.Time) map[anchormesh.NodeID]summary.Heard {
	stale := summary.Stale(len(n.mesh.View().Alive()))
	n.mu.Lock()
	defer n.mu.Unlock()
	out := n.book.Read()
	for id, h := range out {
		if now.Sub(h.At) >= stale {
			delete(out, id)
		}
	}
	return out
}
