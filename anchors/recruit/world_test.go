package recruit

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh"
)

// world is a mesh around one segment: nodes that live and die, links that break,
// and a log that applies what is proposed.
type world struct {
	now       time.Time
	nodes     []*node
	situation Situation
	core      *Recruiter
	lead      string
}

type node struct {
	Member
	cut   bool // the leader does not hear it
	match uint64
	heard time.Time
	says  func() bool // its answer to invitations
}

func newWorld(c Config) *world {
	w := &world{now: time.Unix(0, 0).UTC(), core: New(c)}
	w.situation = Situation{Policy: DefaultPolicy(), Leading: true, Commit: 1000}
	w.situation.Descriptor = &anchormesh.Descriptor{Segment: 7, Generation: 1, NextReplica: 1}
	return w
}

func (w *world) add(name, zone string, room uint32) *node {
	n := &node{Member: Member{Node: anchormesh.NodeID(name), Alive: true, Since: w.now, Zone: zone, Room: room}, heard: w.now}
	w.nodes = append(w.nodes, n)
	return n
}

func (w *world) node(name string) *node {
	for _, n := range w.nodes {
		if string(n.Node) == name {
			return n
		}
	}
	panic("no node " + name)
}

// seat makes a node an anchor without asking anybody.
func (w *world) seat(name string, role anchormesh.Role) {
	d, n := w.situation.Descriptor, w.node(name)
	d.Anchors = append(d.Anchors, anchormesh.Anchor{Node: n.Node, Replica: d.NextReplica, Role: role, Zone: n.Zone})
	d.NextReplica++
	n.match = w.situation.Commit
}

func (w *world) alive(name string, alive bool) {
	n := w.node(name)
	n.Alive, n.Since, n.cut = alive, w.now, !alive
}

// pass lets time go by in steps of a second; links that work are used.
func (w *world) pass(d time.Duration, each func()) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(min(time.Second, end.Sub(w.now)))
		for _, n := range w.nodes {
			if !n.cut {
				n.heard = w.now
			}
		}
		if each != nil {
			each()
		}
	}
}

func (w *world) step() Plan {
	s := w.situation
	s.Self = anchormesh.NodeID(w.lead)
	s.Members, s.Progress = nil, nil
	for _, n := range w.nodes {
		s.Members = append(s.Members, n.Member)
		if a, ok := s.Descriptor.AnchorOn(n.Node); ok {
			s.Progress = append(s.Progress, Progress{Replica: a.Replica, Match: n.match, LastContact: n.heard})
		}
	}
	return w.core.Step(w.now, s)
}

// apply does to the descriptor what the log would.
func (w *world) apply(e Effect) {
	d := w.situation.Descriptor
	switch e.Kind {
	case AddLearner:
		w.seat(string(e.Node), anchormesh.Learner)
		w.node(string(e.Node)).match = 0
	case Change:
		d.Anchors = slices.DeleteFunc(d.Anchors, func(a anchormesh.Anchor) bool { return slices.Contains(e.Remove, a.Replica) })
		for i := range d.Anchors {
			if slices.Contains(e.Promote, d.Anchors[i].Replica) {
				d.Anchors[i].Role = anchormesh.Voter
			}
			if slices.Contains(e.Demote, d.Anchors[i].Replica) {
				d.Anchors[i].Role = anchormesh.Learner
			}
		}
	}
}

func (e Effect) String() string {
	switch e.Kind {
	case Invite:
		return fmt.Sprintf("invite %s (%s)", e.Node, e.Why)
	case AddLearner:
		return fmt.Sprintf("add learner %s zone %s (%s)", e.Node, e.Zone, e.Why)
	}
	if len(e.Demote) > 0 {
		return fmt.Sprintf("change promote %v demote %v remove %v (%s)", e.Promote, e.Demote, e.Remove, e.Why)
	}
	return fmt.Sprintf("change promote %v remove %v (%s)", e.Promote, e.Remove, e.Why)
}

func (w *world) group() string {
	var out []string
	for _, a := range w.situation.Descriptor.Anchors {
		out = append(out, fmt.Sprintf("%d@%s %v", a.Replica, a.Node, a.Role))
	}
	return strings.Join(out, ", ")
}
