package classes

import (
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/testnet/sim/node"
	"github.com/anchormesh/anchormesh/testnet/sim/steward"
)

const interval = 2 * time.Second

// reporter says what there is to say of the replicas of a process.
type reporter struct {
	node.Quiet
	p    *node.Process
	hard map[anchormesh.SegmentID]hardened
}

// hardened is a replica that was asked to be on disk under a version of its policy.
type hardened struct {
	replica *node.ReplicaHere
	policy  uint64
	onDisk  bool
}

// New returns a process's reporter.
func New(p *node.Process) node.Shell {
	return &reporter{p: p, hard: make(map[anchormesh.SegmentID]hardened)}
}

func (r *reporter) Booted() { r.p.Every(interval, r.round) }

func (r *reporter) round() {
	r.p.ReleaseGone()
	for _, f := range r.p.Forgotten() {
		r.say(f.Segment, f.State, func(q *node.Process) { steward.At(q).Forgot(r.p.ID, f.Segment, f.Replica) })
	}
	for _, here := range r.p.Host.Sorted() {
		if state := here.Machine.State(); state.Hardening() {
			r.harden(here, state)
		} else {
			delete(r.hard, state.Descriptor.Segment)
		}
	}
}

// say tells the other nodes that may lead a segment, and learns what they know of it.
func (r *reporter) say(id anchormesh.SegmentID, state *machine.State, word func(q *node.Process)) {
	for _, to := range r.anchors(id, state) {
		r.p.Call(to, func(q *node.Process, answer func(func())) {
			word(q)
			told, known := q.Table.Segment(id)
			stone, dead := q.Table.Tombstone(id) // nodes exchange them; here nobody else needs one
			answer(func() {
				switch {
				case known:
					r.p.Hint(told.Clone())
				case dead:
					r.p.Table.Bury(stone)
				}
			})
		}, func() {})
	}
}

// anchors names the other nodes that may lead a segment. Of one that is not known here any
// node may have the tombstone.
func (r *reporter) anchors(id anchormesh.SegmentID, state *machine.State) (out []anchormesh.NodeID) {
	d, known := r.p.Table.Segment(id)
	switch {
	case known:
	case state != nil:
		d = state.Descriptor
	default:
		for _, n := range r.p.Mesh.Computers {
			if n != r.p.Computer {
				out = append(out, n.ID)
			}
		}
		return out
	}
	for _, a := range d.Anchors {
		if a.Node != r.p.ID {
			out = append(out, a.Node)
		}
	}
	return out
}

// harden says of a replica here that it is on disk, when it is.
func (r *reporter) harden(here *node.ReplicaHere, state *machine.State) {
	d := state.Descriptor
	if !slices.Contains(state.Soft, here.ID) {
		return
	}
	asked, is := r.hard[d.Segment]
	if !is || asked.policy != d.Policy || asked.replica != here {
		r.hard[d.Segment] = hardened{replica: here, policy: d.Policy}
		if !r.p.Harden(here, func() {
			r.hard[d.Segment] = hardened{here, d.Policy, true}
			r.p.After(r.p.Moment(), r.round)
		}) {
			delete(r.hard, d.Segment)
		}
		return
	}
	if asked.onDisk && !harder(r.p, r.p.ID, d.Segment, here.ID) {
		r.say(d.Segment, state, func(q *node.Process) { harder(q, r.p.ID, d.Segment, here.ID) })
	}
}

// harder has the log note, if this node leads the segment, that a node's replica is on
// disk.
func harder(p *node.Process, from anchormesh.NodeID, id anchormesh.SegmentID, which anchormesh.ReplicaID) bool {
	here, g := p.Host.Held[id], p.Groups[id]
	if here == nil || g == nil || !g.Leads() {
		return false
	}
	state := here.Machine.State()
	if state.Peers()[which] == from && slices.Contains(state.Soft, which) {
		p.Submit(id, replica.Proposal{
			Generation: state.Descriptor.Generation, Alone: true, Payload: machine.Hardened(which), Done: func(replica.Result) {},
		})
	}
	return true
}
