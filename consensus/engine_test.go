package consensus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// book is a state machine that keeps every request in order.
type book struct {
	mu      sync.Mutex
	lines   []string
	applied uint64
	conf    *raftpb.ConfState
}

func (b *book) Apply(e *consensus.Entry, want bool) []consensus.Outcome {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e.Index != b.applied+1 {
		panic(fmt.Sprintf("entry %d applied behind %d", e.Index, b.applied))
	}
	b.applied = e.Index
	var out []consensus.Outcome
	for _, p := range e.Payloads {
		if e.Refused {
			continue
		}
		b.lines = append(b.lines, string(p))
		out = append(out, consensus.Outcome{Response: []byte("did " + string(p))})
	}
	return out
}

// Durable says that nothing but the beginning is: a restart replays everything.
func (b *book) Durable() (uint64, *raftpb.ConfState) { return 1, b.conf }

func (b *book) read() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.lines)
}

// net delivers frames between engines of one process.
type net struct {
	mu      sync.Mutex
	engines map[anchormesh.NodeID]*consensus.Engine
	dead    anchormesh.NodeID // says nothing any more
}

type wire struct {
	net  *net
	from anchormesh.NodeID
}

func (w wire) Send(to anchormesh.NodeID, frame []byte) bool {
	w.net.mu.Lock()
	e, dead := w.net.engines[to], w.net.dead == w.from
	w.net.mu.Unlock()
	return e != nil && !dead && e.Receive(w.from, slices.Clone(frame)) == nil
}

type noSnapshots struct{}

func (noSnapshots) Send(_ anchormesh.SegmentID, _ anchormesh.NodeID, _ anchormesh.ReplicaID, done func(bool)) {
	go done(false)
}

type member struct {
	id     anchormesh.NodeID
	log    *wal.Log
	engine *consensus.Engine
	books  map[anchormesh.SegmentID]*book
}

const (
	nodes          = 3
	testAckTimeout = 200 * time.Millisecond
)

func name(i int) anchormesh.NodeID { return anchormesh.NodeID(fmt.Sprintf("n%d", i)) }

// start runs a node over a directory that may hold a log already.
func start(t testing.TB, n *net, dir string, i, groups int) *member {
	t.Helper()
	return startOn(t, n, dir, i, groups, func(l *wal.Log) consensus.Log { return l })
}

// startOn is start with something between engine and log. Of more than one group on
// such a node the first is light.
func startOn(t testing.TB, n *net, dir string, i, groups int, disk func(*wal.Log) consensus.Log) *member {
	t.Helper()
	opts := wal.DefaultOptions()
	if _, bench := t.(*testing.B); !bench {
		opts.FileBytes = 1 << 20 // begin many
	}
	log, err := wal.Open(fsys.OS, dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	cfg := consensus.DefaultConfig(name(i))
	cfg.Tick, cfg.AckTimeout = 10*time.Millisecond, testAckTimeout
	m := &member{id: name(i), log: log, books: map[anchormesh.SegmentID]*book{}}
	between := disk(log)
	_, plain := between.(*wal.Log)
	if !plain {
		cfg.ElectionTicks = 50 // one leader for the whole test, on a busy machine too
	}
	cfg.Replica.Keeps = func(payload []byte) bool { return string(payload) == "kept" }
	if m.engine, err = consensus.New(cfg, between, wire{n, m.id}, noSnapshots{}); err != nil {
		t.Fatal(err)
	}
	m.engine.Start()
	for g := 1; g <= groups; g++ {
		id := anchormesh.SegmentID(g)
		if first, _ := log.Group(id).FirstIndex(); first < 2 {
			if err := m.engine.RestartLog(id, wal.Mark{Index: 1, Term: 1}); err != nil {
				t.Fatal(err)
			}
		}
		m.run(t, consensus.GroupSpec{Segment: id, Replica: anchormesh.ReplicaID(i + 1), Light: g == 1 && !plain})
	}
	n.mu.Lock()
	n.engines[m.id] = m.engine
	n.mu.Unlock()
	return m
}

// run starts a group of all nodes from its beginning.
func (m *member) run(t testing.TB, spec consensus.GroupSpec) {
	t.Helper()
	conf := &raftpb.ConfState{}
	spec.Peers = map[anchormesh.ReplicaID]anchormesh.NodeID{}
	for r := range nodes {
		conf.Voters = append(conf.Voters, uint64(r+1))
		spec.Peers[anchormesh.ReplicaID(r+1)] = name(r)
	}
	b := &book{applied: 1, conf: conf}
	spec.Start, spec.Machine = consensus.Point{Index: 1, Term: 1, Conf: conf}, b
	m.books[spec.Segment] = b
	if err := m.engine.StartGroup(spec); err != nil {
		t.Fatal(err)
	}
}

func (m *member) stop(t testing.TB, n *net) {
	t.Helper()
	n.mu.Lock()
	delete(n.engines, m.id)
	n.mu.Unlock()
	m.engine.Stop()
	if err := m.log.Close(); err != nil {
		t.Fatal(err)
	}
}

// propose tries every node until one leads, and returns the answer.
func propose(ctx context.Context, members []*member, id anchormesh.SegmentID, line string) error {
	for try := 0; ; try++ {
		done := make(chan consensus.Result, 1)
		members[try%len(members)].engine.Propose(id, 1, []byte(line), func(r consensus.Result) { done <- r })
		select {
		case res := <-done:
			switch {
			case res.Err == nil && string(res.Response) != "did "+line:
				return fmt.Errorf("%s was answered with %q", line, res.Response)
			case res.Err == nil:
				return nil
			case !errors.Is(res.Err, consensus.ErrNotLeader) && !errors.Is(res.Err, consensus.ErrDropped):
				return res.Err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// converge waits until a group's books are equal on all members.
func converge(ctx context.Context, t *testing.T, members []*member, id anchormesh.SegmentID) []string {
	t.Helper()
	for {
		first := members[0].books[id].read()
		equal := true
		for _, m := range members[1:] {
			equal = equal && slices.Equal(first, m.books[id].read())
		}
		if equal {
			return first
		}
		select {
		case <-ctx.Done():
			t.Fatalf("group %v did not converge: %d, %d, %d lines", id, len(first), len(members[1].books[id].read()), len(members[2].books[id].read()))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestManyGroupsShareOneLogAndSurviveARestart(t *testing.T) {
	const groups, perGroup = 40, 20
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	n := newNet()
	dirs := make([]string, nodes)
	members := make([]*member, nodes)
	for i := range nodes {
		dirs[i] = t.TempDir()
		members[i] = start(t, n, dirs[i], i, groups)
	}
	write := func(members []*member, round string) {
		var wg sync.WaitGroup
		for g := 1; g <= groups; g++ {
			wg.Go(func() {
				for k := range perGroup {
					if err := propose(ctx, members, anchormesh.SegmentID(g), fmt.Sprintf("%s/%d/%d", round, g, k)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	write(members, "all")
	members[1].stop(t, n)
	write([]*member{members[0], members[2]}, "two")
	members[1] = start(t, n, dirs[1], 1, groups)
	write(members, "again")
	for g := 1; g <= groups; g++ {
		lines := converge(ctx, t, members, anchormesh.SegmentID(g))
		if len(lines) != 3*perGroup {
			t.Errorf("group %d has %d lines, want %d", g, len(lines), 3*perGroup)
		}
	}
	for _, m := range members {
		m.stop(t, n)
	}
}

func TestReadIndexFollowsAcknowledgedWrites(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	n := newNet()
	members := make([]*member, nodes)
	for i := range nodes {
		members[i] = start(t, n, t.TempDir(), i, 1)
	}
	for k := range 50 {
		line := fmt.Sprint("line ", k)
		if err := propose(ctx, members, 1, line); err != nil {
			t.Fatal(err)
		}
		m := members[k%nodes]
		done := make(chan error, 1)
		m.engine.ReadIndex(1, func(_ uint64, err error) { done <- err })
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if lines := m.books[1].read(); !slices.Contains(lines, line) {
			t.Fatalf("node %s reads %d lines without %q, which was acknowledged before", m.id, len(lines), line)
		}
	}
	for _, m := range members {
		m.stop(t, n)
	}
}

func newNet() *net { return &net{engines: map[anchormesh.NodeID]*consensus.Engine{}} }
