package view

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Limits bound a Table.
type Limits struct {
	Members   int           // records kept, of any state and mesh
	KeepGone  time.Duration // how long a dead or left member is shown
	KeepAlien time.Duration // how long the record of another mesh's node is kept after it was last heard
}

// DefaultLimits fit a mesh of a thousand nodes with room for their past: a dead
// node is shown for three days, longer than a weekend's outage.
func DefaultLimits() Limits {
	return Limits{Members: 4096, KeepGone: 72 * time.Hour, KeepAlien: time.Hour}
}

// Validate refuses limits that cannot work.
func (l Limits) Validate() error {
	if l.Members < 1 || l.KeepGone <= 0 || l.KeepAlien <= 0 {
		return fmt.Errorf("%w: members %d, keep gone %v, keep alien %v", ErrLimits, l.Members, l.KeepGone, l.KeepAlien)
	}
	return nil
}

var (
	// ErrLimits is returned for limits that are not positive.
	ErrLimits = errors.New("view limits must be positive")
)

// Counts say how a Table treated the news it got.
type Counts struct {
	Merged  uint64 // records that changed the table
	Stale   uint64 // records that were not newer than the one held
	Refused uint64 // records of new members for which there was no room
}

// Table is the member table. It is not safe for concurrent use.
type Table struct {
	limits  Limits
	mesh    anchormesh.MeshID
	entries map[anchormesh.NodeID]*entry
	counts  Counts
	version uint64
	snap    View
	dirty   bool
}

type entry struct {
	rec   Record
	state State
	since time.Time
	heard time.Time // of the last record or state
}

// NewTable returns an empty table of a node that belongs to mesh, or to none
// yet (zero). The limits have been validated.
func NewTable(mesh anchormesh.MeshID, limits Limits) *Table {
	return &Table{mesh: mesh, limits: limits, entries: make(map[anchormesh.NodeID]*entry)}
}

// Merge takes a record. It reports whether the record replaced what was held.
// A record of a new boot makes its member alive, a last record makes it left.
func (t *Table) Merge(now time.Time, rec Record) bool {
	e := t.entries[rec.ID]
	switch {
	case e == nil:
		if len(t.entries) >= t.limits.Members && !t.evict() {
			t.counts.Refused++
			return false
		}
		t.entries[rec.ID] = &entry{rec: rec, state: stateOf(&rec, Alive), since: now, heard: now}
	case !rec.supersedes(&e.rec):
		e.heard = now
		t.counts.Stale++
		return false
	default:
		was := e.state
		if rec.Boot != e.rec.Boot {
			was = Alive
		}
		if s := stateOf(&rec, was); s != e.state {
			e.state, e.since = s, now
		}
		e.rec, e.heard = rec, now
	}
	t.counts.Merged++
	t.dirty = true
	return true
}

// stateOf is s, unless the record itself says that the member left.
func stateOf(rec *Record, s State) State {
	if rec.Left {
		return Left
	}
	return s
}

// Observe takes the failure detector's word on one boot of a member. Words on
// another boot than the one whose record is held are ignored, and so are words
// on one that left. It reports whether the state changed.
func (t *Table) Observe(now time.Time, id anchormesh.NodeID, boot uint64, s State) bool {
	e := t.entries[id]
	if e == nil || e.rec.Boot != boot {
		return false
	}
	e.heard = now
	if e.state == s || e.rec.Left {
		return false
	}
	e.state, e.since = s, now
	t.dirty = true
	return true
}

// SetMesh says that this node now belongs to mesh. Members of other meshes
// leave the View.
func (t *Table) SetMesh(mesh anchormesh.MeshID) {
	if t.mesh != mesh {
		t.mesh, t.dirty = mesh, true
	}
}

// Alien reports whether a record belongs to another mesh than this node: both
// are known and differ.
func (t *Table) Alien(rec *Record) bool {
	return rec.Mesh != 0 && t.mesh != 0 && rec.Mesh != t.mesh
}

// Meshes returns the mesh IDs the known records name, sorted, without zero.
func (t *Table) Meshes() []anchormesh.MeshID {
	var out []anchormesh.MeshID
	for _, e := range t.entries {
		if e.rec.Mesh != 0 {
			out = append(out, e.rec.Mesh)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Reap forgets members that have been gone too long.
func (t *Table) Reap(now time.Time) {
	for id, e := range t.entries {
		gone := e.state != Alive && now.Sub(e.since) > t.limits.KeepGone
		if gone || t.Alien(&e.rec) && now.Sub(e.heard) > t.limits.KeepAlien {
			delete(t.entries, id)
			t.dirty = true
		}
	}
}

// evict makes room by forgetting the member that has been gone longest.
func (t *Table) evict() bool {
	var victim *entry
	for _, e := range t.entries {
		if e.state == Alive {
			continue
		}
		if victim == nil || e.since.Before(victim.since) || e.since.Equal(victim.since) && e.rec.ID < victim.rec.ID {
			victim = e
		}
	}
	if victim == nil {
		return false
	}
	delete(t.entries, victim.rec.ID)
	t.dirty = true
	return true
}

// Counts returns how the news were treated so far.
func (t *Table) Counts() Counts { return t.counts }

// Holds returns the record held of a member if its signed bytes are raw: it was
// verified before.
func (t *Table) Holds(id anchormesh.NodeID, raw []byte) (Record, bool) {
	e := t.entries[id]
	if e == nil || e.rec.Raw != string(raw) {
		return Record{}, false
	}
	return e.rec, true
}

// Dirty reports whether the table changed since the last View.
func (t *Table) Dirty() bool { return t.dirty }

// View returns a snapshot; the same one as long as nothing changed.
func (t *Table) View() View {
	if !t.dirty {
		return t.snap
	}
	members := make([]Member, 0, len(t.entries))
	for _, e := range t.entries {
		if t.Alien(&e.rec) {
			continue
		}
		members = append(members, Member{
			ID: e.rec.ID, Name: e.rec.Name, Zone: e.rec.Zone, Version: e.rec.Version,
			PeerAddrs: e.rec.PeerAddrs, ClientURLs: e.rec.ClientURLs,
			Mesh: e.rec.Mesh, Epoch: e.rec.Epoch, Boot: e.rec.Boot,
			State: e.state, Since: e.since,
		})
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	t.version++
	t.snap, t.dirty = View{members: members, version: t.version}, false
	return t.snap
}
