package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"

	"github.com/spf13/pflag"
)

// devNodesMax keeps a mistyped --nodes from taking the machine.
const devNodesMax = 16

// Dev is the configuration of `anchormesh dev`: a whole mesh in one process.
type Dev struct {
	// Nodes is how many nodes run.
	Nodes uint
	// DataDir holds one directory per node. Empty: a fresh temporary one, removed
	// at the end.
	DataDir string
	// ClientAddr is the first node's; node i listens on port+i-1.
	ClientAddr string
	// Each is what all nodes share: limits, timing, logs.
	Each Config
}

// DefaultDev returns three quiet nodes on etcd's port.
func DefaultDev() Dev {
	each := Default()
	each.Log.Level = "warn"
	return Dev{Nodes: 3, ClientAddr: each.Listen.Client, Each: each}
}

// Bind declares every flag of `dev` on fs.
func (d *Dev) Bind(fs *pflag.FlagSet) {
	fs.String(FileFlag, "", "YAML file whose fields are these flags' names; flags and ANCHORMESH_* win over it")
	fs.UintVar(&d.Nodes, "nodes", d.Nodes, "nodes to run")
	fs.StringVar(&d.DataDir, "data-dir", d.DataDir, "directory to keep the mesh in; empty for a fresh temporary one, removed at the end")
	fs.StringVar(&d.ClientAddr, "client-addr", d.ClientAddr, "HOST:PORT of the first node's etcd API; node i listens on PORT+i-1")
	d.Each.bindTuning(fs)
}

// Validate reports every problem at once, as Config.Validate.
func (d *Dev) Validate() error {
	var p problems
	if d.Nodes < 1 || d.Nodes > devNodesMax {
		p.add("nodes", "%d is not between 1 and %d", d.Nodes, devNodesMax)
	}
	if err := checkDialable(d.ClientAddr); err != nil {
		p.check("client-addr", err)
	} else if _, port := d.client(0); port+int(d.Nodes)-1 > 65535 {
		p.add("client-addr", "%s leaves no ports for %d nodes", d.ClientAddr, d.Nodes)
	}
	d.Each.validateTuning(&p)
	return errors.Join(p...)
}

// client returns the API address of node i, counted from 0, and its port.
func (d *Dev) client(i uint) (addr string, port int) {
	host, p, _ := net.SplitHostPort(d.ClientAddr)
	port, _ = strconv.Atoi(p)
	port += int(i)
	return net.JoinHostPort(host, strconv.Itoa(port)), port
}

// Ports are the free loopback ports one node of a dev mesh gets.
type Ports struct{ Peer, Gossip, HTTP int }

// Node returns the configuration of node i, counted from 0, in dir. The first
// node is the genesis; all others join its gossip port. d must be valid.
func (d *Dev) Node(i uint, dir string, ports []Ports) Config {
	c := d.Each
	c.Identity.Name = fmt.Sprintf("node-%d", i+1)
	c.Identity.DataDir = filepath.Join(dir, c.Identity.Name)
	c.Mesh = Mesh{Genesis: i == 0, KeyFile: filepath.Join(dir, meshKeyFile)}
	if i > 0 {
		c.Mesh.Join = []string{loopback(ports[0].Gossip)}
	}
	c.Listen.Client, _ = d.client(i)
	c.Listen.Peer = fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", ports[i].Peer)
	c.Listen.Gossip = loopback(ports[i].Gossip)
	c.Listen.HTTP = loopback(ports[i].HTTP)
	return c
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
