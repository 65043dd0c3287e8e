package meshtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh"
)

// Mesh is what *mesh.Mesh and *Node have in common. Users of a mesh declare the
// few methods they need themselves; this is for the suite.
type Mesh interface {
	ID() anchormesh.NodeID
	Self() mesh.Member
	View() mesh.View
	Members() []mesh.Member
	Subscribe() <-chan mesh.View
	MeshID() anchormesh.MeshID
	MeshIDs() []anchormesh.MeshID
	SetMeshID(anchormesh.MeshID) error
	SetClientURLs(...string) error
	Send(to anchormesh.NodeID, class mesh.Class, parts ...[]byte) bool
	HandleMessages(mesh.Class, mesh.MessageHandler)
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	HandleCalls(uint8, mesh.CallHandler)
	OpenBulk(ctx context.Context, to anchormesh.NodeID, protocol string) (mesh.BulkStream, error)
	HandleBulk(string, mesh.BulkHandler)
	Tell(news []byte) error
	HandleNews(mesh.NewsHandler)
	Connected(anchormesh.NodeID) bool
	ListenClients() net.Listener
	DialClient(ctx context.Context, to anchormesh.NodeID) (net.Conn, error)
	Close() error
}

var (
	_ Mesh = (*mesh.Mesh)(nil)
	_ Mesh = (*Node)(nil)
)

// Factory makes n nodes without a mesh ID that will see each other, and closes
// them when the test ends.
type Factory func(t *testing.T, n int) []Mesh

// Conformance checks what every mesh promises.
func Conformance(t *testing.T, factory Factory) {
	for name, test := range map[string]func(*testing.T, Factory){
		"Views":          testViews,
		"MeshID":         testMeshID,
		"Calls":          testCalls,
		"UnknownOutcome": testUnknownOutcome,
		"Strangers":      testStrangers,
		"Messages":       testMessages,
		"Bulk":           testBulk,
		"Clients":        testClients,
		"News":           testNews,
		"Close":          testClose,
	} {
		t.Run(name, func(t *testing.T) { test(t, factory) })
	}
}

// meet makes nodes and waits until all see all.
func meet(t *testing.T, factory Factory, n int) []Mesh {
	t.Helper()
	nodes := factory(t, n)
	testkit.Eventually(t, "all see all", func() bool {
		return !slices.ContainsFunc(nodes, func(m Mesh) bool { return len(m.View().Alive()) != n })
	})
	return nodes
}

func testViews(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	for _, n := range nodes {
		ms := n.Members()
		if !slices.IsSortedFunc(ms, func(x, y mesh.Member) int { return bytes.Compare([]byte(x.ID), []byte(y.ID)) }) {
			t.Errorf("not sorted: %v", ms)
		}
		self, ok := n.View().Get(n.ID())
		if !ok || self.ID != n.Self().ID || self.Name == "" {
			t.Errorf("self is %+v, %v", self, ok)
		}
	}
	changes := a.Subscribe()
	if err := b.SetClientURLs("http://b:2379"); err != nil {
		t.Fatal(err)
	}
	eventuallyView(t, changes, "b's URLs", func(v mesh.View) bool {
		m, _ := v.Get(b.ID())
		return slices.Equal(m.ClientURLs, []string{"http://b:2379"})
	})
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventuallyView(t, changes, "c left", func(v mesh.View) bool {
		m, ok := v.Get(c.ID())
		return ok && m.State == mesh.Left
	})
	if _, err := a.Call(testkit.Within(t), c.ID(), 1); !errors.Is(err, mesh.ErrUnreachable) && !errors.Is(err, mesh.ErrUnknownOutcome) {
		t.Errorf("calling one that left: %v", err)
	}
}

func eventuallyView(t *testing.T, views <-chan mesh.View, what string, cond func(mesh.View) bool) {
	t.Helper()
	limit := time.After(testkit.Patience)
	for {
		select {
		case v, ok := <-views:
			if !ok {
				t.Fatalf("%s: the subscription ended", what)
			}
			if cond(v) {
				return
			}
		case <-limit:
			t.Fatalf("never: %s", what)
		}
	}
}

func testMeshID(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	if a.MeshID() != 0 || len(a.MeshIDs()) != 0 {
		t.Fatalf("mesh %v, known %v", a.MeshID(), a.MeshIDs())
	}
	if err := a.SetMeshID(77); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "b hears of the mesh", func() bool { return slices.Equal(b.MeshIDs(), []anchormesh.MeshID{77}) })
	if b.MeshID() != 0 {
		t.Fatal("b adopted a mesh by itself")
	}
	if err := b.SetMeshID(77); err != nil {
		t.Fatal(err)
	}
	if err := b.SetMeshID(77); err != nil {
		t.Fatalf("again: %v", err)
	}
	if err := b.SetMeshID(78); !errors.Is(err, mesh.ErrMeshID) {
		t.Fatalf("another mesh: %v", err)
	}
	testkit.Eventually(t, "a sees b in the mesh", func() bool {
		m, _ := a.View().Get(b.ID())
		return m.Mesh == 77
	})
}

func echo(_ anchormesh.NodeID, p []byte, r mesh.Responder) { r.Reply(p) }

func testCalls(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	b.HandleCalls(1, echo)
	b.HandleCalls(2, func(from anchormesh.NodeID, p []byte, r mesh.Responder) {
		go r.Fail(7, fmt.Sprintf("%s from %v", p, from == a.ID()))
	})
	held := make(chan mesh.Responder, 10)
	b.HandleCalls(3, func(_ anchormesh.NodeID, _ []byte, r mesh.Responder) { held <- r })
	ctx := testkit.Within(t)
	buf := []byte("hello world")
	got, err := a.Call(ctx, b.ID(), 1, buf[:5], buf[5:])
	if err != nil || string(got) != "hello world" {
		t.Fatalf("%q, %v", got, err)
	}
	var remote *mesh.RemoteError
	if _, err := a.Call(ctx, b.ID(), 2, []byte("bad")); !errors.As(err, &remote) || remote.Code != 7 || remote.Text != "bad from true" {
		t.Fatalf("%v", err)
	}
	if _, err := a.Call(ctx, b.ID(), 4); !errors.Is(err, mesh.ErrNoHandler) {
		t.Fatalf("%v", err)
	}
	// A held call holds up nobody, and gives up with its context.
	short, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		_, err := a.Call(short, b.ID(), 3)
		done <- err
	}()
	r := <-held
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := fmt.Append(nil, i)
			if got, err := a.Call(ctx, b.ID(), 1, want); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	r.Reply([]byte("too late")) // must do no harm
	if _, err := a.Call(short, b.ID(), 1); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
}

func testUnknownOutcome(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	got := make(chan bool, 1)
	b.HandleCalls(1, func(anchormesh.NodeID, []byte, mesh.Responder) { got <- true })
	done := make(chan error, 1)
	go func() {
		_, err := a.Call(testkit.Within(t), b.ID(), 1)
		done <- err
	}()
	<-got
	b.Close()
	if err := <-done; !errors.Is(err, mesh.ErrUnknownOutcome) {
		t.Fatalf("%v", err)
	}
	testkit.Eventually(t, "the loss is seen", func() bool { return !a.Connected(b.ID()) })
}

func testStrangers(t *testing.T, factory Factory) {
	a := meet(t, factory, 1)[0]
	for _, id := range []anchormesh.NodeID{"12D3KooWStranger", "", a.ID()} {
		if _, err := a.Call(testkit.Within(t), id, 1); !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("call to %q: %v", id, err)
		}
		if a.Send(id, 0, []byte("x")) {
			t.Errorf("a message to %q was taken", id)
		}
		if _, err := a.OpenBulk(testkit.Within(t), id, "x"); !errors.Is(err, mesh.ErrUnreachable) {
			t.Errorf("bulk to %q: %v", id, err)
		}
		if a.Connected(id) {
			t.Errorf("connected to %q", id)
		}
	}
}

func testMessages(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	const n = 500
	got := make(chan string, 2*n)
	for class := range mesh.Class(2) {
		b.HandleMessages(class, func(from anchormesh.NodeID, p []byte) {
			if from != a.ID() {
				t.Errorf("from %q", from)
			}
			got <- fmt.Sprint(class, " ", string(p))
		})
	}
	buf := []byte("....")
	for i := range n {
		for class := range mesh.Class(2) {
			copy(buf, fmt.Sprintf("%04d", i))
			if !a.Send(b.ID(), class, buf[:2], buf[2:]) {
				t.Fatalf("message %d was not taken", i)
			}
		}
	}
	next := map[byte]int{'0': 0, '1': 0}
	limit := time.After(testkit.Patience)
	for range 2 * n {
		select {
		case m := <-got:
			if want := fmt.Sprintf("%c %04d", m[0], next[m[0]]); m != want {
				t.Fatalf("%q, want %q", m, want)
			}
			next[m[0]]++
		case <-limit:
			t.Fatalf("messages are missing: %v", next)
		}
	}
	a.Send(b.ID(), 5, []byte("nobody listens")) // must do no harm
}

func testBulk(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	b.HandleBulk("echo", func(from anchormesh.NodeID, s mesh.BulkStream) {
		defer s.Close()
		io.Copy(s, s)
	})
	b.HandleBulk("reset", func(_ anchormesh.NodeID, s mesh.BulkStream) {
		s.Read(make([]byte, 1)) // else the reset may overtake the opening
		s.Reset()
	})
	s, err := a.OpenBulk(testkit.Within(t), b.ID(), "echo")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := bytes.Repeat([]byte("anchormesh"), 100_000)
	go func() {
		s.Write(want)
		s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(want), err)
	}
	if _, err := a.OpenBulk(testkit.Within(t), b.ID(), "other"); !errors.Is(err, mesh.ErrNoHandler) {
		t.Fatalf("%v", err)
	}
	r, err := a.OpenBulk(testkit.Within(t), b.ID(), "reset")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Fatalf("after a reset: %v", err)
	}
	r.Reset()
}

func testClients(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	l := b.ListenClients()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	c, err := a.DialClient(testkit.Within(t), b.ID())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.RemoteAddr().Network() != "libp2p" {
		t.Errorf("address %v", c.RemoteAddr())
	}
	if _, err := io.WriteString(c, "ping"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 4)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "ping" {
		t.Fatalf("%q, %v", got, err)
	}
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%v", err)
	}
}

func testClose(t *testing.T, factory Factory) {
	nodes := meet(t, factory, 2)
	a, b := nodes[0], nodes[1]
	views := a.Subscribe()
	l := a.ListenClients()
	a.Close()
	if err := a.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	limit := time.After(testkit.Patience)
	for open := true; open; {
		select {
		case _, open = <-views:
		case <-limit:
			t.Fatal("the subscription does not end")
		}
	}
	if _, open := <-a.Subscribe(); open {
		t.Fatal("a subscription after Close is open")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("%v", err)
	}
	if _, err := a.Call(testkit.Within(t), b.ID(), 1); err == nil {
		t.Fatal("a closed mesh calls")
	}
	if a.Send(b.ID(), 0, nil) {
		t.Fatal("a closed mesh sends")
	}
}
