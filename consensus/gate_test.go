package consensus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
)

// proposal is how one ended, and when it was applied.
type proposal struct {
	done chan consensus.Result
	held chan struct{}
}

func submit(m *member, line string) proposal {
	p := proposal{make(chan consensus.Result, 1), make(chan struct{}, 1)}
	m.engine.Submit(1, consensus.Proposal{
		Generation: 1, Payload: []byte(line),
		Done: func(r consensus.Result) { p.done <- r }, Held: func() { p.held <- struct{}{} },
	})
	return p
}

// own are disks of which each has a lock of its own.
func own(t *testing.T) ([]*member, *net, []*gate) {
	n := newNet()
	members, disks := make([]*member, nodes), make([]*gate, nodes)
	for i := range members {
		members[i] = startOn(t, n, t.TempDir(), i, 1, func(l *wal.Log) consensus.Log {
			disks[i] = &gate{Log: l, mu: newLock()}
			return disks[i]
		})
	}
	return members, n, disks
}

// allAsked starts members whose writers wait for all disks. It returns who leads, and the
// disk of another.
func allAsked(ctx context.Context, t *testing.T) (members []*member, n *net, lead int, slow *gate) {
	t.Helper()
	members, n, disks := own(t)
	for _, m := range members {
		m.engine.SetLight(1, false, nil)
		m.engine.SetAcks(1, consensus.Acks{All: true})
	}
	if err := propose(ctx, members, 1, "all are there"); err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		if st, _ := m.engine.Status(1); st.Leads() {
			lead = i
		}
	}
	return members, n, lead, disks[(lead+1)%nodes]
}

// TestAllMeansAll: a write is applied by a majority and readable, and its writer waits
// until the last disk has it. When that does not come, the outcome is unknown.
func TestAllMeansAll(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	members, n, lead, slow := allAsked(ctx, t)
	slow.mu.Lock()
	p := submit(members[lead], "one is slow")
	<-p.held // applied: reads see it
	if len(p.done) > 0 {
		t.Error("answered though a disk lacks it")
	}
	slow.mu.Unlock()
	if r := <-p.done; r.Err != nil || string(r.Response) != "did one is slow" {
		t.Errorf("%q, %v", r.Response, r.Err)
	}

	slow.mu.Lock()
	p = submit(members[lead], "one never comes")
	begin := time.Now()
	if r := <-p.done; !errors.Is(r.Err, consensus.ErrUnknown) {
		t.Errorf("ended with %v", r.Err)
	}
	if took := time.Since(begin); took < testAckTimeout || took > 20*testAckTimeout {
		t.Errorf("that took %v, the limit is %v", took, testAckTimeout)
	}
	slow.mu.Unlock()
	for _, m := range members {
		m.stop(t, n)
	}
}

// TestWhatCannotBeAcknowledgedIsRefused: with a node that cannot be reached, before it is
// in any log; two of three go on.
func TestWhatCannotBeAcknowledgedIsRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	members, n, _ := own(t)
	if err := propose(ctx, members, 1, "first"); err != nil {
		t.Fatal(err)
	}
	lead := 0
	for i, m := range members {
		m.engine.SetAcks(1, consensus.Acks{Count: 3})
		if st, _ := m.engine.Status(1); st.Leads() {
			lead = i
		}
	}
	lost := members[(lead+1)%nodes]
	lost.stop(t, n)
	members[lead].engine.NodeLost(lost.id)
	last, _ := members[lead].log.Group(1).LastIndex()
	if r := <-submit(members[lead], "refused").done; !errors.Is(r.Err, consensus.ErrTooFewAnchors) {
		t.Errorf("ended with %v", r.Err)
	}
	if now, _ := members[lead].log.Group(1).LastIndex(); now != last {
		t.Errorf("the log went from %d to %d", last, now)
	}
	members[lead].engine.SetAcks(1, consensus.Acks{Count: 2})
	if r := <-submit(members[lead], "a majority").done; r.Err != nil {
		t.Errorf("two of three: %v", r.Err)
	}
	for _, m := range members {
		if m != lost {
			m.stop(t, n)
		}
	}
}

// TestWhoWaitsIsToldWhenNoMoreIsAskedFor: a writer that waits for all disks is answered
// when the scope asks for a majority only; it does not wait for nobody, to be told at the
// limit that the outcome is unknown.
func TestWhoWaitsIsToldWhenNoMoreIsAskedFor(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	members, n, lead, slow := allAsked(ctx, t)
	slow.mu.Lock()
	p := submit(members[lead], "one is slow")
	<-p.held
	members[lead].engine.SetAcks(1, consensus.Acks{})
	if r := <-p.done; r.Err != nil || string(r.Response) != "did one is slow" {
		t.Errorf("%q, %v", r.Response, r.Err)
	}
	slow.mu.Unlock()
	for _, m := range members {
		m.stop(t, n)
	}
}
