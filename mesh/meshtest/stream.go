package meshtest

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/mesh/wire"
)

// duplex is one end of a byte stream whose directions close one by one: a pipe
// for each. Links do not delay it.
type duplex struct {
	owner         *Node
	in, out       net.Conn
	local, remote wire.Addr
	reset         func()
	once          sync.Once
}

var errReset = errors.New("stream reset")

func newDuplex(a, b *Node) (x, y *duplex) {
	in1, out1 := net.Pipe()
	in2, out2 := net.Pipe()
	addrA := wire.Addr{ID: a.id, Multiaddr: "/memory/0"}
	addrB := wire.Addr{ID: b.id, Multiaddr: "/memory/0"}
	x = &duplex{owner: a, in: in1, out: out2, local: addrA, remote: addrB}
	y = &duplex{owner: b, in: in2, out: out1, local: addrB, remote: addrA}
	broken := make(chan struct{})
	var once sync.Once
	reset := func() {
		once.Do(func() { close(broken) })
		for _, c := range []net.Conn{in1, out1, in2, out2} {
			c.Close()
		}
	}
	x.reset, y.reset = reset, reset
	x.in, y.in = &resettable{in1, broken}, &resettable{in2, broken}
	return x, y
}

// resettable lets reads tell a reset from an end.
type resettable struct {
	net.Conn
	broken chan struct{}
}

func (r *resettable) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	if err == nil {
		return n, nil
	}
	select {
	case <-r.broken:
		return n, errReset
	default:
	}
	if errors.Is(err, io.ErrClosedPipe) {
		err = net.ErrClosed
	}
	return n, err
}

func (d *duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d *duplex) CloseWrite() error           { return d.out.Close() }

func (d *duplex) Close() error {
	d.once.Do(func() { d.owner.untrack(d) })
	return errors.Join(d.out.Close(), d.in.Close())
}

func (d *duplex) Reset() error {
	d.once.Do(func() { d.owner.untrack(d) })
	d.reset()
	return nil
}

func (d *duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.SetReadDeadline(t), d.SetWriteDeadline(t))
}
func (d *duplex) SetReadDeadline(t time.Time) error  { return d.in.SetReadDeadline(t) }
func (d *duplex) SetWriteDeadline(t time.Time) error { return d.out.SetWriteDeadline(t) }
func (d *duplex) LocalAddr() net.Addr                { return d.local }
func (d *duplex) RemoteAddr() net.Addr               { return d.remote }

// listener is the net.Listener of client streams.
type listener struct {
	addr    wire.Addr
	backlog chan *duplex
	done    chan struct{}
	once    sync.Once
}

const backlogMax = 64

func newListener(addr wire.Addr) *listener {
	return &listener{addr: addr, backlog: make(chan *duplex, backlogMax), done: make(chan struct{})}
}

func (l *listener) offer(s *duplex) bool {
	select {
	case <-l.done:
		return false
	case l.backlog <- s:
		return true
	default:
		return false
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	case s := <-l.backlog:
		return s, nil
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }
