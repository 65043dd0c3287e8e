//go:build failpoints

package failpoint

import (
	"net"
	"os"
	"sync/atomic"
	"time"
)

// cutPoll is how soon a connection notices that the cut has ended.
const cutPoll = 5 * time.Millisecond

// Conn is a connection to another node, to be used in place of c: nothing passes it
// while the process is cut off.
func Conn(c net.Conn) net.Conn { return &conn{Conn: c} }

type conn struct {
	net.Conn
	closed      atomic.Bool
	read, write atomic.Int64 // deadlines in ns since 1970, 0 none
}

// Read implements net.Conn. What came while the process was cut off waits for its end.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if waited := c.wait(&c.read); waited != nil {
		return 0, waited
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	if err := c.wait(&c.write); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// wait returns when the cut has ended, or with why it is waited for no longer. A read
// that ends so has lost what it read, and its user closes the connection.
func (c *conn) wait(deadline *atomic.Int64) error {
	for severed.Load() {
		if c.closed.Load() {
			return net.ErrClosed
		}
		if d := deadline.Load(); d != 0 && time.Now().UnixNano() > d {
			return os.ErrDeadlineExceeded
		}
		time.Sleep(cutPoll)
	}
	return nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	c.read.Store(nanos(t))
	c.write.Store(nanos(t))
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.read.Store(nanos(t))
	return c.Conn.SetReadDeadline(t)
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.write.Store(nanos(t))
	return c.Conn.SetWriteDeadline(t)
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
