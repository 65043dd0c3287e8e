package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/fsys"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

func (n *testNode) expect(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-n.ups:
		if got != want {
			t.Fatalf("event %q, want %q", got, want)
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("no event %q", want)
	}
}

func oneSentence(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("%q does not mention %q", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

func TestStrangersAreNotDialled(t *testing.T) {
	a, b := newTestNode(t), newTestNode(t)
	if _, err := a.Call(testContext(t), b.id, 1); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	if _, err := a.Call(testContext(t), a.id, 1); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	if _, err := a.Call(testContext(t), "nonsense", 1); !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	if a.Stats().Dialled != 0 || b.Stats().Accepted != 0 {
		t.Fatal("dialled")
	}
}

func TestUnreachablePeerFailsFastWhileTheDialPauses(t *testing.T) {
	cfg, a := testConfig(t)
	cfg.Limits.Backoff, cfg.Limits.BackoffMax = time.Hour, time.Hour
	startHost(t, cfg, a)
	b := newTestNode(t)
	addr := b.ListenAddr()
	b.Close()
	a.book.set(b.id, addr)
	_, err := a.Call(testContext(t), b.id, 1)
	if !errors.Is(err, ErrUnreachable) {
		t.Fatal(err)
	}
	oneSentence(t, err, "connection refused", addr)
	begun := time.Now()
	if _, err = a.Call(testContext(t), b.id, 1); !errors.Is(err, ErrUnreachable) || time.Since(begun) > 100*time.Millisecond {
		t.Fatalf("%v after %v", err, time.Since(begun))
	}
	// The first message of a class finds out, the next ones know.
	testkit.Eventually(t, "messages are dropped at once", func() bool { return !a.Send(b.id, 0, []byte("x")) })
	if a.Stats().DialFailed != 1 {
		t.Fatalf("dialled %d times", a.Stats().DialFailed)
	}
}

func TestConnectionLossLeavesTheOutcomeUnknown(t *testing.T) {
	a, b := pair(t)
	got := make(chan struct{})
	b.HandleCalls(1, func(_ anchormesh.NodeID, _ []byte, r Responder) { close(got) })
	done := make(chan error, 1)
	go func() {
		_, err := a.Call(testContext(t), b.id, 1, []byte("x"))
		done <- err
	}()
	<-got
	a.expect(t, "up "+string(b.id))
	b.Close()
	if err := <-done; !errors.Is(err, ErrUnknownOutcome) {
		t.Fatal(err)
	}
	a.expect(t, "down "+string(b.id))
	if a.Connected(b.id) {
		t.Fatal("still connected")
	}
}

func TestCallerGivesUp(t *testing.T) {
	a, b := pair(t)
	deadlines := make(chan time.Duration, 1)
	var late Responder
	answered := make(chan struct{})
	b.HandleCalls(1, func(_ anchormesh.NodeID, _ []byte, r Responder) {
		deadlines <- time.Until(r.Deadline())
		late = r
		close(answered)
	})
	b.HandleCalls(2, echo)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := a.Call(ctx, b.id, 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if d := <-deadlines; d <= 0 || d > 300*time.Millisecond {
		t.Fatalf("the handler was given %v", d)
	}
	<-answered
	late.Reply([]byte("too late"))
	if p, err := a.Call(testContext(t), b.id, 2, []byte("next")); string(p) != "next" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
}

func TestTooManyCallersAreToldAtOnce(t *testing.T) {
	cfg, a := testConfig(t)
	cfg.Limits.CallCount = 3
	startHost(t, cfg, a)
	b := newTestNode(t)
	acquaint(a, b)
	hold := make(chan Responder, 10)
	b.HandleCalls(1, func(_ anchormesh.NodeID, _ []byte, r Responder) { hold <- r })
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := a.Call(testContext(t), b.id, 1); err != nil {
				t.Error(err)
			}
		})
	}
	held := []Responder{<-hold, <-hold, <-hold}
	if _, err := a.Call(testContext(t), b.id, 1); !errors.Is(err, ErrOverloaded) {
		t.Error(err)
	}
	for _, r := range held {
		r.Reply()
	}
	wg.Wait()
	if a.Stats().Overloaded != 1 {
		t.Errorf("counted %d", a.Stats().Overloaded)
	}
}

func TestMessagesToASlowPeerAreDroppedAndCounted(t *testing.T) {
	cfg, a := testConfig(t)
	cfg.Limits.MessageCount = 100
	startHost(t, cfg, a)
	b := newTestNode(t)
	acquaint(a, b)
	release := make(chan struct{})
	b.HandleMessages(0, func(anchormesh.NodeID, []byte) { <-release })
	defer close(release)
	other := make(chan struct{}, 1)
	b.HandleMessages(1, func(anchormesh.NodeID, []byte) { other <- struct{}{} })
	sent := uint64(0)
	payload := make([]byte, 32<<10)
	testkit.Eventually(t, "the queue is full", func() bool {
		for a.Send(b.id, 0, payload) {
			sent++
		}
		// Full, if it stays so: the stream's window, too.
		return a.Stats().MessagesDropped > 200
	})
	if st := a.Stats(); st.MessagesSent != sent || sent < 100 || sent > 1000 {
		t.Fatalf("sent %d, counted %+v", sent, st)
	}
	if !a.Send(b.id, 1, []byte("x")) {
		t.Fatal("another class is held up")
	}
	<-other
	if a.Send(b.id, 1, make([]byte, cfg.Limits.FrameBytes+1)) {
		t.Fatal("a message above the frame limit was taken")
	}
}

func TestAnotherKeyGetsNothing(t *testing.T) {
	cfg, a := testConfig(t)
	cfg.Key = meshkey.Key{9}
	startHost(t, cfg, a)
	b := newTestNode(t)
	acquaint(a, b)
	begun := time.Now()
	_, err := a.Call(testContext(t), b.id, 1)
	if !errors.Is(err, ErrUnreachable) || time.Since(begun) > 4*time.Second {
		t.Fatalf("%v after %v", err, time.Since(begun))
	}
	oneSentence(t, err, "mesh key")
	c, err := NewClientHost(meshkey.Key{8}, cfg.Limits)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, err = c.Dial(testContext(t), b.ListenAddr()+"/p2p/"+string(b.id))
	oneSentence(t, err, "mesh key")
	if b.Stats().Accepted != 0 {
		t.Fatal("a stranger was let in")
	}
}

func TestScannersDoNoHarm(t *testing.T) {
	a, b := pair(t)
	b.HandleCalls(1, echo)
	m, err := multiaddr.NewMultiaddr(b.ListenAddr())
	if err != nil {
		t.Fatal(err)
	}
	for _, hello := range []string{"", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00", strings.Repeat("\xff", 100_000)} {
		c, err := manet.Dial(m)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		io.WriteString(c, hello) // may fail: the node may have had enough
	}
	if p, err := a.Call(testContext(t), b.id, 1, []byte("x")); string(p) != "x" || err != nil {
		t.Fatalf("%q, %v", p, err)
	}
}

// stranger connects as a node would and gives the test the raw connection.
func stranger(t *testing.T, to *testNode) *conn {
	t.Helper()
	cfg, _ := testConfig(t)
	end, err := newEndpoint(cfg.Identity, cfg.Key, cfg.Limits)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := peer.Decode(string(to.id))
	if err != nil {
		t.Fatal(err)
	}
	tc, err := end.dial(testContext(t), pid, []string{to.ListenAddr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tc.Close(); end.close() })
	return &conn{tc: tc, id: cfg.Identity.id}
}

func TestOtherVersionsAndMeshesAreRefusedInOneSentence(t *testing.T) {
	cfg, b := testConfig(t)
	met := make(chan anchormesh.MeshID, 1)
	cfg.Events.ForeignMesh = func(m anchormesh.MeshID, _ anchormesh.NodeID) { met <- m }
	startHost(t, cfg, b)
	c := stranger(t, b)
	for _, x := range []struct {
		hi   hello
		want string
	}{
		{hello{version: 2}, "version 1 of the stream protocol, this node version 1"},
		{hello{version: 1, mesh: 8}, "belongs to mesh 0000000000000007, this node to mesh 0000000000000008"},
	} {
		s, err := c.tc.OpenStream(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		_, err = greet(s, protocolCalls, x.hi)
		if !errors.Is(err, ErrRefused) {
			t.Fatalf("%v", err)
		}
		if x.hi.version == 1 {
			oneSentence(t, err, x.want)
		}
	}
	if m := <-met; m != 8 {
		t.Fatalf("met mesh %v", m)
	}
	if st := b.Stats(); st.Refused != 2 || st.Foreign != 1 {
		t.Fatalf("%+v", st)
	}
	s, err := c.tc.OpenStream(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = greet(s, "/anchormesh/calls/9", hello{version: 1}); err == nil {
		t.Fatal("an unknown protocol was taken")
	}
}

func TestGarbageResetsTheStreamOnly(t *testing.T) {
	b := newTestNode(t)
	c := stranger(t, b)
	for range 3 {
		s, err := c.tc.OpenStream(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := greet(s, protocolMessages, hello{version: 1}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte{0xff, 0xff, 0xff, 0xff, 0}); err != nil {
			t.Fatal(err)
		}
		s.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the stream lives on: %v", err)
		}
	}
	testkit.Eventually(t, "garbage is counted", func() bool { return b.Stats().Garbage == 3 })
	if c.tc.IsClosed() {
		t.Fatal("the connection was closed")
	}
	b.Close() // joins whoever might still log
	if n := strings.Count(b.logs.String(), "broke the protocol"); n != 1 {
		t.Fatalf("%d log lines:\n%s", n, b.logs)
	}
}

func TestPeerReturnsAtAnotherAddress(t *testing.T) {
	a := newTestNode(t)
	cfg, b := testConfig(t)
	startHost(t, cfg, b)
	acquaint(a, b)
	b.HandleCalls(1, echo)
	if _, err := a.Call(testContext(t), b.id, 1); err != nil {
		t.Fatal(err)
	}
	a.expect(t, "up "+string(b.id))
	b.Close()
	a.expect(t, "down "+string(b.id))
	cfg.Boot++
	startHost(t, cfg, b)
	b.HandleCalls(1, echo)
	a.book.set(b.id, b.ListenAddr())
	a.Refresh(b.id)
	testkit.Eventually(t, "calls work again", func() bool {
		_, err := a.Call(testContext(t), b.id, 1)
		return err == nil
	})
	a.expect(t, "up "+string(b.id))
}

func TestLostConnectionIsMadeAgainUnasked(t *testing.T) {
	a, b := pair(t)
	b.HandleCalls(1, echo)
	if _, err := a.Call(testContext(t), b.id, 1); err != nil {
		t.Fatal(err)
	}
	a.expect(t, "up "+string(b.id))
	a.lookup(b.id).main.best().close()
	a.expect(t, "down "+string(b.id))
	a.expect(t, "up "+string(b.id))
}

func TestSimultaneousConnectsSettle(t *testing.T) {
	nodes := make([]*testNode, 2)
	for i := range nodes {
		cfg, n := testConfig(t)
		cfg.Limits.KeepAlive = 50 * time.Millisecond
		cfg.Limits.Calm = 100 * time.Millisecond
		cfg.Limits.Idle = 100 * time.Millisecond
		nodes[i] = startHost(t, cfg, n)
		n.HandleCalls(1, echo)
	}
	a, b := nodes[0], nodes[1]
	acquaint(a, b)
	// Make two connections, whoever would have been first.
	for _, n := range [][2]*testNode{{a, b}, {b, a}} {
		p, err := n[0].peer(n[1].id)
		if err != nil {
			t.Fatal(err)
		}
		p.main.mu.Lock()
		d, err := p.main.dialLocked()
		p.main.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		<-d.done
	}
	both := func(what string) {
		for _, n := range [][2]*testNode{{a, b}, {b, a}} {
			if p, err := n[0].Call(testContext(t), n[1].id, 1, []byte(what)); string(p) != what || err != nil {
				t.Fatalf("%s: %q, %v", what, p, err)
			}
		}
	}
	both("two connections")
	testkit.Eventually(t, "one connection is left", func() bool { return a.Stats().Conns == 1 && b.Stats().Conns == 1 })
	both("one connection")
	if !a.Connected(b.id) || !b.Connected(a.id) || a.Stats().Conns != 1 {
		t.Fatalf("%+v", a.Stats())
	}
}

func TestBusyPortIsNamed(t *testing.T) {
	a := newTestNode(t)
	cfg, _ := testConfig(t)
	cfg.Listen = a.ListenAddr()
	_, err := NewHost(cfg)
	oneSentence(t, err, a.ListenAddr(), "address already in use")
}

func TestClientsConnectWithAndWithoutAMesh(t *testing.T) {
	a, b := pair(t)
	go func() {
		for {
			c, err := b.Clients().Accept()
			if err != nil {
				return
			}
			io.WriteString(c, c.RemoteAddr().(Addr).ID.Short()+"\n")
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	out, err := NewClientHost(testKey, DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	addr := b.ListenAddr() + "/p2p/" + string(b.id)
	for name, x := range map[string]struct {
		dial func() (net.Conn, error)
		id   anchormesh.NodeID
	}{
		"member": {func() (net.Conn, error) { return a.DialClient(testContext(t), b.id) }, a.id},
		"client": {func() (net.Conn, error) { return out.Dial(testContext(t), addr) }, out.ID()},
	} {
		c, err := x.dial()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.RemoteAddr().Network() != "libp2p" || c.RemoteAddr().String() != addr {
			t.Errorf("%s: remote address %s", name, c.RemoteAddr())
		}
		io.WriteString(c, "ping")
		want := x.id.Short() + "\nping"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: deadline: %v", name, err)
		}
		c.Close()
	}
	for _, bad := range []string{"", "127.0.0.1:1", b.ListenAddr(), "/p2p/" + string(b.id)} {
		if _, err := out.Dial(testContext(t), bad); !errors.Is(err, ErrClientAddr) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestCloseLeavesNothingBehind(t *testing.T) {
	before := runtime.NumGoroutine()
	a, b := pair(t)
	b.HandleCalls(1, echo)
	b.HandleBulk("x", func(_ anchormesh.NodeID, s BulkStream) { io.Copy(io.Discard, s); s.Close() })
	if _, err := a.Call(testContext(t), b.id, 1); err != nil {
		t.Fatal(err)
	}
	a.Send(b.id, 0, []byte("x"))
	if _, err := a.OpenBulk(testContext(t), b.id, "x"); err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	if _, err := a.Call(testContext(t), b.id, 1); err == nil {
		t.Fatal("a closed host calls")
	}
	if a.Send(b.id, 0, []byte("x")) {
		t.Fatal("a closed host sends")
	}
	a.Close()
	testkit.Eventually(t, "all goroutines ended", func() bool { return runtime.NumGoroutine() <= before })
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	id, err := LoadIdentity(fsys.OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadIdentity(fsys.OS, dir)
	if err != nil || again.NodeID() != id.NodeID() {
		t.Fatalf("%v, %s and %s", err, id.NodeID(), again.NodeID())
	}
	info, err := os.Stat(filepath.Join(dir, IdentityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, mode %v", err, info.Mode())
	}
	if got, err := NodeIDOf(id.PublicKey()); err != nil || got != id.NodeID() {
		t.Fatalf("%s, %v", got, err)
	}
}

func TestDamagedIdentityIsRefusedAndKept(t *testing.T) {
	for _, text := range []string{"", "x", identityPrefix + "***", identityPrefix + "AAAA", strings.Repeat("x", 5000)} {
		dir := t.TempDir()
		path := filepath.Join(dir, IdentityFile)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadIdentity(fsys.OS, dir)
		oneSentence(t, err, path)
		if kept, _ := os.ReadFile(path); string(kept) != text {
			t.Fatal("the file was changed")
		}
	}
}
