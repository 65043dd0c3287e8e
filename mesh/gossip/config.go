package gossip

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
	"github.com/anchormesh/anchormesh/mesh/view"
)

// ErrConfig is returned for a configuration that cannot work.
var ErrConfig = errors.New("gossip configuration")

// Events report what happened; any field may be nil. The functions are called
// from gossip's goroutine, must not block and must not call Close.
type Events struct {
	// View is told every published view, in order.
	View func(view.View)
	// ForeignMesh is told of a node of another mesh under this key, at most
	// once a minute per mesh.
	ForeignMesh func(other anchormesh.MeshID, from anchormesh.NodeID)
	// IdentityInUse is told, at most once a minute, that another running
	// process has this node's identity.
	IdentityInUse func(detail string)
}

// Epochs hands out the epochs of this node's records.
type Epochs interface {
	// Next returns an epoch above all it returned before, in this process and
	// in earlier ones, and at least atLeast.
	Next(atLeast uint64) (uint64, error)
}

// Config is what Start needs.
type Config struct {
	Key       meshkey.Key
	Identity  Signer
	NodeID    func(public []byte) (anchormesh.NodeID, error) // names the node of an ed25519 key
	Epochs    Epochs
	Self      view.Record // what this node says of itself; ID, Epoch and Raw are filled in
	Listen    string      // host:port for UDP and TCP
	Advertise string      // host:port others use; empty: from Listen
	Join      []string    // host:port
	// Known returns further host:port to try, remembered from an earlier process; nil: none.
	Known   func() []string
	Logger  *slog.Logger
	Events  Events
	Pace    Pace
	Members view.Limits
}

// Pace is how fast gossip goes. Detection of a silent death takes about
// Suspicion * max(1, log10 n) * Probe after the first missed probe.
type Pace struct {
	Probe        time.Duration // between probes of one random member
	ProbeTimeout time.Duration // for its answer: the 99th percentile of the network's round trips
	Suspicion    int           // factor of the time a silent member has to speak up
	Gossip       time.Duration // between packets with news
	PushPull     time.Duration // between exchanges of the whole table, with one random member
	Stream       time.Duration // for an exchange
	Rejoin       time.Duration // between attempts to reach a join address or a dead member: heals partitions
	JoinMin      time.Duration // between attempts to join while alone; doubles
	JoinMax      time.Duration
	Leave        time.Duration // for telling others that this node goes

	Quantum    time.Duration // a change is published at the latest after this
	Quiescence time.Duration // and as soon as nothing more changed for this
}

// DefaultPace suits nodes within a region.
func DefaultPace() Pace {
	return Pace{
		Probe: time.Second, ProbeTimeout: 500 * time.Millisecond, Suspicion: 4,
		Gossip: 200 * time.Millisecond, PushPull: 30 * time.Second, Stream: 5 * time.Second,
		Rejoin: 15 * time.Second, JoinMin: 250 * time.Millisecond, JoinMax: 5 * time.Second,
		Leave:   2 * time.Second,
		Quantum: 500 * time.Millisecond, Quiescence: 50 * time.Millisecond,
	}
}

// Validate refuses a pace that cannot work.
func (p Pace) Validate() error {
	for _, d := range []time.Duration{p.Probe, p.ProbeTimeout, p.Gossip, p.PushPull, p.Stream,
		p.Rejoin, p.JoinMin, p.JoinMax, p.Leave, p.Quantum, p.Quiescence} {
		if d <= 0 {
			return fmt.Errorf("%w: every duration of the pace must be positive", ErrConfig)
		}
	}
	switch {
	case p.Suspicion < 1:
		return fmt.Errorf("%w: Suspicion must be at least 1", ErrConfig)
	case p.ProbeTimeout > p.Probe:
		return fmt.Errorf("%w: ProbeTimeout is above Probe", ErrConfig)
	case p.JoinMax < p.JoinMin:
		return fmt.Errorf("%w: JoinMax is below JoinMin", ErrConfig)
	case p.Quantum < p.Quiescence:
		return fmt.Errorf("%w: Quantum is below Quiescence", ErrConfig)
	}
	return nil
}

// Validate refuses a configuration that cannot work.
func (c Config) Validate() error {
	if err := c.Key.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if c.Identity == nil || c.NodeID == nil || c.Epochs == nil {
		return fmt.Errorf("%w: Identity, NodeID and Epochs must be set", ErrConfig)
	}
	if c.Self.Boot == 0 {
		return fmt.Errorf("%w: Self.Boot must be drawn", ErrConfig)
	}
	if _, _, err := splitAddr(c.Listen); err != nil {
		return fmt.Errorf("%w: listen address: %w", ErrConfig, err)
	}
	if c.Advertise != "" {
		host, port, err := splitAddr(c.Advertise)
		if err != nil {
			return fmt.Errorf("%w: advertised address: %w", ErrConfig, err)
		}
		if ip := net.ParseIP(host); host == "" || port == 0 || ip != nil && ip.IsUnspecified() {
			return fmt.Errorf("%w: advertised address %q: others cannot send to it", ErrConfig, c.Advertise)
		}
	}
	for _, a := range c.Join {
		if host, port, err := splitAddr(a); err != nil || host == "" || port == 0 {
			return fmt.Errorf("%w: join address %q: want host:port", ErrConfig, a)
		}
	}
	if err := c.Members.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return c.Pace.Validate()
}

func splitAddr(s string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q: want host:port", s)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q: the port must be a number up to 65535", s)
	}
	return host, int(n), nil
}
