package classes

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/internal/meshpb"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call of this package.
const Method = 15

const (
	interval    = 2 * time.Second
	callTimeout = time.Second
	// patience is how long a group has to remove a replica before its keeper hears of it:
	// one that works needs a second or two.
	patience = 5 * time.Second
	// buryTimeout bounds one report to the keeper.
	buryTimeout = 3 * time.Second
	// wordsAtOnce bounds the calls of one round that run side by side.
	wordsAtOnce = 8
	// malformed is the code of answers to what is no word.
	malformed = 1
)

// Caller asks other nodes; mesh.Mesh is one.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
}

// Config of a reporter.
type Config struct {
	Self anchormesh.NodeID
	// Forgot hands on that a replica on another node may have forgotten something. It is
	// asked on every anchor's node; the segment's leader acts.
	Forgot func(from anchormesh.NodeID, segment anchormesh.SegmentID, replica anchormesh.ReplicaID) bool
	// Dead tells the keeper of the segment, whose group did not remove the replica within
	// patience.
	Dead   func(ctx context.Context, f host.Forgetful) error
	Logger *slog.Logger
}

// Reporter says what there is to say of the replicas on a node, and takes what others
// say of theirs.
type Reporter struct {
	cfg    Config
	host   *host.Host
	engine *consensus.Engine
	table  *route.Table
	mesh   Caller
	kick   chan struct{}

	mu   sync.Mutex
	hard map[anchormesh.SegmentID]hardened

	since map[anchormesh.SegmentID]time.Time // of Run: when a group was first told of a replica
}

// hardened is a replica here that was asked to be on disk under a version of its policy.
type hardened struct {
	replica *host.Replica // one that was stopped meanwhile and is back is asked again
	policy  uint64
	onDisk  bool
}

// New returns a reporter; Run starts it.
func New(cfg Config, h *host.Host, e *consensus.Engine, t *route.Table, m Caller) *Reporter {
	return &Reporter{
		cfg: cfg, host: h, engine: e, table: t, mesh: m, kick: make(chan struct{}, 1),
		hard: make(map[anchormesh.SegmentID]hardened), since: make(map[anchormesh.SegmentID]time.Time),
	}
}

// Kick makes the reporter look at once: a segment's class has changed.
func (r *Reporter) Kick() {
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Run says what there is to say until ctx ends.
func (r *Reporter) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		r.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-r.kick:
		}
	}
}

func (r *Reporter) round(ctx context.Context) {
	var calls sync.WaitGroup
	room := make(chan struct{}, wordsAtOnce)
	say := func(to anchormesh.NodeID, w word) {
		room <- struct{}{}
		calls.Go(func() {
			defer func() { <-room }()
			r.say(ctx, to, w)
		})
	}
	if err := r.host.ReleaseGone(); err != nil {
		r.cfg.Logger.Warn("what is left of a replica that may have forgotten something cannot be given up", "err", err)
	}
	forgotten := r.host.Forgotten()
	for _, f := range forgotten {
		for _, node := range r.anchors(f.Segment, f.State) {
			say(node, word{forgot, f.Segment, f.Replica})
		}
		if r.overdue(f) {
			room <- struct{}{}
			calls.Go(func() {
				defer func() { <-room }()
				r.bury(ctx, f)
			})
		}
	}
	maps.DeleteFunc(r.since, func(id anchormesh.SegmentID, _ time.Time) bool {
		return !slices.ContainsFunc(forgotten, func(f host.Forgetful) bool { return f.Segment == id })
	})
	for _, id := range r.host.Segments() {
		switch rep, ok := r.host.Get(id); {
		case ok && rep.Machine.State().Hardening():
			r.harden(rep, say)
		default:
			r.forget(id)
		}
	}
	calls.Wait()
}

// overdue reports whether the group had its time to remove a replica. What nothing is left
// of is of no segment that is known.
func (r *Reporter) overdue(f host.Forgetful) bool {
	first, told := r.since[f.Segment]
	if !told {
		first = time.Now()
		r.since[f.Segment] = first
	}
	return f.State != nil && time.Since(first) >= patience
}

// bury tells the keeper.
func (r *Reporter) bury(ctx context.Context, f host.Forgetful) {
	ctx, cancel := context.WithTimeout(ctx, buryTimeout)
	defer cancel()
	if err := r.cfg.Dead(ctx, f); err != nil {
		r.cfg.Logger.Info("the keeper does not hear yet that a replica may have forgotten something", "segment", f.Segment, "replica", f.Replica, "err", err)
	}
}

// anchors returns the other nodes that may lead a segment, as far as is known here.
func (r *Reporter) anchors(id anchormesh.SegmentID, state *machine.State) (out []anchormesh.NodeID) {
	d, known := r.table.Segment(id)
	switch {
	case known:
	case state != nil:
		d = state.Descriptor
	default:
		return nil
	}
	for _, a := range d.Anchors {
		if a.Node != r.cfg.Self {
			out = append(out, a.Node)
		}
	}
	return out
}

// say tells one node, and learns what it answers.
func (r *Reporter) say(ctx context.Context, to anchormesh.NodeID, w word) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := r.mesh.Call(ctx, to, Method, w.encode())
	if err != nil || len(reply) == 0 {
		return // it is said again
	}
	d, err := meshpb.DecodeDescriptor(reply)
	if err == nil {
		err = r.host.Descriptor(d)
	}
	if err != nil {
		r.cfg.Logger.Warn("answer about a replica's class", "segment", w.segment, "from", to.Short(), "err", err)
	}
}

// harden says of a replica here that it is on disk, when it is.
func (r *Reporter) harden(rep *host.Replica, say func(anchormesh.NodeID, word)) {
	state := rep.Machine.State()
	d := state.Descriptor
	if !slices.Contains(state.Soft, rep.ID) {
		return
	}
	asked, is := r.asked(d.Segment)
	if !is || asked.policy != d.Policy || asked.replica != rep {
		r.note(d.Segment, hardened{replica: rep, policy: d.Policy})
		if !r.host.Harden(rep, func() {
			r.note(d.Segment, hardened{rep, d.Policy, true})
			r.Kick()
		}) {
			r.forget(d.Segment)
		}
		return
	}
	if !asked.onDisk || r.harder(r.cfg.Self, d.Segment, rep.ID) {
		return
	}
	for _, node := range r.anchors(d.Segment, state) {
		say(node, word{onDisk, d.Segment, rep.ID})
	}
}

func (r *Reporter) asked(id anchormesh.SegmentID) (hardened, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, is := r.hard[id]
	return h, is
}

func (r *Reporter) note(id anchormesh.SegmentID, h hardened) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hard[id] = h
}

func (r *Reporter) forget(id anchormesh.SegmentID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.hard, id)
}

// harder has the log note, if this node leads the segment, that a node's replica is on
// disk.
func (r *Reporter) harder(from anchormesh.NodeID, id anchormesh.SegmentID, replica anchormesh.ReplicaID) bool {
	rep, here := r.host.Get(id)
	st, ok := r.engine.Status(id)
	if !here || !ok || !st.Leads() {
		return false
	}
	state := rep.Machine.State()
	if state.Peers()[replica] != from || !slices.Contains(state.Soft, replica) {
		return true // known, or none of its business
	}
	r.engine.Submit(id, consensus.Proposal{
		Generation: state.Descriptor.Generation, Alone: true, Payload: machine.Hardened(replica),
		Done: func(res consensus.Result) {
			if res.Err != nil {
				r.cfg.Logger.Debug("that a replica is on disk was not noted", "segment", id, "replica", replica, "err", res.Err)
			}
		},
	})
	return true
}

// Serve answers a word; it is the mesh's call handler.
func (r *Reporter) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	w, err := parseWord(payload)
	if err != nil {
		to.Fail(malformed, err.Error())
		return
	}
	switch w.kind {
	case forgot:
		r.cfg.Forgot(from, w.segment, w.replica)
	case onDisk:
		r.harder(from, w.segment, w.replica)
	}
	if d, known := r.table.Segment(w.segment); known {
		to.Reply(meshpb.EncodeDescriptor(d))
		return
	}
	to.Reply(nil)
}
