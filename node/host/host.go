package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/lineage"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/entropy/sample"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/commit"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/keyspace/mvcc"
	"github.com/anchormesh/anchormesh/keyspace/watch"
	"github.com/anchormesh/anchormesh/node/datadir"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
	"github.com/anchormesh/anchormesh/node/scopes"
)

var (
	// ErrRetired says that this replica was given up and may not come back.
	ErrRetired = errors.New("this replica was retired on this node")
	// ErrNotInvited says that a descriptor does not name this node.
	ErrNotInvited = errors.New("the descriptor does not name this node as that replica")
	// ErrOlder says that an offered snapshot is older than the log here.
	ErrOlder = errors.New("the snapshot is too old")
	// ErrOverlap says that keys of an offered snapshot are in another replica here.
	ErrOverlap = errors.New("the keys are still held by another replica on this node")
	// ErrBegins says that an offered segment was cut off another one here and starts in a
	// moment. It needs no snapshot, and one installed meanwhile would be started twice.
	ErrBegins = errors.New("the child of a split begins here in a moment")
	// ErrMoved ends the watches of a replica that leaves this node.
	ErrMoved = errors.New("the segment left this node")
	// ErrSplit ends the watches that reach beyond what a segment holds.
	ErrSplit = errors.New("the segment does not hold all of these keys any more")
)

// Config of a host.
type Config struct {
	Self   anchormesh.NodeID
	Limits keyspace.Limits
	Watch  watch.Limits
	Logger *slog.Logger
	// Leases returns who follows a segment's leases.
	Leases func(anchormesh.SegmentID) func([]lease.Event)
	// Boot names the run of the machine; see datadir.ThisBoot.
	Boot string
	// Changed is told of every change of a segment's record, in the order of its
	// log. It must not block.
	Changed func(*Replica, machine.Change)
	// Held is told of what is prepared and decided in a segment, in the order of its
	// log; nil: nobody. It must not block.
	Held func(anchormesh.SegmentID, keyspace.Hold)
	// Verify checks the signatures of votes and reports in the log.
	Verify machine.Verify
	// Forged is told of approved batches whose votes nobody gave; nil: nobody. It must
	// not block.
	Forged func(segment anchormesh.SegmentID, term uint64, err error)
	// Agreed: splits and merges need their anchors' votes, or a decision of their scope's
	// home. It is the same on all nodes of a mesh.
	Agreed bool
}

// Host holds the replicas of a node.
type Host struct {
	cfg    Config
	dir    *datadir.Dir
	stores *scopes.Stores
	engine *consensus.Engine
	log    *wal.Log
	table  *route.Table

	mu       sync.Mutex // serialises changes of what is held, and dir
	closed   bool
	held     shelf
	awaiting map[anchormesh.SegmentID]anchormesh.ReplicaID
	// forgetful holds what is left of replicas that may have forgotten something.
	forgetful map[anchormesh.SegmentID]Forgetful
	running   sync.WaitGroup

	merging, unsettled, homes, governed, turning marks
}

// Replica is a running replica on this node.
type Replica struct {
	ID      anchormesh.ReplicaID
	Machine *machine.Machine
	Hub     *watch.Hub
	Store   *mvcc.Store // the scope's, shared with its other segments
	Meter   sample.Meter
	Pace    Pace // of requests, where the scope bounds them
	// stamped is closed when the scope is known to have been split.
	stamped chan struct{}
	// Since is the log index of the snapshot that the replica came as; 0: it began
	// here, and has applied everything itself.
	Since uint64
	// floor is the newest index of a write that this node answered for
	// somebody else's apply.
	floor atomic.Uint64
	class class
}

// Raise notes that a write at index was answered through this node.
func (r *Replica) Raise(index uint64) {
	for {
		old := r.floor.Load()
		if old >= index || r.floor.CompareAndSwap(old, index) {
			return
		}
	}
}

// Stamped is closed once the replica knows that its scope was split, which is for
// good: revisions come from the scope's line then, and other segments have them, too.
func (r *Replica) Stamped() <-chan struct{} { return r.stamped }

// noteStamps follows the segment's state, in the order of its log.
func (r *Replica) noteStamps(s *machine.State) {
	select {
	case <-r.stamped:
	default:
		if s.Line != 0 {
			close(r.stamped)
		}
	}
}

// catchUpWait bounds how long a local answer waits for a write that was answered
// through this node. A member of etcd answers a write after its own apply, so it
// waits without a bound; a second outlasts a sync on a busy disk.
const catchUpWait = time.Second

// CatchUp waits until the replica has applied every write that was answered
// through this node: what a client wrote here it then sees here, in local
// answers too (serializable reads, new watches, hashes). The wait is bounded;
// only a replica that is cut off or far behind misses it.
func (h *Host) CatchUp(ctx context.Context, r *Replica) {
	floor := r.floor.Load()
	if applied, _ := r.Machine.Segment().Applied(); applied >= floor {
		return
	}
	done := make(chan struct{})
	h.engine.WhenApplied(r.Machine.Descriptor().Segment, floor, func(error) { close(done) })
	timer := time.NewTimer(catchUpWait)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// New returns a host that holds nothing yet.
func New(cfg Config, dir *datadir.Dir, stores *scopes.Stores, engine *consensus.Engine, log *wal.Log, table *route.Table) *Host {
	h := &Host{
		cfg: cfg, dir: dir, stores: stores, engine: engine, log: log, table: table,
		awaiting: make(map[anchormesh.SegmentID]anchormesh.ReplicaID), forgetful: make(map[anchormesh.SegmentID]Forgetful),
	}
	return h
}

// Get returns the replica of a segment, if one runs here.
func (h *Host) Get(id anchormesh.SegmentID) (*Replica, bool) {
	return h.held.get(id)
}

// Segments returns what runs here, sorted; the same slice until that changes, which
// nobody may modify.
func (h *Host) Segments() []anchormesh.SegmentID { return h.held.ids() }

// Merging returns which of the replicas here an attempt to merge concerns.
func (h *Host) Merging() []anchormesh.SegmentID { return h.merging.list() }

// Unsettled returns which of the segments here keep something of a transaction over
// several.
func (h *Host) Unsettled() []anchormesh.SegmentID { return h.unsettled.list() }

// ScopeHomes returns which of the segments here are the home of a scope.
func (h *Host) ScopeHomes() []anchormesh.SegmentID { return h.governed.list() }

// Homes returns which of the segments here are the home of a line.
func (h *Host) Homes() []anchormesh.SegmentID { return h.homes.list() }

// Turning returns which of the segments here are the home of a scope inside the root's,
// whose line of revisions may change, or is changing.
func (h *Host) Turning() []anchormesh.SegmentID { return h.turning.list() }

// Mesh returns the mesh this node belongs to, zero if none yet.
func (h *Host) Mesh() anchormesh.MeshID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.dir.Record().Mesh
}

// JoinMesh makes the node a member of a mesh for good.
func (h *Host) JoinMesh(id anchormesh.MeshID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec := h.dir.Record()
	if rec.Mesh == id {
		return nil
	}
	if rec.Mesh != 0 {
		return fmt.Errorf("this node belongs to mesh %s already", rec.Mesh)
	}
	rec.Mesh = id
	return h.dir.Save(rec)
}

// Open starts every replica that the data directory holds.
func (h *Host) Open() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.recall(); err != nil {
		return err
	}
	prefixes, err := h.dir.Scopes()
	if err != nil {
		return err
	}
	known := make(map[anchormesh.SegmentID]bool)
	var present []anchormesh.SegmentID
	for _, prefix := range prefixes {
		store, err := h.openStore(prefix)
		if err != nil {
			return err
		}
		for _, id := range store.Segments() {
			known[id] = true
			if err := h.reopen(store, id); err != nil {
				return err
			}
			present = append(present, id)
		}
		for _, id := range store.Absent() { // cut short: an installation begins anew, a retirement ends
			known[id] = true
			if h.dir.Record().Dropping[id] {
				if err := h.discard(store, id); err != nil {
					return err
				}
			}
		}
	}
	for _, id := range h.log.Groups() {
		if !known[id] {
			if err := h.orphan(id); err != nil {
				return err
			}
		}
	}
	// Only now: what one replica replays may take in another.
	for _, id := range present {
		if r, ok := h.Get(id); ok {
			if err := h.start(id, r, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// fileOf names the file that a segment is kept in: that of the root scope. A segment
// can change its scope and its line, but no file.
func fileOf(*anchormesh.Descriptor) []byte { return nil }

// openStore opens a scope's store; from its first opening on the directory is
// incomplete without it.
func (h *Host) openStore(prefix []byte) (*mvcc.Store, error) {
	store, err := h.stores.Open(prefix)
	if err != nil {
		return nil, err
	}
	return store, h.dir.Holds(prefix)
}

// orphan judges a log without a state: the end of a retirement or of a merge, or the
// beginning of a genesis that a crash cut short. Anything else has lost acknowledged
// writes.
func (h *Host) orphan(id anchormesh.SegmentID) error {
	rec := h.dir.Record()
	if replica, frozen := rec.Frozen[id]; frozen {
		if err := h.retired(id, replica); err != nil {
			return err
		}
		return h.drop(id)
	}
	if rec.Dropping[id] {
		return h.drop(id)
	}
	last, err := h.log.Group(id).LastIndex()
	if err != nil {
		return fmt.Errorf("segment %s: %w", id, err)
	}
	if last == 0 {
		return nil // it voted, and never had a state
	}
	if id == rec.Genesis && last == genesisIndex {
		return nil // Genesis repeats it
	}
	return fmt.Errorf("%w: the log holds segment %s up to %d, the stores do not know it; %s", datadir.ErrIncomplete, id, last, remedy)
}

// remedy is what helps a node that has lost something.
const remedy = "put back what is missing, or, if the mesh has its majority without this node, start with an empty directory"

// reopen prepares a replica that the store holds.
func (h *Host) reopen(store *mvcc.Store, id anchormesh.SegmentID) error {
	segment, ok := store.Segment(id)
	if !ok {
		return nil
	}
	state, err := machine.DecodeState(segment.Meta().State)
	if err != nil {
		return fmt.Errorf("segment %s: %w", id, err)
	}
	self, ok := h.replicaOf(state)
	if !ok { // removed, and stopped before the others confirmed that they know
		if err := h.retired(id, state.Descriptor.NextReplica-1); err != nil {
			return err
		}
	}
	if !ok || self <= h.dir.Record().Retired[id] { // a retirement that a crash cut short
		return h.discard(store, id)
	}
	if forgot, err := h.forgot(segment, self, state); forgot || err != nil {
		return err
	}
	if err := h.beginLog(segment); err != nil {
		return err
	}
	_, err = h.prepare(store, segment, self)
	return err
}

// run opens a present segment and starts its group. first makes the replica stand
// for election at once.
func (h *Host) run(store *mvcc.Store, segment *mvcc.Segment, id anchormesh.ReplicaID, first bool) error {
	r, err := h.prepare(store, segment, id)
	if err != nil {
		return err
	}
	return h.start(segment.ID(), r, first)
}

// start starts the group of a replica that was prepared.
func (h *Host) start(segment anchormesh.SegmentID, r *Replica, first bool) error {
	err := h.engine.StartGroup(consensus.GroupSpec{
		Segment: segment, Replica: r.ID, Peers: r.Machine.State().Peers(), Start: r.Machine.Start(), Machine: r.Machine, Campaign: first,
	})
	if err != nil {
		return err
	}
	return h.followClass(r, segment)
}

// prepare opens a present segment; its group does not run yet.
func (h *Host) prepare(store *mvcc.Store, segment *mvcc.Segment, id anchormesh.ReplicaID) (*Replica, error) {
	meta := segment.Meta()
	if err := h.checkLog(segment.ID(), meta); err != nil {
		return nil, err
	}
	state, err := machine.DecodeState(meta.State)
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	identity := keyspace.Identity{ClusterID: uint64(state.Descriptor.Mesh), MemberID: h.cfg.Self.MemberID()}
	space, err := keyspace.NewSpace(segment, identity, h.cfg.Limits)
	if err != nil {
		return nil, fmt.Errorf("segment %s: %w", segment.ID(), err)
	}
	hub, err := watch.NewHub(segment, h.cfg.Watch)
	if err != nil {
		return nil, err
	}
	hub.Bound(state.Descriptor.Range, ErrSplit)
	segment.SetPublisher(hub)
	space.OnLeases(h.cfg.Leases(segment.ID()))
	h.followHolds(segment.ID(), space, hub)
	r := &Replica{ID: id, Hub: hub, Store: store, Since: h.dir.Record().Installed[segment.ID()], stamped: make(chan struct{})}
	m, err := machine.New(segment, space, h.cfg.Verify, func(c machine.Change) { h.changed(r, c) })
	if err != nil {
		return nil, err
	}
	r.Machine = m
	m.OnAbsorb(h.surrendering)
	if h.cfg.Agreed {
		m.RequireAgreement()
	}
	if h.cfg.Forged != nil {
		m.OnForged(func(term uint64, err error) { h.cfg.Forged(segment.ID(), term, err) })
	}
	m.OnCut(func(left anchormesh.KeyRange) { hub.Bound(left, ErrSplit) })
	r.noteStamps(state)
	r.class.light = state.Light()
	hub.Serve(h.running.Go, func(err error) {
		if !gone(err) {
			panic("host: the watch hub of segment " + segment.ID().String() + " cannot go on: " + err.Error())
		}
	})
	h.hold(segment.ID(), r)
	h.table.Learn(m.Descriptor())
	delete(h.awaiting, segment.ID())
	return r, nil
}

// followHolds keeps the watches of a segment behind what is prepared in it.
func (h *Host) followHolds(id anchormesh.SegmentID, space *keyspace.Space, hub *watch.Hub) {
	space.Participant(func(p *commit.Participant) {
		lowest, _ := p.Lowest()
		hub.Hold(lowest)
	})
	space.OnUnsettled(func(is bool) { h.unsettled.set(id, is) })
	space.OnHold(func(hold keyspace.Hold) {
		hub.Hold(hold.Lowest)
		if h.cfg.Held != nil {
			h.cfg.Held(id, hold)
		}
	})
}

// checkLog makes sure that the log holds what lies behind the applied index, up
// to the commit index it noted.
func (h *Host) checkLog(id anchormesh.SegmentID, meta mvcc.Meta) error {
	log := h.log.Group(id)
	first, err := log.FirstIndex()
	if err != nil {
		return fmt.Errorf("segment %s: %w", id, err)
	}
	last, err := log.LastIndex()
	if err != nil {
		return fmt.Errorf("segment %s: %w", id, err)
	}
	commit := log.InitialHardState().GetCommit()
	if first > meta.Applied+1 || last < max(meta.Applied, commit) {
		return fmt.Errorf("%w: the store of segment %s stands at log index %d, but the log holds %d to %d of %d; %s",
			datadir.ErrIncomplete, id, meta.Applied, first, last, max(last, commit), remedy)
	}
	return nil
}

func (h *Host) hold(id anchormesh.SegmentID, r *Replica) {
	h.held.put(id, r)
	if r == nil {
		for _, m := range []*marks{&h.merging, &h.unsettled, &h.homes, &h.governed, &h.turning} {
			m.set(id, false)
		}
		return
	}
	h.mark(r.Machine.State())
	h.unsettled.set(id, r.Machine.Space().Unsettled())
}

// mark notes who has to look after a segment in this state.
func (h *Host) mark(s *machine.State) {
	id := s.Descriptor.Segment
	h.merging.set(id, s.Merging())
	h.homes.set(id, s.Line != 0 && s.Descriptor.LineHome())
	h.turning.set(id, s.Turn.Phase != machine.Settled || s.Home() && len(s.Descriptor.Range.Start) > 0)
	h.governed.set(id, s.Home())
}

// changed follows a segment's record of itself; it runs on the apply goroutine.
func (h *Host) changed(r *Replica, c machine.Change) {
	s, d := c.State, c.State.Descriptor
	r.noteStamps(s)
	h.mark(s)
	h.classed(r, s)
	if h.cfg.Changed != nil {
		defer h.cfg.Changed(r, c)
	}
	if c.Thawed {
		go h.thawed(d.Segment, r) // not here: it may have to retire the replica
	}
	if d.Changed != c.Place.Index {
		return // neither descriptor nor configuration
	}
	h.engine.SetPeers(d.Segment, s.Peers())
	h.table.Learn(d)
	switch {
	case c.Child != nil:
		h.split(r, c)
		return
	case c.Absorbed != nil:
		h.absorbed(r, c)
		return
	}
	if last := s.Chain.Last(); last.Kind == lineage.Policy {
		h.cfg.Logger.Info("policy decided or adopted", "segment", d.Segment, "scope", string(d.Scope), "version", d.Policy,
			"from", string(last.Rule.From), "to", string(last.Rule.Scope), "decides", last.Rule.Decision.IsZero(),
			"of", last.Rule.Version, "generation", d.Generation, "index", d.Changed)
		return
	}
	h.cfg.Logger.Info("anchor group changed", "segment", d.Segment, "anchors", len(d.Anchors),
		"voters", len(d.Voters()), "joint", s.Joint(), "index", d.Changed)
	if _, stays := h.replicaOf(s); !stays && !s.Frozen() {
		// Not on this goroutine: to retire is to wait for it. A stop in between is
		// made up for at the next start.
		go h.leave(d.Segment)
	}
}

// leave retires a replica that has applied its own removal. No descriptor that
// this node could still hear of would tell it anything new.
func (h *Host) leave(id anchormesh.SegmentID) {
	r, ok := h.Get(id)
	if !ok {
		return
	}
	if err := h.Retire(id, r.ID); err != nil {
		h.cfg.Logger.Error("a removed replica cannot be given up; the next start tries again", "segment", id, "err", err)
	}
}

// Genesis creates the mesh's first segment, the whole keyspace with this node
// as its only anchor. It may be repeated: until it succeeded it goes on, and after that it
// does nothing.
func (h *Host) Genesis(mesh anchormesh.MeshID, segment anchormesh.SegmentID, zone string, want int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec := h.dir.Record()
	if rec.Genesis == 0 {
		rec.Mesh, rec.Genesis = mesh, segment
		if err := h.dir.Save(rec); err != nil {
			return err
		}
	}
	if rec.Founded {
		return nil // the replica may have moved away since, or wait for a snapshot
	}
	if _, ok := h.Get(rec.Genesis); ok {
		return h.founded()
	}
	store, err := h.openStore(nil)
	if err != nil {
		return err
	}
	start := wal.Mark{Index: genesisIndex, Term: 1}
	if err := h.engine.RestartLog(rec.Genesis, start); err != nil {
		return err
	}
	state, err := machine.Founding(&anchormesh.Descriptor{
		Mesh: rec.Mesh, Segment: rec.Genesis, Generation: 1, NextReplica: 2,
		Anchors: []anchormesh.Anchor{{Node: h.cfg.Self, Replica: 1, Role: anchormesh.Voter, Zone: zone}},
	}, want, lineage.Place{Index: start.Index, Term: start.Term})
	if err != nil {
		return err
	}
	created, err := store.Create(rec.Genesis, anchormesh.KeyRange{}, mvcc.Meta{
		Applied: start.Index, Term: start.Term, State: state.Encode(),
	})
	if err != nil {
		return err
	}
	if err := h.founded(); err != nil {
		return err
	}
	return h.run(store, created, 1, false)
}

// founded notes that the mesh's first segment was created here.
func (h *Host) founded() error {
	rec := h.dir.Record()
	rec.Founded = true
	return h.dir.Save(rec)
}

// genesisIndex is above one so that every other anchor starts from a snapshot:
// there is one way to begin, not two.
const genesisIndex = 5

// Close stops every replica's watches; the groups are the engine's to stop. No
// child begins any more.
func (h *Host) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.held.each(func(_ anchormesh.SegmentID, r *Replica) { r.Hub.Stop(nil) })
	h.running.Wait()
}
