package consensus_test

import (
	"flag"
	"fmt"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/internal/fsys"
)

// still is a state machine that keeps nothing and calls it durable.
type still struct{ applied atomic.Uint64 }

func (s *still) Apply(e *consensus.Entry, want bool) []consensus.Outcome {
	s.applied.Store(e.Index)
	if !want {
		return nil
	}
	return make([]consensus.Outcome, len(e.Payloads))
}

func (s *still) Durable() (uint64, *raftpb.ConfState) { return s.applied.Load(), three }

var (
	three    = &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	ofThree  = map[anchormesh.ReplicaID]anchormesh.NodeID{1: name(0), 2: name(1), 3: name(2)}
	childAt  = wal.Mark{Index: 5, Term: 1} // where the log of a split's child begins
	heldByIt = consensus.Point{Index: 5, Term: 1, Conf: three}
)

// crowd is three nodes with many groups.
type crowd struct {
	t       testing.TB
	net     *net
	logs    []*wal.Log
	engines []*consensus.Engine
}

func newCrowd(t testing.TB, groups int, fs fsys.FS, dir string, opts wal.Options) *crowd {
	c := &crowd{t: t, net: newNet()}
	for i := range nodes {
		log, err := wal.Open(fs, fmt.Sprintf("%s/%d", dir, i), opts)
		if err != nil {
			t.Fatal(err)
		}
		for from := 1; from <= groups; from += 1000 { // as if they had been here before
			var marks []wal.Update
			for g := from; g <= min(groups, from+999); g++ {
				marks = append(marks, wal.Update{Group: anchormesh.SegmentID(g), Snapshot: &childAt})
			}
			if err := log.Append(marks); err != nil {
				t.Fatal(err)
			}
		}
		e, err := consensus.New(consensus.DefaultConfig(name(i)), log, wire{c.net, name(i)}, noSnapshots{})
		if err != nil {
			t.Fatal(err)
		}
		e.Start()
		c.logs, c.engines = append(c.logs, log), append(c.engines, e)
		c.net.engines[name(i)] = e
	}
	return c
}

// start starts a group on one node.
func (c *crowd) start(node, group int, campaign bool) {
	m := &still{}
	m.applied.Store(childAt.Index)
	err := c.engines[node].StartGroup(consensus.GroupSpec{
		Segment: anchormesh.SegmentID(group), Replica: anchormesh.ReplicaID(node + 1), Peers: ofThree,
		Start: heldByIt, Machine: m, Campaign: campaign,
	})
	if err != nil {
		c.t.Fatal(err)
	}
}

// startAll starts groups on all nodes; each node is to lead a third.
func (c *crowd) startAll(groups int) {
	for i := range nodes {
		for g := 1; g <= groups; g++ {
			c.start(i, g, g%nodes == i)
		}
	}
}

// leaders counts the groups that the living nodes lead, and the replicas that sleep.
func (c *crowd) leaders(groups int) (leaders, asleep int) {
	c.net.mu.Lock()
	defer c.net.mu.Unlock()
	for _, e := range c.net.engines {
		asleep += e.Load().Asleep
		for g := 1; g <= groups; g++ {
			if st, ok := e.Status(anchormesh.SegmentID(g)); ok && st.Leads() {
				leaders++
			}
		}
	}
	return leaders, asleep
}

// lose lets a node die.
func (c *crowd) lose(node int) {
	c.net.mu.Lock()
	delete(c.net.engines, name(node))
	c.net.dead = name(node)
	c.net.mu.Unlock()
	for i, e := range c.engines {
		if i != node {
			e.NodeLost(name(node))
		}
	}
}

func (c *crowd) stop() {
	for i, e := range c.engines {
		e.Stop()
		if err := c.logs[i].Close(); err != nil {
			c.t.Error(err)
		}
	}
}

func (c *crowd) propose(node, group int) chan consensus.Result {
	done := make(chan consensus.Result, 1)
	c.engines[node].Propose(anchormesh.SegmentID(group), 1, make([]byte, 100), func(r consensus.Result) { done <- r })
	return done
}

func small() wal.Options {
	opts := wal.DefaultOptions()
	opts.FileBytes = 1 << 20
	return opts
}

// TestIdleGroupsSleepAndWake: hundreds of groups get leaders, sleep, and keep no log;
// each wakes when it is asked for something; when a node dies, its groups have leaders
// again within a second.
func TestIdleGroupsSleepAndWake(t *testing.T) {
	const groups = 300
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, groups, fsys.NewMem(), "wal", small())
		defer c.stop()
		c.startAll(groups)
		time.Sleep(300 * time.Millisecond)
		if n, _ := c.leaders(groups); n != groups {
			t.Fatalf("%d of %d groups have leaders after three ticks", n, groups)
		}
		for range 50 {
			if r := <-c.propose(1, 1); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		time.Sleep(10 * time.Second)
		if _, n := c.leaders(groups); n != nodes*groups {
			t.Fatalf("%d of %d replicas sleep", n, nodes*groups)
		}
		for i, log := range c.logs {
			first, _ := log.Group(1).FirstIndex()
			last, _ := log.Group(1).LastIndex()
			if last < 50 || first != last+1 {
				t.Errorf("node %d holds entries %d to %d of a group that sleeps", i, first, last)
			}
		}
		if st, _ := c.engines[1].Status(1); !st.Asleep || !st.Leads() {
			t.Errorf("the leader of group 1 says %+v", st)
		}
		if _, peers, ok := c.engines[1].Progress(1); !ok || len(peers) != nodes {
			t.Errorf("no progress of a leader that sleeps: %v", peers)
		}
		if _, n := c.leaders(groups); n != nodes*groups {
			t.Errorf("%d of %d replicas sleep after looking", n, nodes*groups)
		}
		if r := <-c.propose(1, 1); r.Err != nil {
			t.Error(r.Err)
		}
		read := make(chan error, 1)
		c.engines[2].ReadIndex(3, func(_ uint64, err error) { read <- err })
		if err := <-read; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if _, n := c.leaders(groups); n != nodes*(groups-2) {
			t.Errorf("%d replicas sleep, want all but those of two groups", n)
		}
		c.lose(0)
		time.Sleep(time.Second)
		if n, _ := c.leaders(groups); n != groups {
			t.Errorf("%d of %d groups have leaders a second after a node was lost", n, groups)
		}
	})
}

// TestChildServesAlthoughOthersStartLate: the right child of a split is led at once from
// where its parent is led; nobody waits for an election timeout.
func TestChildServesAlthoughOthersStartLate(t *testing.T) {
	for _, late := range []time.Duration{0, 50 * time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond} {
		t.Run(late.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, 1, fsys.NewMem(), "wal", small())
				defer c.stop()
				time.Sleep(30 * time.Millisecond) // between two ticks
				c.start(0, 1, true)
				time.Sleep(late)
				c.start(1, 1, false)
				time.Sleep(late)
				begin := time.Now()
				for {
					if r := <-c.propose(0, 1); r.Err == nil {
						break
					}
					time.Sleep(time.Millisecond)
				}
				if took := time.Since(begin); took > 10*time.Millisecond {
					t.Errorf("served %v after a majority had started", took)
				}
				c.start(2, 1, false)
				time.Sleep(200 * time.Millisecond)
				if st, _ := c.engines[2].Status(1); st.Leader != name(0) || st.Applied < 7 {
					t.Errorf("the third replica stands at %d of leader %q two ticks later", st.Applied, st.Leader)
				}
			})
		})
	}
}

// TestChildIsElectedWhenItsVotesAreLost: the option does not hang on one message.
func TestChildIsElectedWhenItsVotesAreLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, 1, fsys.NewMem(), "wal", small())
		defer c.stop()
		others := map[anchormesh.NodeID]*consensus.Engine{}
		for _, node := range []anchormesh.NodeID{name(1), name(2)} {
			others[node] = c.net.engines[node]
			delete(c.net.engines, node)
		}
		c.start(0, 1, true)
		time.Sleep(150 * time.Millisecond)
		c.start(1, 1, false)
		c.start(2, 1, false)
		c.net.mu.Lock()
		for node, e := range others {
			c.net.engines[node] = e
		}
		c.net.mu.Unlock()
		time.Sleep(300 * time.Millisecond)
		if st, _ := c.engines[0].Status(1); !st.Leads() {
			t.Errorf("not elected three ticks after the others could be reached: %+v", st)
		}
	})
}

var idleGroups = flag.Int("groups", 10_000, "groups of BenchmarkIdleGroups")

// BenchmarkIdleGroups measures what ten thousand groups cost three nodes of this
// process: real log files, frames handed over without a network.
func BenchmarkIdleGroups(b *testing.B) {
	groups := *idleGroups
	for b.Loop() {
		dir := b.TempDir()
		before := heap()
		c := newCrowd(b, groups, fsys.OS, dir, wal.DefaultOptions())
		begin := time.Now()
		c.startAll(groups)
		b.ReportMetric(time.Since(begin).Seconds()/nodes, "s/start-up")
		for n := 0; n < groups; n, _ = c.leaders(groups) {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/led")
		for n := 0; n < nodes*groups; _, n = c.leaders(groups) {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/asleep")
		b.ReportMetric((heap()-before)/float64(nodes*groups), "B/replica")
		idle := cpu()
		time.Sleep(5 * time.Second)
		b.ReportMetric(float64((cpu()-idle).Microseconds())/5/nodes, "cpu-µs/s/node")
		lost := time.Now()
		c.lose(0)
		for n := 0; n < groups; n, _ = c.leaders(groups) {
			time.Sleep(10 * time.Millisecond)
		}
		b.ReportMetric(time.Since(lost).Seconds(), "s/failover")
		lost = time.Now()
		c.stop()
		b.ReportMetric(time.Since(lost).Seconds()/nodes, "s/stop")
		begin = time.Now()
		log, err := wal.Open(fsys.OS, dir+"/1", wal.DefaultOptions())
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(begin).Seconds(), "s/recovery")
		if n := len(log.Groups()); n != groups {
			b.Errorf("the log holds %d groups", n)
		}
		log.Close()
	}
}

func heap() float64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
