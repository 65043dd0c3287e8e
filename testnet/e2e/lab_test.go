package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/anchormesh/anchormesh/testnet/binaries"
	"github.com/anchormesh/anchormesh/testnet/cluster"
	"github.com/anchormesh/anchormesh/testnet/target"
)

// lab is a mesh whose nodes a test starts, damages and moves one by one, as
// processes of the real program.
type lab struct {
	t       *testing.T
	program string
	dir     string
	keyFile string
	nodes   []*labNode
}

// labNode is one node. Its fields may be changed while it does not run.
type labNode struct {
	lab                        *lab
	name, dir                  string
	client, peer, gossip, http string // host:port
	args                       []string
	env                        []string

	run *labRun
}

// labRun is one process of a node.
type labRun struct {
	cmd    *exec.Cmd
	output lockedBuffer
	done   chan struct{}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newLab makes an empty mesh; etcd has no use for these tests.
func newLab(t *testing.T) *lab {
	t.Helper()
	if kind, err := target.Kind(); err != nil || kind != cluster.Mesh {
		t.Skip("only a mesh can be tried so")
	}
	program, err := binaries.AnchorMesh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, program: program, dir: t.TempDir()}
	l.keyFile = l.newKey("mesh.key")
	t.Cleanup(l.close)
	return l
}

// labMesh starts n nodes, the first as genesis, and waits for the anchors.
func labMesh(t *testing.T, n int, args ...string) *lab {
	t.Helper()
	l := newLab(t)
	for range n {
		l.add(args...).start()
	}
	l.awaitVoters(min(3, n-1+n%2))
	return l
}

func (l *lab) close() {
	for _, n := range l.nodes {
		n.kill()
	}
	if !l.t.Failed() {
		return
	}
	for _, n := range l.nodes {
		if n.run != nil {
			text := n.run.output.String()
			l.t.Logf("end of the output of %s:\n%s", n.name, text[max(0, len(text)-3000):])
		}
	}
}

func (l *lab) newKey(name string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	key, err := exec.Command(l.program, "key", "new").Output()
	if err == nil {
		err = os.WriteFile(path, key, 0o600)
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return path
}

// add describes one more node; the first one is to create the mesh.
func (l *lab) add(args ...string) *labNode {
	n := &labNode{lab: l, name: fmt.Sprintf("n%d", len(l.nodes)+1), args: args}
	n.dir = filepath.Join(l.dir, n.name)
	n.move()
	l.nodes = append(l.nodes, n)
	return n
}

// move gives the node four other ports.
func (n *labNode) move() {
	n.client, n.peer, n.gossip, n.http = freeAddr(n.lab.t), freeAddr(n.lab.t), freeAddr(n.lab.t), freeAddr(n.lab.t)
}

var givenPorts sync.Map // never one twice

// freeAddr finds a loopback port that is free for TCP and UDP, below the ports
// that the system gives to outgoing connections.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(20000))
		if _, given := givenPorts.LoadOrStore(addr, true); given {
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		p, err := net.ListenPacket("udp", addr)
		l.Close()
		if err == nil {
			p.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// flags is the node's command line.
func (n *labNode) flags() []string {
	host, port, _ := net.SplitHostPort(n.peer)
	args := []string{
		"serve", "--name", n.name, "--data-dir", n.dir, "--mesh-key-file", n.lab.keyFile,
		"--client-addr", n.client, "--peer-addr", "/ip4/" + host + "/tcp/" + port, "--gossip-addr", n.gossip, "--http-addr", n.http,
	}
	if n == n.lab.nodes[0] {
		args = append(args, "--genesis")
	}
	var others []string
	for _, o := range n.lab.nodes {
		if o != n {
			others = append(others, o.gossip)
		}
	}
	if len(others) > 0 {
		args = append(args, "--join", strings.Join(others, ","))
	}
	return append(args, n.args...)
}

// start runs the node and does not wait until it serves.
func (n *labNode) start() *labNode {
	n.lab.t.Helper()
	r := &labRun{done: make(chan struct{}), cmd: exec.Command(n.lab.program, n.flags()...)}
	r.cmd.Stdout, r.cmd.Stderr = &r.output, &r.output
	r.cmd.Env = append(os.Environ(), n.env...)
	if err := r.cmd.Start(); err != nil {
		n.lab.t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	n.run = r
	return n
}

func (n *labNode) running() bool {
	if n.run == nil {
		return false
	}
	select {
	case <-n.run.done:
		return false
	default:
		return true
	}
}

// kill ends the node with SIGKILL.
func (n *labNode) kill() {
	if n.running() {
		_ = n.run.cmd.Process.Kill()
		<-n.run.done
	}
}

// stop ends the node with SIGTERM; it must end with status 0.
func (n *labNode) stop() {
	n.lab.t.Helper()
	if err := n.run.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.lab.t.Fatal(err)
	}
	if status := n.exit(20 * time.Second); status != 0 {
		n.lab.t.Errorf("%s ended with status %d when told to stop:\n%s", n.name, status, n.run.output.String())
	}
}

// exit waits for the node's end and returns its status, -1 after a signal.
func (n *labNode) exit(limit time.Duration) int {
	n.lab.t.Helper()
	select {
	case <-n.run.done:
	case <-time.After(limit):
		_ = n.run.cmd.Process.Signal(syscall.SIGQUIT) // to hear what it is at
		select {
		case <-n.run.done:
		case <-time.After(limit):
		}
		n.lab.t.Fatalf("%s still runs after %v:\n%s", n.name, limit, n.run.output.String())
	}
	return n.run.cmd.ProcessState.ExitCode()
}

// complaint is what the program said when it ended: the lines of its own, not
// of its log.
func (n *labNode) complaint() string {
	var own []string
	for line := range strings.Lines(n.run.output.String()) {
		if !strings.HasPrefix(line, "time=") {
			own = append(own, line)
		}
	}
	return strings.Join(own, "")
}

// dial returns a client of the given nodes, or of all.
func (l *lab) dial(nodes ...*labNode) *clientv3.Client {
	l.t.Helper()
	if len(nodes) == 0 {
		nodes = l.nodes
	}
	var endpoints []string
	for _, n := range nodes {
		endpoints = append(endpoints, "http://"+n.client)
	}
	c, err := cluster.Dial(endpoints...)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

// segmentJSON is of `anchormesh segments -o json` what tests look at.
type segmentJSON struct {
	ID       string
	Leader   string
	Revision int64
	Local    bool
	Anchors  []anchorJSON
}

type anchorJSON struct {
	Node, Role, Zone string
	Replica          uint64
}

func (s segmentJSON) voters() (out []string) {
	for _, a := range s.Anchors {
		if a.Role == "voter" {
			out = append(out, a.Node)
		}
	}
	return out
}

// cli runs a command of the program.
func (l *lab) cli(args ...string) (stdout, stderr string, status int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stdout, stderr, status = l.cliUntil(ctx, args...)
	if ctx.Err() != nil {
		l.t.Errorf("anchormesh %q did not end within a minute: %s%.4000s", args, stdout, stderr)
	}
	return stdout, stderr, status
}

// cliUntil is cli for somebody whose patience ends with ctx. The program says then what
// it was at.
func (l *lab) cliUntil(ctx context.Context, args ...string) (stdout, stderr string, status int) {
	cmd := exec.CommandContext(ctx, l.program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		switch {
		case ctx.Err() != nil:
			return out.String(), errs.String(), -1
		case !errors.As(err, &exit):
			l.t.Fatal(err)
		}
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// segment asks a node for the one segment.
func (n *labNode) segment() (segmentJSON, error) {
	out, errs, status := n.lab.cli("segments", "-o", "json", "--endpoint", n.client, "--timeout", "2s")
	if status != 0 {
		return segmentJSON{}, errors.New(errs)
	}
	var answer struct{ Segments []segmentJSON }
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return segmentJSON{}, err
	}
	if len(answer.Segments) != 1 {
		return segmentJSON{}, fmt.Errorf("%d segments", len(answer.Segments))
	}
	return answer.Segments[0], nil
}

// nodeJSON is of `anchormesh nodes -o json` what tests look at.
type nodeJSON struct {
	ID, Name, State string
	PeerAddrs       []string `json:"peer_addrs"`
	Self            bool
}

func (n *labNode) members() []nodeJSON {
	out, _, _ := n.lab.cli("nodes", "-o", "json", "--endpoint", n.client)
	var answer struct{ Nodes []nodeJSON }
	_ = json.Unmarshal([]byte(out), &answer) // an empty answer is one without nodes
	return answer.Nodes
}

// self is the node as it sees itself.
func (n *labNode) self() nodeJSON {
	n.lab.t.Helper()
	var self nodeJSON
	n.lab.eventually(20*time.Second, n.name+" to tell its ID", func() error {
		for _, m := range n.members() {
			if m.Self {
				self = m
				return nil
			}
		}
		return errors.New("no answer")
	})
	return self
}

func (n *labNode) id() string { return n.self().ID }

// leader returns the node that leads, as all running nodes agree.
func (l *lab) leader() *labNode {
	l.t.Helper()
	var leader *labNode
	l.eventually(30*time.Second, "a leader", func() error {
		ids := map[string]*labNode{}
		var said []string
		for _, n := range l.nodes {
			if !n.running() {
				continue
			}
			ids[n.id()] = n
			s, err := n.segment()
			if err != nil {
				return err
			}
			if s.Local {
				said = append(said, s.Leader)
			}
		}
		leader = nil
		if len(said) > 0 {
			leader = ids[said[0]]
		}
		if leader == nil || len(slices.Compact(said)) > 1 {
			return fmt.Errorf("leaders: %v", said)
		}
		return nil
	})
	return leader
}

// awaitVoters waits until every running node serves a linearizable read and
// knows of n voters.
func (l *lab) awaitVoters(n int) {
	l.t.Helper()
	for _, node := range l.nodes {
		if !node.running() {
			continue
		}
		c := l.dial(node)
		l.eventually(60*time.Second, fmt.Sprintf("%s to serve with %d voters", node.name, n), func() error {
			if !node.running() {
				l.t.Fatalf("%s ended:\n%s", node.name, node.run.output.String())
			}
			s, err := node.segment()
			if err != nil {
				return err
			}
			if len(s.voters()) != n {
				return fmt.Errorf("anchors %+v", s.Anchors)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_, err = c.Get(ctx, "ready")
			return err
		})
	}
}

// eventually tries until try succeeds.
func (l *lab) eventually(limit time.Duration, what string, try func() error) {
	l.t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("waited %v for %s: %v", limit, what, err)
		}
		<-tick.C
	}
}
