package mesh

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/mesh/gossip"
	"github.com/anchormesh/anchormesh/mesh/view"
	"github.com/anchormesh/anchormesh/mesh/wire"
)

// ErrConfig is returned for a configuration that cannot work.
var ErrConfig = errors.New("mesh configuration")

// Config says how to take part in a mesh. DefaultConfig has what can be
// defaulted.
type Config struct {
	Key     Key               // the mesh key
	DataDir string            // holds the files that doc.go lists; must exist
	Name    string            // for people; default: the end of the node ID
	Zone    string            // failure domain
	Version string            // of the software
	Mesh    anchormesh.MeshID // zero: not known yet; nothing is adopted by itself

	PeerAddr        string   // multiaddr to listen on, /ip4/0.0.0.0/tcp/2390; port 0 picks one
	AdvertisePeer   []string // multiaddrs others dial; default: the listening one, or those of the interfaces
	GossipAddr      string   // host:port for UDP and TCP; port 0 picks one
	AdvertiseGossip string   // host:port others use; default: GossipAddr, or an interface's address
	ClientURLs      []string // where this node serves etcd clients over TCP
	Join            []string // host:port of gossip of any nodes; names are resolved at every attempt

	Logger *slog.Logger // nil: silent
	Events Events
	FS     fsys.FS // nil: the operating system's

	Wire    wire.Limits // zero as a whole: the default; likewise the others
	Gossip  gossip.Pace
	Members view.Limits
}

// Events tells the owner what happened. Any field may be nil. The functions are
// called from the mesh's own goroutines, must not block, and must not call
// Close.
type Events struct {
	// PeerUp and PeerDown follow the connection to a peer: PeerUp when there
	// is one after there was none, PeerDown when the last one ended. A peer
	// that fell silent is noticed after at most two Wire.KeepAlive.
	PeerUp   func(id anchormesh.NodeID)
	PeerDown func(id anchormesh.NodeID)
	// ForeignMesh is told that a node of another mesh uses this key: once a
	// minute per mesh by gossip, and as often by a refused stream.
	ForeignMesh func(other anchormesh.MeshID, from anchormesh.NodeID)
	// IdentityInUse is told, at most once a minute, that another running node
	// has this node's identity: its data directory was copied.
	IdentityInUse func(detail string)
}

// DefaultConfig listens on every interface at the default ports.
func DefaultConfig() Config {
	return Config{
		PeerAddr:   "/ip4/0.0.0.0/tcp/2390",
		GossipAddr: "0.0.0.0:2391",
		Wire:       wire.DefaultLimits(),
		Gossip:     gossip.DefaultPace(),
		Members:    view.DefaultLimits(),
	}
}

// withDefaults fills in what was left out altogether.
func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FS == nil {
		c.FS = fsys.OS
	}
	if c.Wire == (wire.Limits{}) {
		c.Wire = wire.DefaultLimits()
	}
	if c.Gossip == (gossip.Pace{}) {
		c.Gossip = gossip.DefaultPace()
	}
	if c.Members == (view.Limits{}) {
		c.Members = view.DefaultLimits()
	}
	return c
}

// Validate refuses a configuration that cannot work, before anything is opened.
// The parts check the rest when they start.
func (c Config) Validate() error {
	c = c.withDefaults()
	if err := c.Key.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if c.DataDir == "" {
		return fmt.Errorf("%w: no data directory", ErrConfig)
	}
	for _, a := range c.AdvertisePeer {
		if err := wire.ValidateAddr(a); err != nil {
			return fmt.Errorf("%w: advertised peer address: %w", ErrConfig, err)
		}
	}
	if err := c.Wire.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := c.Gossip.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if err := c.Members.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}
