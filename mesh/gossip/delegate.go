package gossip

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/anchormesh/anchormesh/mesh/view"
)

var (
	errForeign = errors.New("it belongs to another mesh")
	errRival   = errors.New("it has this node's identity")
)

// delegate is what memberlist calls: under its lock, so nothing here may block
// or call back.
type delegate struct{ g *Gossip }

// NodeMeta implements memberlist.Delegate.
func (d delegate) NodeMeta(limit int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	return d.g.meta // its size was checked when it was made
}

// NotifyMsg implements memberlist.Delegate: news, or a record sent directly, the
// last one of a node that goes.
func (d delegate) NotifyMsg(b []byte) {
	if len(b) > 0 && b[0] == newsKind {
		d.g.hear(b)
		return
	}
	d.g.take(b, "")
}

// GetBroadcasts implements memberlist.Delegate: the room that records leave.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.g.news.packet(overhead, limit, newsRepeats(d.g.View().Len()))
}

// LocalState implements memberlist.Delegate.
func (d delegate) LocalState(join bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (d delegate) MergeRemoteState(buf []byte, join bool) {}

// NotifyAlive implements memberlist.AliveDelegate: every record passes here
// before memberlist takes its member in. An error keeps the member out.
func (d delegate) NotifyAlive(n *memberlist.Node) error { return d.g.take(n.Meta, n.Name) }

// NotifyJoin implements memberlist.EventDelegate.
func (d delegate) NotifyJoin(n *memberlist.Node) { d.g.observe(n, view.Alive) }

// NotifyUpdate implements memberlist.EventDelegate; NotifyAlive took the record.
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.observe(n, view.Alive) }

// NotifyLeave implements memberlist.EventDelegate. memberlist does not tell a
// departure from a death; a last record does.
func (d delegate) NotifyLeave(n *memberlist.Node) { d.g.observe(n, view.Dead) }

// NotifyConflict implements memberlist.ConflictDelegate: one process of a node
// at two addresses, so a machine was cloned while it ran.
func (d delegate) NotifyConflict(existing, other *memberlist.Node) {
	g := d.g
	g.counts.conflicts.Add(1)
	detail := fmt.Sprintf("the same process of node %s is at %s and at %s", nodeOf(existing.Name), hostPort(existing), hostPort(other))
	if nodeOf(existing.Name) == g.cfg.Identity.NodeID() {
		g.identityInUse(detail)
	} else if g.quiet.Allow("conflict " + existing.Name) {
		g.log.Warn("a node appears twice: was its machine cloned?", "detail", detail)
	}
}

// take verifies a record and merges it. name is the member's, empty for a
// record that came directly.
func (g *Gossip) take(b []byte, name string) error {
	rec, err := g.verify(b, name)
	if err != nil {
		return err
	}
	g.mu.Lock()
	if rec.ID == g.self.ID && rec.Boot != g.self.Boot {
		proved := g.rivalLocked(&rec)
		g.mu.Unlock()
		if proved {
			g.identityInUse(fmt.Sprintf("another running process, boot %016x, answers every record of this one, boot %016x", rec.Boot, g.cfg.Self.Boot))
		}
		return errRival
	}
	g.table.Merge(time.Now(), rec)
	alien := g.table.Alien(&rec)
	own := g.self.Mesh
	g.noteLocked()
	g.mu.Unlock()
	if !alien {
		return nil
	}
	g.counts.foreign.Add(1)
	if g.quiet.Allow("mesh " + rec.Mesh.String()) {
		g.log.Error("a node of another mesh uses this mesh's key; the meshes stay apart, but one of them needs another key",
			"their_mesh", rec.Mesh, "our_mesh", own, "node", rec.ID, "name", rec.Name, "addresses", rec.PeerAddrs)
		if f := g.cfg.Events.ForeignMesh; f != nil {
			g.tell(func() { f(rec.Mesh, rec.ID) })
		}
	}
	return errForeign
}

// verify reads a record and checks signature and name. One that is held was
// checked before: a signature costs more than all the rest.
func (g *Gossip) verify(b []byte, name string) (view.Record, error) {
	g.mu.Lock()
	rec, held := g.table.Holds(nodeOf(name), b)
	g.mu.Unlock()
	if !held {
		var err error
		if rec, err = decode(b, g.cfg.NodeID); err != nil {
			g.refuse(err, name)
			return rec, err
		}
	}
	if name != "" && name != memberName(rec.ID, rec.Boot) {
		g.refuse(errBinding, name)
		return rec, errBinding
	}
	return rec, nil
}

func (g *Gossip) refuse(err error, name string) {
	switch {
	case errors.Is(err, errSignature):
		g.counts.unsigned.Add(1)
	case errors.Is(err, errBinding):
		g.counts.misnamed.Add(1)
	default:
		g.counts.malformed.Add(1)
	}
	if g.quiet.Allow("record " + err.Error()) {
		g.log.Warn("ignored a node record that its node did not make, or of another version", "member", name, "error", err)
	}
}

// observe takes the failure detector's word.
func (g *Gossip) observe(n *memberlist.Node, s view.State) {
	text := strings.TrimPrefix(n.Name, string(nodeOf(n.Name))+".")
	boot, err := strconv.ParseUint(text, 16, 64)
	if err != nil {
		return // no record goes with such a name
	}
	id := nodeOf(n.Name)
	g.mu.Lock()
	defer g.mu.Unlock()
	if id != g.self.ID {
		g.addrs[id] = hostPort(n)
	}
	g.table.Observe(time.Now(), id, boot, s)
	g.noteLocked()
}

// rivalLocked takes a record of this node's identity that another process made.
// Usually it is this node's own past: a record of an earlier process that
// others still hold, outbid by a higher epoch and gone. Two processes with one
// identity outbid each other: who sees a foreign boot's epoch grow above his
// own has proof.
func (g *Gossip) rivalLocked(rec *view.Record) (proved bool) {
	g.counts.rival.Add(1)
	seen, known := g.rivals[rec.Boot]
	if len(g.rivals) >= rivalsMax && !known {
		clear(g.rivals)
	}
	g.rivals[rec.Boot] = max(seen, rec.Epoch)
	if rec.Epoch < g.self.Epoch {
		return false
	}
	g.outbid = max(g.outbid, rec.Epoch)
	return known && rec.Epoch > seen
}

// rivalsMax bounds the memory of other boots of this node.
const rivalsMax = 64

// outbidRival makes a record above a rival's.
func (g *Gossip) outbidRival() {
	g.mu.Lock()
	above := g.outbid
	g.outbid = 0
	ours := g.self.Epoch
	g.mu.Unlock()
	if above < ours || above == 0 {
		return
	}
	if err := g.renew(above+1, func(*view.Record) {}); err != nil {
		g.log.Error("cannot renew the node record, others hold an older one", "error", err)
		return
	}
	g.spread()
}

func (g *Gossip) identityInUse(detail string) {
	if !g.quiet.Allow("identity") {
		return
	}
	g.log.Error("another running node has this node's identity: its data directory was copied; stop one of them and give it a data directory of its own",
		"node", g.cfg.Identity.NodeID(), "detail", detail)
	if f := g.cfg.Events.IdentityInUse; f != nil {
		g.tell(func() { f(detail) })
	}
}

var (
	_ memberlist.Delegate         = delegate{}
	_ memberlist.AliveDelegate    = delegate{}
	_ memberlist.EventDelegate    = delegate{}
	_ memberlist.ConflictDelegate = delegate{}
)
