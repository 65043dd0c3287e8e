package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/anchormesh/anchormesh/node/config"
)

const (
	// checkEvery paces the question whether a dev mesh serves yet.
	checkEvery = 50 * time.Millisecond
	// checkTimeout bounds one such question.
	checkTimeout = time.Second
	// complainEvery paces the word that it still does not.
	complainEvery = 10 * time.Second
)

// devMesh is the mesh of one process.
type devMesh struct {
	dir       string
	temporary bool
	nodes     []devNode
	log       *slog.Logger
}

// run starts all nodes, says when they serve, and stops them when ctx ends or
// the first of them fails. It returns after all have stopped.
func (m *devMesh) run(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ends := make(chan error, len(m.nodes))
	for _, n := range m.nodes {
		end := n.start(ctx)
		go func() { ends <- <-end }()
	}
	ready := make(chan bool, 1)
	go func() { ready <- m.waitReady(ctx) }()
	var problems []error
	for running := len(m.nodes); running > 0 || ready != nil; {
		select {
		case ok := <-ready:
			if ready = nil; ok && len(problems) == 0 {
				m.announce(out)
			}
		case err := <-ends:
			if running--; err != nil {
				problems = append(problems, err)
				cancel(err)
			}
		}
	}
	if len(problems) == 0 {
		fmt.Fprintln(out, "\nStopped.")
	}
	return errors.Join(problems...)
}

// waitReady asks every node until it serves a linearizable read; false if ctx
// ended first. What takes long is said, with its reason.
func (m *devMesh) waitReady(ctx context.Context) bool {
	tick, complain := time.NewTicker(checkEvery), time.NewTicker(complainEvery)
	defer tick.Stop()
	defer complain.Stop()
	for _, n := range m.nodes {
		for {
			err := n.checkOnce(ctx)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return false
			case <-complain.C:
				m.log.Warn("still not serving", "node", n.cfg.Identity.Name, "reason", err)
			case <-tick.C:
			}
		}
	}
	return ctx.Err() == nil
}

func (n devNode) checkOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	return n.Check(ctx)
}

func (m *devMesh) announce(out io.Writer) {
	kept := "kept"
	if m.temporary {
		kept = "temporary, removed at the end; --data-dir DIR keeps it"
	}
	fmt.Fprintf(out, "A mesh of %d serves. Data in %s (%s).\n\n", len(m.nodes), m.dir, kept)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tETCD API\tHEALTH AND METRICS")
	var clients []string
	for _, n := range m.nodes {
		fmt.Fprintf(w, "%s\t%s\thttp://%s\n", n.cfg.Identity.Name, n.cfg.Listen.Client, n.cfg.Listen.HTTP)
		clients = append(clients, n.cfg.Listen.Client)
	}
	w.Flush()
	fmt.Fprintf(out, `
Try:
  etcdctl --endpoints=%[1]s put greeting hello
  etcdctl --endpoints=%[2]s get greeting
  anchormesh nodes --endpoint %[2]s

Ctrl-C stops.
`, strings.Join(clients, ","), clients[len(clients)-1])
}

// freePorts finds loopback ports that are free now for n nodes. Another program
// may take one before the node does; the node's error names it then. All are
// held until all are found, so that none is given twice.
func freePorts(n int) ([]config.Ports, error) {
	var held []io.Closer
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	take := func() (int, error) {
		// Gossip needs the same number for TCP and UDP; a few tries find one.
		var err error
		for range 16 {
			var l net.Listener
			if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
				return 0, err
			}
			held = append(held, l)
			var p net.PacketConn
			if p, err = net.ListenPacket("udp", l.Addr().String()); err == nil {
				held = append(held, p)
				return l.Addr().(*net.TCPAddr).Port, nil
			}
		}
		return 0, fmt.Errorf("no free loopback port: %w", err)
	}
	out := make([]config.Ports, n)
	for i := range out {
		for _, p := range []*int{&out[i].Peer, &out[i].Gossip, &out[i].HTTP} {
			port, err := take()
			if err != nil {
				return nil, err
			}
			*p = port
		}
	}
	return out, nil
}
