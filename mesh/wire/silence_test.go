package wire

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// proxy forwards TCP to a node until it is told to fall silent: then bytes
// vanish and nothing is closed, as when a machine loses its power.
type proxy struct {
	net.Listener
	to     net.Addr
	mu     sync.Mutex
	silent bool
	conns  []net.Conn
}

func newProxy(t *testing.T, to *testNode) *proxy {
	t.Helper()
	m, err := multiaddr.NewMultiaddr(to.ListenAddr())
	if err != nil {
		t.Fatal(err)
	}
	addr, err := manet.ToNetAddr(m)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: addr}
	t.Cleanup(p.close)
	go p.run()
	return p
}

func (p *proxy) multiaddr(t *testing.T) string {
	m, err := manet.FromNetAddr(p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return m.String()
}

func (p *proxy) run() {
	for {
		in, err := p.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", p.to.String())
		if err != nil {
			in.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, in, out)
		p.mu.Unlock()
		go p.copy(in, out)
		go p.copy(out, in)
	}
}

func (p *proxy) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		silent := p.silent
		p.mu.Unlock()
		switch {
		case err != nil && silent:
			return
		case err != nil:
			to.Close()
			return
		case silent:
			continue
		}
		if _, err := io.Writer(to).Write(buf[:n]); err != nil {
			from.Close()
			return
		}
	}
}

func (p *proxy) setSilent(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
}

func (p *proxy) close() {
	p.Close()
	p.setSilent(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

func TestSilentPeerIsNoticedAndFoundAgain(t *testing.T) {
	cfg, a := testConfig(t)
	cfg.Limits.KeepAlive = 200 * time.Millisecond
	cfg.Limits.Handshake = 300 * time.Millisecond
	cfg.Limits.Dial = 400 * time.Millisecond
	startHost(t, cfg, a)
	b := newTestNode(t)
	p := newProxy(t, b)
	a.book.set(b.id, p.multiaddr(t))
	b.HandleCalls(1, echo)
	if _, err := a.Call(testContext(t), b.id, 1); err != nil {
		t.Fatal(err)
	}
	a.expect(t, "up "+string(b.id))
	p.setSilent(true)
	begun := time.Now()
	a.expect(t, "down "+string(b.id)) // nothing was sent: the ping found out
	if took := time.Since(begun); took > 3*time.Second {
		t.Fatalf("noticed after %v", took)
	}
	p.setSilent(false)
	a.expect(t, "up "+string(b.id)) // unasked
	if got, err := a.Call(testContext(t), b.id, 1, []byte("x")); string(got) != "x" || err != nil {
		t.Fatalf("%q, %v", got, err)
	}
}
