package shard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/message"
	"github.com/anchormesh/anchormesh/consensus/replica"
)

// script drives one group by hand and shows everything that happens.
type script struct {
	*cluster
	out  strings.Builder
	kept []packet
}

func (s *script) printf(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

// TestScripts runs testdata. Verbs (n is a node from 0):
//
//	cluster nodes=3 [sleep=4]  one group; nodes stand at an empty log; it sleeps after so many quiet ticks
//	elect n                    campaign and settle, without a word
//	campaign n                 start an election
//	propose n a b c            queue requests, each with a waiter
//	read n name                ask for a linearizable read
//	step n                     run the node once, show its effects
//	sync n                     make its writes durable
//	deliver                    hand over all messages on the wire, show them
//	drop                       lose all messages on the wire
//	settle                     step, sync, deliver until nothing moves
//	crash n / boot n           lose memory and unsynced writes / start again
//	bare n / join n            start again without the group / start the group
//	urge n                     urge the group to have n's replica for its leader
//	tick n count               let time pass
//	pass n count               tick n so often, settling after each tick
//	pass * count               tick all that are up
//	lost n of                  tell n that node "of" is gone
//	gone n of                  tell n that the replica of node "of" leads no more
//	cut a b / mend a b         lose all messages from a to b / no more
//	lose n type                lose the messages of a type on the wire to n
//	keep n type / late         take them off the wire / put them back
//	awake                      show whose clocks go
//	look n                     look at n's progress, as the shell does
//	transfer n to              ask n to hand over
//	stamp n term               put an entry stamped with another term into n's log
//	absent n                   start n again with its log, to answer for a replica without state
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		var s *script
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			if d.Cmd == "cluster" {
				var nodes, sleep int
				d.ScanArgs(t, "nodes", &nodes)
				if d.HasArg("sleep") {
					d.ScanArgs(t, "sleep", &sleep)
				}
				s = &script{cluster: newCluster(t, 1, nodes, 1, sleep)}
			}
			s.out.Reset()
			for _, line := range strings.Split(d.Cmd+" "+args(d)+"\n"+d.Input, "\n") {
				if f := strings.Fields(line); len(f) > 0 && f[0] != "cluster" {
					s.run(t, f)
				}
			}
			return s.out.String()
		})
	})
}

func args(d *datadriven.TestData) string {
	var out []string
	for _, a := range d.CmdArgs {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func (s *script) run(t *testing.T, f []string) {
	var n *testNode
	if len(f) > 1 && f[1] != "*" {
		var i int
		if _, err := fmt.Sscan(f[1], &i); err != nil {
			t.Fatalf("%v: %v", f, err)
		}
		n = s.nodes[i]
	}
	switch f[0] {
	case "campaign":
		n.shard.With(1, (*replica.Replica).Campaign)
	case "propose":
		for _, name := range f[2:] {
			s.proposeNamed(n, name)
		}
	case "read":
		name := f[2]
		n.inbox.Reads = append(n.inbox.Reads, Read{Segment: 1, Done: func(index uint64, err error) {
			s.printf("  read %s: index %d, %s", name, index, outcome(err))
		}})
	case "step":
		s.show(n)
	case "sync":
		s.syncAll(n)
	case "deliver":
		s.deliverAll()
	case "drop":
		s.printf("  %d frames are lost", len(s.wire))
		s.wire = nil
	case "settle":
		s.settle()
	case "crash":
		s.crash(n)
	case "boot":
		s.boot(n)
	case "bare":
		s.bare(n)
	case "join":
		s.join(n, 0)
	case "urge":
		n.shard.Urge(1)
	case "tick":
		var count int
		fmt.Sscan(f[2], &count)
		n.inbox.Ticks += count
	case "elect":
		n.shard.With(1, (*replica.Replica).Campaign)
		s.settle()
		s.out.Reset()
	case "pass":
		var count int
		fmt.Sscan(f[2], &count)
		for range count {
			for _, other := range s.nodes {
				if other.up && (n == nil || n == other) {
					other.inbox.Ticks++
				}
			}
			s.settle()
		}
	case "cut", "mend":
		var to int
		fmt.Sscan(f[2], &to)
		s.cut[[2]int{n.id, to}] = f[0] == "cut"
	case "lose", "keep":
		s.take(n, f[2], f[0] == "keep")
	case "late":
		s.wire, s.kept = append(s.wire, s.kept...), nil
	case "awake":
		for _, other := range s.nodes {
			if other.up && other.shard.Asleep() == 0 {
				s.printf("  node %d is awake", other.id)
			}
		}
	case "look":
		n.shard.Look(1, func(r *replica.Replica) {
			r.Progress(func(id anchormesh.ReplicaID, p replica.PeerProgress) {
				s.printf("  replica %d matches %d", id, p.Match)
			})
		})
	case "transfer":
		var to int
		fmt.Sscan(f[2], &to)
		n.shard.With(1, func(r *replica.Replica) { r.TransferLeader(anchormesh.ReplicaID(to + 1)) })
	case "lost":
		var of int
		fmt.Sscan(f[2], &of)
		n.shard.NodeLost(nodeID(of))
	case "gone":
		var of int
		fmt.Sscan(f[2], &of)
		n.shard.LeaderGone(1, anchormesh.ReplicaID(of+1))
	case "absent":
		s.crash(n)
		n.up, n.shard = true, New()
		n.shard.AddAbsent(1, anchormesh.ReplicaID(n.id+1), n.storage[0], 10)
	default:
		t.Fatalf("unknown verb %q", f[0])
	}
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func (s *script) proposeNamed(n *testNode, name string) {
	n.inbox.Proposals = append(n.inbox.Proposals, Proposal{Segment: 1, Proposal: replica.Proposal{
		Generation: 1, Payload: []byte(name), Done: func(r replica.Result) { s.printf("  %s: %s", name, outcome(r.Err)) },
	}})
}

// show steps a node and prints its effects.
func (s *script) show(n *testNode) {
	fx := n.shard.Step(&n.inbox)
	n.inbox = Inbox{}
	for _, st := range fx.Statuses {
		s.printf("  node %d: %v in term %d, leader %q", n.id, st.Role, st.Term, st.Leader)
	}
	for _, sl := range fx.Sleeps {
		switch {
		case !sl.Asleep:
			s.printf("  node %d wakes", n.id)
		case sl.Whole:
			s.printf("  node %d falls asleep", n.id)
		default:
			s.printf("  node %d falls asleep, others lag", n.id)
		}
	}
	for _, f := range fx.Frames {
		s.printf("  node %d -> %s: %s", n.id, f.To, frameText(f.Data))
	}
	for _, a := range fx.Appends {
		s.printf("  node %d writes %d entries, sync=%v, then sends %d frames", n.id, len(a.Entries), a.Sync, len(a.Frames))
	}
	for _, a := range fx.Applies {
		for _, e := range a.Entries {
			s.printf("  node %d applies %d/%d: %q refused=%v", n.id, e.Term, e.Index, e.Payloads, e.Refused)
		}
		s.apply(n, a)
	}
	for _, st := range fx.Strangers {
		s.printf("  node %d does not know what %s talks of", n.id, st.From)
	}
	for _, q := range fx.Snapshots {
		s.printf("  node %d wants a snapshot sent to replica %d", n.id, q.To)
	}
	s.post(n.id, fx.Frames)
	n.pending = append(n.pending, fx.Appends...)
	n.reads = append(n.reads, fx.Reads...)
	kept := n.reads[:0]
	for _, r := range n.reads {
		if n.applied[0] >= r.Index {
			r.Done(r.Index, nil)
		} else {
			kept = append(kept, r)
		}
	}
	n.reads = kept
}

// take removes messages of a type from the wire to a node.
func (s *script) take(n *testNode, name string, keep bool) {
	var rest []packet
	for _, p := range s.wire {
		if p.to != n.id || !strings.HasPrefix(frameText(p.data), name) {
			rest = append(rest, p)
		} else if keep {
			s.kept = append(s.kept, p)
		}
	}
	s.wire = rest
}

func (s *script) syncAll(n *testNode) { s.sync(n, len(n.pending)) }

func (s *script) deliverAll() {
	wire := s.wire
	s.wire = nil
	for _, p := range wire {
		n := s.nodes[p.to]
		if !n.up || s.cut[[2]int{p.from, p.to}] {
			continue
		}
		err := message.Decode(p.data, func(seg anchormesh.SegmentID, m *raftpb.Message) {
			n.inbox.Messages = append(n.inbox.Messages, Inbound{From: nodeID(p.from), Segment: seg, Message: m})
		})
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *script) settle() {
	for range 100 {
		for _, n := range s.nodes {
			if n.up {
				s.show(n)
				s.syncAll(n)
			}
		}
		busy := len(s.wire) > 0
		s.deliverAll()
		for _, n := range s.nodes {
			busy = busy || len(n.inbox.Messages)+len(n.inbox.Appended)+len(n.inbox.Applied) > 0
		}
		if !busy {
			return
		}
	}
	s.t.Fatal("the group does not settle")
}

func frameText(frame []byte) string {
	var out []string
	_ = message.Decode(frame, func(_ anchormesh.SegmentID, m *raftpb.Message) {
		text := strings.TrimPrefix(m.GetType().String(), "Msg")
		switch m.GetType() {
		case message.Sleep:
			text = fmt.Sprintf("Sleep(at %d/%d, question %d)", m.GetTerm(), m.GetIndex(), m.GetRejectHint())
		case message.Slept:
			text = fmt.Sprintf("Slept(at %d/%d, question %d)", m.GetTerm(), m.GetIndex(), m.GetRejectHint())
		}
		if m.GetType() == raftpb.MsgApp {
			text += fmt.Sprintf("(%d entries, commit %d)", len(m.GetEntries()), m.GetCommit())
		}
		if m.GetReject() {
			text += fmt.Sprintf("(reject, hint %d)", m.GetRejectHint())
		}
		out = append(out, text)
	})
	return strings.Join(out, " ")
}
