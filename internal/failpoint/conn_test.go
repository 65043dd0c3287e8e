//go:build failpoints

package failpoint

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// While a process is cut off nothing passes its connections and nobody is told; what
// waited arrives behind it, deadlines and the end of a connection hold meanwhile.
func TestConnWhileCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := Conn(near)
		severed.Store(true)
		defer severed.Store(false)

		got := make(chan string, 1)
		go func() {
			b := make([]byte, 8)
			n, _ := c.Read(b)
			got <- string(b[:n])
		}()
		go func() { _, _ = far.Write([]byte("word")) }()
		time.Sleep(time.Minute)
		select {
		case s := <-got:
			t.Fatalf("%q came through", s)
		default:
		}
		severed.Store(false)
		if s := <-got; s != "word" {
			t.Fatalf("%q came behind the cut, want what waited", s)
		}

		severed.Store(true)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a write behind its deadline: %v", err)
		}
		_ = c.SetWriteDeadline(time.Time{})
		go func() {
			time.Sleep(time.Second)
			c.Close()
		}()
		if _, err := c.Write([]byte("lost")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a write to what was closed: %v", err)
		}
	})
}
