package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/testkit"
	"github.com/anchormesh/anchormesh/mesh/meshkey"
)

const loopback = "/ip4/127.0.0.1/tcp/0"

// book is a Directory that a test fills.
type book struct {
	mu    sync.Mutex
	addrs map[anchormesh.NodeID][]string
	mesh  anchormesh.MeshID
}

func newBook() *book { return &book{addrs: make(map[anchormesh.NodeID][]string), mesh: 7} }

func (b *book) PeerAddrs(id anchormesh.NodeID) ([]string, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a, ok := b.addrs[id]
	return a, ok
}

func (b *book) MeshID() anchormesh.MeshID {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mesh
}

func (b *book) set(id anchormesh.NodeID, addrs ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addrs[id] = addrs
}

// testNode is a Host and what happened at it.
type testNode struct {
	*Host
	id   anchormesh.NodeID
	book *book
	logs *testkit.Log
	ups  chan string // "up" or "down" and the peer
}

var testKey = meshkey.Key{1, 2, 3}

func testConfig(t testing.TB) (Config, *testNode) {
	t.Helper()
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	n := &testNode{id: id.NodeID(), book: newBook(), logs: new(testkit.Log), ups: make(chan string, 100)}
	limits := DefaultLimits()
	limits.Handshake = 2 * time.Second
	limits.Backoff = 20 * time.Millisecond
	limits.BackoffMax = 100 * time.Millisecond
	return Config{
		Identity: id, Key: testKey, Boot: uint64(time.Now().UnixNano()), Listen: loopback, Directory: n.book,
		Logger: slog.New(slog.NewTextHandler(n.logs, nil)), Limits: limits,
		Events: Events{
			PeerUp:   func(p anchormesh.NodeID) { n.ups <- "up " + string(p) },
			PeerDown: func(p anchormesh.NodeID) { n.ups <- "down " + string(p) },
		},
	}, n
}

func startHost(t testing.TB, cfg Config, n *testNode) *testNode {
	t.Helper()
	h, err := NewHost(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Host = h
	t.Cleanup(func() { h.Close() })
	return n
}

func newTestNode(t testing.TB) *testNode {
	cfg, n := testConfig(t)
	return startHost(t, cfg, n)
}

// acquaint tells nodes each other's addresses.
func acquaint(nodes ...*testNode) {
	for _, a := range nodes {
		for _, b := range nodes {
			if a != b {
				a.book.set(b.id, b.ListenAddr())
			}
		}
	}
}

func pair(t testing.TB) (a, b *testNode) {
	a, b = newTestNode(t), newTestNode(t)
	acquaint(a, b)
	return a, b
}

func echo(_ anchormesh.NodeID, p []byte, r Responder) { r.Reply(p) }

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestCallAnswers(t *testing.T) {
	a, b := pair(t)
	b.HandleCalls(1, echo)
	b.HandleCalls(2, func(_ anchormesh.NodeID, p []byte, r Responder) { r.Fail(42, "no: "+string(p)) })
	b.HandleCalls(3, func(_ anchormesh.NodeID, p []byte, r Responder) {
		go r.Reply([]byte("late "), p)
	})
	ctx := testContext(t)
	for _, size := range []int{0, 1, 300, 70_000, 3 << 20} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		got, err := a.Call(ctx, b.id, 1, want[:size/2], want[size/2:])
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("echo of %d bytes: %d bytes, %v", size, len(got), err)
		}
	}
	_, err := a.Call(ctx, b.id, 2, []byte("x"))
	var remote *RemoteError
	if !errors.As(err, &remote) || remote.Code != 42 || remote.Text != "no: x" {
		t.Fatalf("failed handler: %v", err)
	}
	if got, err := a.Call(ctx, b.id, 3, []byte("x")); string(got) != "late x" || err != nil {
		t.Fatalf("late answer: %q, %v", got, err)
	}
	if _, err := a.Call(ctx, b.id, 9); !errors.Is(err, ErrNoHandler) {
		t.Fatalf("no handler: %v", err)
	}
}

func TestManyCallersGetTheirOwnAnswers(t *testing.T) {
	a, b := pair(t)
	b.HandleCalls(1, echo)
	ctx := testContext(t)
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			for j := range 20 {
				want := fmt.Sprintf("%d/%d", i, j)
				if got, err := a.Call(ctx, b.id, 1, []byte(want)); err != nil || string(got) != want {
					t.Errorf("want %s, got %q, %v", want, got, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestMessagesArriveInOrder(t *testing.T) {
	a, b := pair(t)
	const n = 5000
	got := make(chan []byte, n)
	b.HandleMessages(3, func(from anchormesh.NodeID, p []byte) {
		if from != a.id {
			t.Errorf("from %s", from)
		}
		got <- p
	})
	for i := range n {
		if !a.Send(b.id, 3, []byte("m"), fmt.Append(nil, i)) {
			t.Fatalf("message %d dropped", i)
		}
	}
	for i := range n {
		select {
		case p := <-got:
			if string(p) != fmt.Sprint("m", i) {
				t.Fatalf("message %d is %q", i, p)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("message %d did not arrive", i)
		}
	}
}

func TestBulkCarriesABigStream(t *testing.T) {
	a, b := pair(t)
	b.HandleBulk("copy", func(from anchormesh.NodeID, s BulkStream) {
		defer s.Close()
		io.Copy(s, s)
	})
	s, err := a.OpenBulk(testContext(t), b.id, "copy")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	want := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		s.Write(want)
		s.CloseWrite()
	}()
	if got, err := io.ReadAll(s); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes, %v", len(got), len(want), err)
	}
	if _, err := a.OpenBulk(testContext(t), b.id, "other"); !errors.Is(err, ErrNoHandler) {
		t.Fatalf("unknown protocol: %v", err)
	}
}
