package mesh

import (
	"log/slog"

	"github.com/anchormesh/anchormesh"
)

// Config says how to take part in a mesh.
type Config struct {
	Key     Key               // the mesh key
	DataDir string            // holds the identity key and the record epoch; must exist
	Name    string            // for people; default: the end of the node ID
	Zone    string            // failure domain, for people's policies
	Version string            // of the software
	Mesh    anchormesh.MeshID // zero: not known yet; nothing is adopted by itself

	PeerAddr        string   // multiaddr to listen on, /ip4/0.0.0.0/tcp/2390; port 0 picks one
	AdvertisePeer   []string // multiaddrs others dial; default: the listening ones (interfaces if unspecified)
	GossipAddr      string   // host:port for UDP and TCP; port 0 picks one
	AdvertiseGossip string   // host:port others use; default: GossipAddr, or a private address if unspecified
	ClientURLs      []string // where this node serves etcd clients over TCP
	Join            []string // host:port of gossip of any nodes; names are resolved at every attempt

	Logger *slog.Logger // nil: silent
	Events Events
}

// Events tells the owner what happened. Any field may be nil. The functions are
// called from the mesh's own goroutines, must not block, and must not call
// Close.
type Events struct {
	// PeerUp and PeerDown follow the connection to a peer: PeerUp when there
	// is one after there was none, PeerDown when the last one ended.
	PeerUp   func(id anchormesh.NodeID)
	PeerDown func(id anchormesh.NodeID)
	// ForeignMesh is told, once per mesh ID and at most once a minute, that a
	// node of another mesh uses this key.
	ForeignMesh func(other anchormesh.MeshID, from anchormesh.NodeID)
	// IdentityInUse is told that another running node has this node's
	// identity: its data directory was copied.
	IdentityInUse func(detail string)
}

// Stats are counters since the start.
type Stats struct{}
