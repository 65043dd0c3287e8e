package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrRunning is returned by Start of a node that runs.
	ErrRunning = errors.New("cluster: node is running")
	// ErrNotRunning is returned when a signal is meant for a node that has ended.
	ErrNotRunning = errors.New("cluster: node is not running")
)

// Node is one member of a Cluster. Name, Dir, LogPath and the addresses never
// change, over restarts too.
type Node struct {
	Name    string
	Dir     string // data directory
	LogPath string // output of every incarnation

	// Addresses, host:port on loopback. Gossip and HTTP are unused by etcd.
	Client, Peer, Gossip, HTTP string

	// command gives program and arguments; first is true until a start succeeded.
	command func(n *Node, first bool) (path string, args []string)
	hook    func(n *Node, pid int) error // Config.Started
	points  string                       // Config.Failpoints

	mu      sync.Mutex
	current *process
	started bool
	past    time.Duration // CPU of ended incarnations
}

// Endpoint is the node's client URL.
func (n *Node) Endpoint() string { return "http://" + n.Client }

// Start runs the node; it returns before the node is ready (see Cluster.Ready).
func (n *Node) Start() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.current.running() {
		return fmt.Errorf("%w: %s", ErrRunning, n.Name)
	}
	path, args := n.command(n, !n.started)
	p, err := startProcess(path, args, n.LogPath, n.points)
	if err != nil {
		return err
	}
	n.current, n.started = p, true
	if n.hook != nil {
		return n.hook(n, p.pid)
	}
	return nil
}

// Running reports whether the node's process exists; a stopped one does.
func (n *Node) Running() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.current.running()
}

// Kill ends the node with SIGKILL and returns when it is gone. A node that is
// not running is left as it is.
func (n *Node) Kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.current.running() {
		return
	}
	_ = n.current.os.Kill() // fails only if it ended by itself meanwhile
	n.reapLocked()
}

// Stop ends the node with SIGTERM and returns when it is gone, with an error if
// it did not end cleanly. If ctx ends first the node is killed.
func (n *Node) Stop(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.current.running() {
		return nil
	}
	if err := n.current.os.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-n.current.done:
		n.reapLocked()
		return n.exitErrorLocked()
	case <-ctx.Done():
		_ = n.current.os.Kill()
		n.reapLocked()
		return fmt.Errorf("cluster: %s did not end by itself and was killed: %w", n.Name, ctx.Err())
	}
}

// exitErrorLocked judges the end after SIGTERM: status 0, or death by just that
// signal, which is how etcd ends.
func (n *Node) exitErrorLocked() error {
	status, ok := n.current.state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() && status.Signal() == syscall.SIGTERM {
		return nil
	}
	if n.current.err != nil {
		return fmt.Errorf("cluster: %s: %w (see %s)", n.Name, n.current.err, n.LogPath)
	}
	return nil
}

// Pause stops the process (SIGSTOP): it keeps its connections and does nothing.
func (n *Node) Pause() error { return n.signal(syscall.SIGSTOP) }

// Resume lets a paused process continue (SIGCONT).
func (n *Node) Resume() error { return n.signal(syscall.SIGCONT) }

func (n *Node) signal(sig syscall.Signal) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.current.running() {
		return fmt.Errorf("%w: %s", ErrNotRunning, n.Name)
	}
	return n.current.os.Signal(sig)
}

// Usage returns what the node has cost so far. Only CPU of past incarnations is
// known of a node that does not run.
func (n *Node) Usage() (Usage, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.current.running() {
		return Usage{CPU: n.past}, nil
	}
	usage, err := procUsage(n.current.pid)
	usage.CPU += n.past
	return usage, err
}

// reapLocked waits for the current incarnation and keeps its CPU time.
func (n *Node) reapLocked() {
	<-n.current.done
	n.past += n.current.state.UserTime() + n.current.state.SystemTime()
}

// logTailBytes bounds what LogTail returns.
const logTailBytes = 4 << 10

// LogTail returns the end of the node's log, for an error message.
func (n *Node) LogTail() string {
	data, err := os.ReadFile(n.LogPath)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-logTailBytes):])
}
