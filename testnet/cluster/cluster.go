package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"

	"github.com/anchormesh/anchormesh/internal/meshpb"
)

// ErrNotReady is returned when the context ended before every running node was
// ready; it wraps the last thing that was missing.
var ErrNotReady = errors.New("cluster: not ready")

// Kind is the program a cluster is made of.
type Kind string

// The kinds of clusters.
const (
	Etcd Kind = "etcd"
	Mesh Kind = "mesh"
)

// Config describes a cluster to start.
type Config struct {
	Kind Kind
	Size int      // nodes
	Dir  string   // parent of data directories and logs; must exist and is not removed
	Args []string // further arguments for every node
	// Failpoints is what the nodes' ANCHORMESH_FAILPOINTS says; they are built to obey it
	// then. Only of a mesh.
	Failpoints string
	// Started, if set, is called with each process as soon as it exists, at
	// restarts too, to limit or observe it. Its error ends the start.
	Started func(n *Node, pid int) error
}

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Kind != Etcd && c.Kind != Mesh:
		return fmt.Errorf("cluster: unknown kind %q, known are %q and %q", c.Kind, Etcd, Mesh)
	case c.Size < 1:
		return fmt.Errorf("cluster: size is %d, must be at least 1", c.Size)
	case c.Failpoints != "" && c.Kind != Mesh:
		return fmt.Errorf("cluster: a cluster of %s has no failpoints", c.Kind)
	case c.Dir == "":
		return errors.New("cluster: no directory given")
	}
	return nil
}

// Cluster is a set of local processes of one kind.
type Cluster struct {
	Kind  Kind
	Nodes []*Node

	ports []portLock
}

// Start starts a cluster and returns when it is ready. The programs are built
// first if need be. On error nothing is left running.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := &Cluster{Kind: cfg.Kind}
	if err := c.layOut(cfg); err != nil {
		return nil, err
	}
	prepare := map[Kind]func(context.Context, *Cluster, Config) error{Etcd: prepareEtcd, Mesh: prepareMesh}
	err := prepare[cfg.Kind](ctx, c, cfg)
	if err == nil {
		err = c.startAll(ctx)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// portsPerNode: client, peer, gossip, HTTP.
const portsPerNode = 4

// layOut gives every node its name, directories and addresses.
func (c *Cluster) layOut(cfg Config) error {
	ports, err := reservePorts(portsPerNode * cfg.Size)
	if err != nil {
		return err
	}
	c.ports = ports
	for i := range cfg.Size {
		name := fmt.Sprintf("n%d", i+1)
		p := ports[portsPerNode*i:]
		c.Nodes = append(c.Nodes, &Node{
			Name:    name,
			Dir:     filepath.Join(cfg.Dir, name),
			LogPath: filepath.Join(cfg.Dir, name+".log"),
			Client:  loopback(p[0].port),
			Peer:    loopback(p[1].port),
			Gossip:  loopback(p[2].port),
			HTTP:    loopback(p[3].port),
			hook:    cfg.Started,
			points:  cfg.Failpoints,
		})
	}
	return nil
}

func (c *Cluster) startAll(ctx context.Context) error {
	for _, n := range c.Nodes {
		if err := n.Start(); err != nil {
			return err
		}
	}
	return c.Ready(ctx)
}

// Endpoints returns the client URLs of all nodes, running or not.
func (c *Cluster) Endpoints() []string {
	var out []string
	for _, n := range c.Nodes {
		out = append(out, n.Endpoint())
	}
	return out
}

// Client returns a client of the given nodes, or of all if none is given.
func (c *Cluster) Client(nodes ...*Node) (*clientv3.Client, error) {
	endpoints := c.Endpoints()
	if len(nodes) > 0 {
		endpoints = nil
		for _, n := range nodes {
			endpoints = append(endpoints, n.Endpoint())
		}
	}
	return Dial(endpoints...)
}

// Dial returns a client that does not log; failures are the caller's to report.
func Dial(endpoints ...string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
}

const (
	readyPoll    = 50 * time.Millisecond
	readyAttempt = 2 * time.Second // one health check of one node
)

// Ready returns when every running node answers a linearizable read and knows
// all members. A node that has ended by itself makes it fail at once.
func (c *Cluster) Ready(ctx context.Context) error {
	for _, n := range c.Nodes {
		if !n.Running() {
			continue
		}
		if err := c.nodeReady(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) nodeReady(ctx context.Context, n *Node) error {
	client, err := c.Client(n)
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		err := c.check(ctx, client)
		if err == nil && c.Kind == Mesh {
			err = checkAnchors(ctx, client.ActiveConnection(), len(c.Nodes))
		}
		if err == nil {
			return nil
		}
		if !n.Running() {
			return fmt.Errorf("%w: %s ended, see %s\n%s", ErrNotReady, n.Name, n.LogPath, n.LogTail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %s: %w (log: %s)\n%s", ErrNotReady, n.Name, err, n.LogPath, n.LogTail())
		case <-tick.C:
		}
	}
}

// check is one health check through a client of one node.
func (c *Cluster) check(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, readyAttempt)
	defer cancel()
	if _, err := client.Get(ctx, "\x00cluster-ready"); err != nil {
		return fmt.Errorf("linearizable read: %w", err)
	}
	members, err := client.MemberList(ctx)
	if err != nil {
		return fmt.Errorf("member list: %w", err)
	}
	voters := 0
	for _, m := range members.Members {
		if !m.IsLearner {
			voters++
		}
	}
	if voters != len(c.Nodes) {
		return fmt.Errorf("%d voting members, want %d", voters, len(c.Nodes))
	}
	return nil
}

// checkAnchors asks a mesh node whether its segments have the anchors they want:
// as many as there are nodes, at most three, an odd number.
func checkAnchors(ctx context.Context, conn *grpc.ClientConn, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, readyAttempt)
	defer cancel()
	want := min(3, nodes-1+nodes%2)
	_, err := meshpb.EachSegment(ctx, meshpb.NewMeshClient(conn), func(s *meshpb.SegmentInfo) error {
		voters := 0
		for _, a := range s.GetDescriptor_().GetAnchors() {
			if a.GetRole() == meshpb.Role_ROLE_VOTER {
				voters++
			}
		}
		if voters < want {
			return fmt.Errorf("a segment has %d voting anchors, want %d", voters, want)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("segments: %w", err)
	}
	return nil
}

// Usage returns the sum of the nodes' CPU time and, of each kind of memory, the
// largest node's.
func (c *Cluster) Usage() (Usage, error) {
	var total Usage
	for _, n := range c.Nodes {
		u, err := n.Usage()
		if err != nil {
			return Usage{}, err
		}
		total.CPU += u.CPU
		total.RSS = max(total.RSS, u.RSS)
		total.PeakRSS = max(total.PeakRSS, u.PeakRSS)
		total.Anon = max(total.Anon, u.Anon)
		total.File = max(total.File, u.File)
	}
	return total, nil
}

// Close kills every node and gives the ports back. Files stay.
func (c *Cluster) Close() {
	var wg sync.WaitGroup
	for _, n := range c.Nodes {
		wg.Go(n.Kill)
	}
	wg.Wait()
	releasePorts(c.ports)
	c.ports = nil
}
