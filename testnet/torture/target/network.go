package target

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/testnet/compose"
	"github.com/anchormesh/anchormesh/testnet/torture/netq"
)

// bridge is the Network of containers. Cuts are iptables rules in the receiver's
// network namespace, which holds no others in its tables of packets.
type bridge struct {
	mesh  *compose.Mesh
	netem bool // else packet queues

	mu       sync.Mutex
	queues   []*netq.Queue
	isolated map[int]bool
}

func newBridge(ctx context.Context, mesh *compose.Mesh) *bridge {
	b := &bridge{mesh: mesh, isolated: map[int]bool{}}
	n := mesh.Nodes[0]
	if _, err := inside(ctx, n, "tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"); err == nil {
		_, err = inside(ctx, n, "tc", "qdisc", "del", "dev", "lo", "root")
		b.netem = err == nil
	}
	return b
}

// Means says how delay and loss are made.
func (b *bridge) Means() string {
	if b.netem {
		return "tc netem"
	}
	return "NFQUEUE packet queues (this kernel or machine has no tc netem)"
}

func (b *bridge) Cut(ctx context.Context, from, to []int) error {
	for _, receiver := range to {
		for _, sender := range from {
			_, err := inside(ctx, b.mesh.Nodes[receiver], "iptables", "-A", "INPUT", "-s", b.mesh.Nodes[sender].IP, "-j", "DROP")
			if err != nil && !errors.Is(err, errGone) {
				return err
			}
		}
	}
	return nil
}

func (b *bridge) Worsen(ctx context.Context, node int, late time.Duration, percent int) error {
	n := b.mesh.Nodes[node]
	if b.netem {
		_, err := inside(ctx, n, "tc", "qdisc", "replace", "dev", "eth0", "root", "netem",
			"delay", fmt.Sprintf("%dus", late.Microseconds()), fmt.Sprintf("%dus", late.Microseconds()/4), "loss", fmt.Sprintf("%d%%", percent))
		return err
	}
	pid, err := pidOf(ctx, n)
	if err != nil {
		return err
	}
	number, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	q, err := netq.Open(number, netq.Quality{Delay: late, Jitter: late / 4, Percent: percent}, uint64(node))
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.queues = append(b.queues, q)
	b.mu.Unlock()
	for _, rule := range netq.Rules() {
		if _, err := inside(ctx, n, append([]string{"iptables"}, rule...)...); err != nil {
			return err
		}
	}
	return nil
}

func (b *bridge) Isolate(ctx context.Context, node int) error {
	b.mu.Lock()
	b.isolated[node] = true
	b.mu.Unlock()
	_, err := compose.Run(ctx, "docker", "network", "disconnect", b.mesh.Network, b.mesh.Nodes[node].Container)
	return err
}

func (b *bridge) Heal(ctx context.Context) error {
	b.mu.Lock()
	queues, isolated := b.queues, b.isolated
	b.queues, b.isolated = nil, map[int]bool{}
	b.mu.Unlock()
	var problems []error
	for i, n := range b.mesh.Nodes {
		if isolated[i] {
			_, err := compose.Run(ctx, "docker", "network", "connect", "--ip", n.IP, "--alias", n.Name, b.mesh.Network, n.Container)
			problems = append(problems, err)
		}
		problems = append(problems, b.clear(ctx, n))
	}
	for _, q := range queues {
		q.Close()
	}
	return errors.Join(problems...)
}

// clear takes every rule out of a container's network. A container that does not
// run has none.
func (b *bridge) clear(ctx context.Context, n compose.Node) error {
	for _, chain := range []string{"INPUT", "OUTPUT"} {
		if _, err := inside(ctx, n, "iptables", "-F", chain); errors.Is(err, errGone) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if b.netem {
		_, _ = inside(ctx, n, "tc", "qdisc", "del", "dev", "eth0", "root") // fails if there is none
	}
	return nil
}
