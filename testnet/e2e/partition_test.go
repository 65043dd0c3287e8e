package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var everyPhase = flag.Bool("every-phase", false, "cut off, stop and depose nodes at every phase of splits and merges: many minutes")

var onlyPhase = flag.String("phase", "", "of these only FAULT:PHASE that begin so, such as cut:merge/")

// fault is what happens to a node when it reaches a phase.
type fault struct {
	action string         // of the failpoint
	heal   syscall.Signal // ends it
	depose bool           // its leaderships go to others meanwhile
	rest   bool           // it comes about with followers, too
}

// faults: the node's connections carry nothing; the whole process stops and keeps its
// connections; the node goes on, but for the phase, and others are given the lead.
var faults = []fault{cutOff, stopped, deposed}

var (
	cutOff  = fault{action: "cut", heal: syscall.SIGUSR1, rest: true}
	stopped = fault{action: "stop", heal: syscall.SIGCONT, rest: true}
	deposed = fault{action: "hold", heal: syscall.SIGUSR1, depose: true}
)

// A node is cut off from the others, stopped, or loses its leaderships, at each phase of a
// split and of a merge in turn: keys on both sides can be written through the others
// within seconds, what was begun ends by itself, nobody reads what is no more, and verify
// finds nothing when the node is back.
func TestPartitionAtEveryPhase(t *testing.T) {
	if !*everyPhase {
		t.Skip("takes many minutes: -args -every-phase, which make soak gives")
	}
	l := newFailpointLab(t)
	l.split("c")
	round := 0
	for _, f := range faults {
		for _, point := range phases {
			for _, leads := range []bool{true, false} {
				if (leads || f.rest) && strings.HasPrefix(f.action+":"+point, *onlyPhase) {
					l.partitionAt(round, point, f, leads)
					round++
				}
			}
		}
	}
}

// partitionAt has a fault come over one of the nodes at a phase, which leads the segments
// or follows in them.
func (l *lab) partitionAt(i int, point string, f fault, leads bool) {
	l.t.Helper()
	victim, other := l.nodes[i%len(l.nodes)], l.nodes[(i+1)%len(l.nodes)]
	boundary := fmt.Sprintf("k/%02d", i)
	victim.stop() // in order: what it replays at its start must not hit the point
	victim.env = []string{"ANCHORMESH_FAILPOINTS=" + point + "=" + f.action}
	victim.start()
	l.eventually(30*time.Second, "the victim to serve", func() error { return l.put(victim, boundary) })
	leader := other
	if leads {
		leader = victim
	}
	l.lead(other, leader.id())
	l.reach(other, boundary, victim, fmt.Sprintf("failpoint %s: %s\n", point, f.action))
	began := time.Now()
	if f.depose {
		l.lead(other, other.id())
	}
	for _, n := range l.nodes {
		if n != victim {
			l.eventually(10*time.Second, "writes on both sides of "+boundary, func() error {
				return errors.Join(l.put(n, "a"), l.put(n, boundary+"/x"))
			})
		}
	}
	took := time.Since(began).Round(time.Millisecond)
	if f.action != "stop" {
		l.noStaleRead(victim, other, boundary+"/x")
	}
	if err := victim.run.cmd.Process.Signal(f.heal); err != nil {
		l.t.Fatal(err)
	}
	healed := time.Now()
	l.eventually(30*time.Second, "the victim to serve again", func() error {
		return errors.Join(l.put(victim, "a"), l.put(victim, boundary+"/x"))
	})
	l.t.Logf("%s, %s, leads %t: written on both sides after %v, through %s %v after the end", point, f.action, leads, took,
		victim.name, time.Since(healed).Round(time.Millisecond))
	l.eventually(30*time.Second, "one segment less", func() error {
		if l.mergeAt(other, boundary) {
			return nil
		}
		return errors.New("not merged")
	})
	l.eventually(30*time.Second, "a whole mesh", l.proved)
	victim.env = nil
}

// reach splits and merges until a node says that it has reached its phase.
func (l *lab) reach(by *labNode, boundary string, victim *labNode, says string) {
	l.t.Helper()
	reached := func() bool { return strings.Contains(victim.run.output.String(), says) }
	ctx, stop := context.WithCancel(l.t.Context())
	var asks sync.WaitGroup
	asks.Go(func() {
		for ctx.Err() == nil {
			l.cliUntil(ctx, "split", boundary, "--endpoint", by.client, "--timeout", "3s")
			l.mergeUntil(ctx, by, boundary)
		}
	})
	l.eventually(60*time.Second, says, func() error {
		if reached() {
			return nil
		}
		return fmt.Errorf("not yet; %s runs: %t", victim.name, victim.running())
	})
	stop()
	asks.Wait()
}

// lead gives a node the lead of all segments.
func (l *lab) lead(by *labNode, id string) {
	l.t.Helper()
	l.eventually(20*time.Second, "leaderships of "+id, func() error {
		out, errs, code := l.cli("segments", "-o", "json", "--endpoint", by.client, "--timeout", "2s")
		var answer struct{ Segments []segmentJSON }
		if code != 0 || json.Unmarshal([]byte(out), &answer) != nil {
			return errors.New(errs)
		}
		var led []error
		for _, s := range answer.Segments {
			if s.Leader != id {
				_, errs, _ := l.cli("transfer", s.ID, id, "--endpoint", by.client, "--timeout", "2s")
				led = append(led, fmt.Errorf("segment %s is led by %q: %s", s.ID, s.Leader, errs))
			}
		}
		return errors.Join(led...)
	})
}

// noStaleRead writes a key through one node and reads it through another that may be cut
// off: it says what was written, or nothing.
func (l *lab) noStaleRead(from, through *labNode, key string) {
	l.t.Helper()
	c := l.dial(through)
	defer c.Close()
	ctx, cancel := context.WithTimeout(l.t.Context(), 5*time.Second)
	defer cancel()
	put, err := c.Put(ctx, key, "newest")
	if err != nil {
		l.t.Fatal(err)
	}
	reader := l.dial(from)
	defer reader.Close()
	soon, cancel := context.WithTimeout(l.t.Context(), time.Second)
	defer cancel()
	got, err := reader.Get(soon, key)
	if err != nil {
		return
	}
	if len(got.Kvs) != 1 || got.Kvs[0].ModRevision < put.Header.Revision {
		l.t.Fatalf("%s answers %v for a key that was written at revision %d", from.name, got, put.Header.Revision)
	}
}
