package txns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/mesh/meshtest"
	"github.com/anchormesh/anchormesh/node/etcdapi"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/hosttest"
	"github.com/anchormesh/anchormesh/node/machine"
)

const (
	left  anchormesh.SegmentID = 9
	right anchormesh.SegmentID = 11
)

// line is the scope's line on a mesh of one node: whoever asks gets the next number, and
// goes into the log at once.
type line struct {
	mu    sync.Mutex
	node  *hosttest.Node
	last  anchormesh.Revision
	ended bool                  // it gives no numbers
	asked map[commit.TxnID]bool // by whom while it had ended
}

func (l *line) Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	l.node.Engine.Propose(d.Segment, d.Generation, append(keyspace.AppendStamp(nil, l.last), command...), done)
}

func (l *line) Now(context.Context, []byte) (anchormesh.Revision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last, nil
}

func (l *line) NumberOver(ctx context.Context, _ [][]byte) (anchormesh.Revision, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		l.asked[ctx.Value(attemptKey{}).(commit.TxnID)] = true
		return 0, errors.New("the line has ended")
	}
	l.last++
	return l.last, nil
}

func (l *line) Barrier(context.Context, *anchormesh.Descriptor, anchormesh.Revision) (uint64, error) {
	return 0, nil
}

// world is a node with two segments, cut at "m".
type world struct {
	t    *testing.T
	node *hosttest.Node
	line *line
	x    *Txns
}

func newWorld(t *testing.T) *world {
	n := hosttest.Start(t, hosttest.NewDisk(t), meshtest.NewNetwork(1), "a")
	if err := n.Host.Genesis(7, left, "", 1); err != nil {
		t.Fatal(err)
	}
	n.Put(left, "a", "0")
	n.Put(left, "z", "0")
	split := &machine.Split{At: []byte("m"), Right: right}
	done := make(chan error, 1)
	n.Engine.Propose(left, 1, split.Command(), func(res consensus.Result) { done <- res.Err })
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	hosttest.Eventually(t, time.Minute, "leader of the right child", func() bool {
		st, ok := n.Engine.Status(right)
		return ok && st.Leads()
	})
	l := &line{node: n, last: 100, asked: make(map[commit.TxnID]bool)}
	x := New(Config{
		Self: "a", Logger: slog.New(slog.DiscardHandler),
		Admit: func(*host.Replica, *anchormesh.Descriptor, []byte) error { return nil },
	}, n.Host, n.Engine, l, n.Table, n.Mesh)
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = x.Run(ctx)
	}()
	t.Cleanup(func() { stop(); <-over })
	return &world{t, n, l, x}
}

func (w *world) unsettled() bool {
	for _, id := range w.node.Host.Segments() {
		if r, ok := w.node.Host.Get(id); ok && r.Machine.Space().Unsettled() {
			return true
		}
	}
	return false
}

// put writes a key as an ordinary request does.
func (w *world) put(id anchormesh.SegmentID, key, value string) error {
	r, _ := w.node.Host.Get(id)
	raw, err := proto.Marshal(&pb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	w.x.Propose(r.Machine.Descriptor(), keyspace.AppendCommand(nil, keyspace.OpPut, raw), func(res consensus.Result) { done <- res.Err })
	return <-done
}

// both is a transaction that writes one value to both segments.
func both(value string) *codec.TxnRequest {
	op := func(key string) codec.RequestOp {
		return codec.RequestOp{Kind: codec.KindPut, Put: codec.PutRequest{Key: []byte(key), Value: []byte(value)}}
	}
	return &codec.TxnRequest{Success: []codec.RequestOp{op("a"), op("z")}}
}

// do is the same as a client's request.
func (w *world) do(value string) (*pb.TxnResponse, error) {
	raw, err := proto.Marshal(&pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a"), Value: []byte(value)}}},
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("z"), Value: []byte(value)}}},
	}})
	if err != nil {
		return nil, err
	}
	call := etcdapi.NewCall(etcdapi.MethodTxn, raw)
	call.Write, call.Keys = true, anchormesh.KeyRange{Start: []byte("a"), End: []byte("z\x00")}
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	answer, err := w.x.Do(ctx, call)
	if err != nil {
		return nil, err
	}
	var resp pb.TxnResponse
	return &resp, proto.Unmarshal(answer.Bytes(), &resp)
}

// mortal dies when it wants the n-th effect that dies says yes to.
type mortal struct {
	core
	dies func(commit.Effect) bool
	n    int
	dead bool
}

func (m *mortal) Start() []commit.Effect              { return m.live(m.core.Start()) }
func (m *mortal) Step(e commit.Event) []commit.Effect { return m.live(m.core.Step(e)) }
func (m *mortal) Ended() bool                         { return m.dead || m.core.Ended() }
func (m *mortal) live(fx []commit.Effect) []commit.Effect {
	for i := range fx {
		if m.dies(fx[i]) {
			if m.n--; m.n == 0 {
				m.dead = true
				return fx[:i]
			}
		}
	}
	return fx
}

func is[E commit.Effect](fx commit.Effect) bool {
	_, ok := fx.(E)
	return ok
}

// A coordinator that dies between any two steps leaves all of its transaction or nothing,
// and nothing locked for longer than a few seconds.
func TestACoordinatorDiesAnywhere(t *testing.T) {
	for _, c := range []struct {
		name      string
		dies      func(commit.Effect) bool
		n         int
		committed bool
	}{
		{"before the second lock", is[commit.Acquire], 2, false},
		{"before it prepares", is[commit.PrepareAt], 1, false},
		{"with one prepared", is[commit.PrepareAt], 2, false},
		{"with all prepared", is[commit.AskRevision], 1, false},
		{"with its revision", is[commit.DecideAt], 1, false},
		{"with the decision", is[commit.TellAt], 1, true},
		{"with one told", is[commit.TellAt], 2, true},
		{"before it forgets", is[commit.ForgetAt], 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				segments, _ := w.x.spans(anchormesh.KeyRange{})
				d, err := commit.Divide(both("new"), segments)
				if err != nil || len(d.Parts) != 2 {
					t.Fatal(err)
				}
				id := commit.TxnID{1}
				r := run{x: w.x, id: id, answer: make(chan commit.Answer, 1)}
				m := &mortal{core: commit.NewCoordinator(id, d, false), dies: c.dies, n: c.n}
				r.drive(t.Context(), m)
				if !m.dead {
					t.Fatal("it lived")
				}
				hosttest.Eventually(t, 20*time.Second, "end of the transaction", func() bool { return !w.unsettled() })
				a, _ := w.node.Get(left, "a")
				z, _ := w.node.Get(right, "z")
				if a != z || (a == "new") != c.committed {
					t.Errorf("a is %q, z is %q", a, z)
				}
				for key, id := range map[string]anchormesh.SegmentID{"a": left, "z": right} {
					hosttest.Eventually(t, 2*commit.LockMax, "write of "+key, func() bool {
						err := w.put(id, key, "after")
						if err != nil && !errors.Is(err, keyspace.ErrLocked) {
							t.Fatal(err)
						}
						return err == nil
					})
				}
			})
		})
	}
}

// Requests through Do and ordinary writes of the same keys, all at once: every
// transaction takes effect whole, once, and is answered.
func TestManyTransactionsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var all sync.WaitGroup
		for i := range 40 {
			all.Go(func() {
				if resp, err := w.do(fmt.Sprint("t", i)); err != nil || resp.Header.Revision < 100 || !resp.Succeeded {
					t.Errorf("%v, %v", resp, err)
				}
			})
			all.Go(func() {
				if err := w.put(right, "y", fmt.Sprint(i)); err != nil && !errors.Is(err, keyspace.ErrStampOrder) {
					t.Error(err)
				}
			})
		}
		all.Wait()
		hosttest.Eventually(t, time.Minute, "end of all", func() bool { return !w.unsettled() })
		a, _ := w.node.Get(left, "a")
		z, _ := w.node.Get(right, "z")
		if a != z || a == "0" {
			t.Errorf("a is %q, z is %q", a, z)
		}
	})
}

// A line that ended in a hand-over gives no number to what is prepared on it: the attempt
// ends, so that the hand-over goes on, and another one is made.
func TestALineThatEndsWhileATransactionIsPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.line.ended = true
		done := make(chan error, 1)
		go func() {
			_, err := w.do("new")
			done <- err
		}()
		hosttest.Eventually(t, 3*time.Second, "three attempts", func() bool {
			w.line.mu.Lock()
			defer w.line.mu.Unlock()
			return len(w.line.asked) >= 3
		})
		w.line.mu.Lock()
		w.line.ended = false
		w.line.mu.Unlock()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
