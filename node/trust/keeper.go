package trust

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/trust"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Method is the mesh call of this package.
const Method = 14

// Engine is what this package needs of consensus.Engine.
type Engine interface {
	Submit(segment anchormesh.SegmentID, p consensus.Proposal)
	Status(segment anchormesh.SegmentID) (consensus.Status, bool)
	Resting() bool
}

// Caller sends requests to other nodes; mesh.Mesh is one.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
}

// Replicas are those on this node; host.Host has them.
type Replicas interface {
	Segments() []anchormesh.SegmentID
	Get(anchormesh.SegmentID) (*host.Replica, bool)
}

// Listener hears of what happens; fields may be nil.
type Listener struct {
	// Weighed: an entry that this node proposed has changed a weight.
	Weighed func(segment anchormesh.SegmentID, from, to uint32)
	// Differs: a piece of the keys is not what it is on another node.
	Differs func(segment anchormesh.SegmentID, node anchormesh.NodeID)
}

// Config of a Keeper.
type Config struct {
	Self   anchormesh.NodeID
	Sign   func([]byte) ([]byte, error)
	Verify machine.Verify
	// Every is the time between two questions, and how long an answer is waited for.
	Every time.Duration
	// Window is how many questions a report is about.
	Window int
	// LateAfter is how many questions ago what this node had applied then must be applied
	// by the others.
	LateAfter int
	// PieceEvery is how many questions lie between two comparisons of keys; 0: none are made.
	PieceEvery int
	// Cadence is the time between two entries of one segment.
	Cadence  time.Duration
	Logger   *slog.Logger
	Listener Listener
}

// DefaultConfig returns a second between questions, reports about half a minute, and an
// entry every ten seconds at most: who is dead for half of that loses 10 of 100.
func DefaultConfig() Config {
	return Config{Every: time.Second, Window: 30, LateAfter: 3, PieceEvery: 10, Cadence: 10 * time.Second}
}

// Keeper measures and reports.
type Keeper struct {
	cfg      Config
	replicas Replicas
	engine   Engine
	caller   Caller

	mu    sync.Mutex
	seen  map[anchormesh.SegmentID]*seen
	calls map[anchormesh.NodeID]bool // nodes that are being asked
}

// New returns a keeper that Run starts.
func New(cfg Config, r Replicas, e Engine, c Caller) *Keeper {
	return &Keeper{cfg: cfg, replicas: r, engine: e, caller: c, seen: make(map[anchormesh.SegmentID]*seen), calls: make(map[anchormesh.NodeID]bool)}
}

// Run measures and reports until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	ask, report := time.NewTicker(k.cfg.Every), time.NewTicker(k.cfg.Cadence)
	defer ask.Stop()
	defer report.Stop()
	var running sync.WaitGroup
	defer running.Wait()
	asking, reporting := make(chan struct{}, 1), make(chan struct{}, 1)
	var resting atomic.Int64 // nothing is asked before, in nanoseconds since begin
	begin := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ask.C:
			if time.Since(begin) < time.Duration(resting.Load()) {
				continue
			}
			select {
			case asking <- struct{}{}: // one round at a time: with thousands awake it may take longer
				running.Go(func() {
					start := time.Now()
					k.ask(ctx)
					resting.Store(int64(time.Since(begin) + min(askShare*time.Since(start), askMost)))
					<-asking
				})
			default:
			}
		case <-report.C:
			select {
			case reporting <- struct{}{}: // the last round may still wait for somebody
				running.Go(func() {
					k.report(ctx)
					<-reporting
				})
			default:
			}
		}
	}
}

// A node with thousands of segments awake spends at most a small part of a core on putting
// its questions together: a round that took long is followed by a rest so many times as
// long, of askMost at most.
const (
	askShare = 50
	askMost  = 10 * time.Second
)

// group is a segment's voters, as the replica here has applied them.
type group struct {
	segment anchormesh.SegmentID
	replica *host.Replica
	state   *machine.State
	status  consensus.Status
	voters  []anchormesh.NodeID
}

// toLookAt returns the segments among which some may be awake.
func (k *Keeper) toLookAt() []anchormesh.SegmentID {
	if k.engine.Resting() {
		return nil
	}
	return k.replicas.Segments()
}

// awake returns the segment's group if it is to be measured: awake, with this node as one
// of several voters.
func (k *Keeper) awake(id anchormesh.SegmentID) (g group, ok bool) {
	st, runs := k.engine.Status(id)
	if !runs || st.Asleep { // of thousands, most
		return g, false
	}
	r, here := k.replicas.Get(id)
	if !here {
		return g, false
	}
	s := r.Machine.State()
	me, anchor := s.Descriptor.AnchorOn(k.cfg.Self)
	voters := s.VoterNodes()
	if !anchor || me.Role != anchormesh.Voter || len(voters) < 2 {
		return g, false
	}
	return group{id, r, s, st, voters}, true
}

// Invalid notes that a message of a voter had to be refused.
func (k *Keeper) Invalid(segment anchormesh.SegmentID, node anchormesh.NodeID) {
	k.note(segment, node, func(r *record) { r.now.invalid++ })
}

func (k *Keeper) note(segment anchormesh.SegmentID, node anchormesh.NodeID, f func(*record)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if s := k.seen[segment]; s != nil {
		f(s.record(node))
	}
}

// Measured returns what this node has seen of a segment's other voters.
func (k *Keeper) Measured(segment anchormesh.SegmentID) map[anchormesh.NodeID]trust.Measure {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.seen[segment]
	if s == nil {
		return nil
	}
	out := make(map[anchormesh.NodeID]trust.Measure, len(s.of))
	for node, r := range s.of {
		out[node] = r.measure()
	}
	return out
}

// Serve answers another node; it does not block.
func (k *Keeper) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	if len(payload) == 0 {
		to.Fail(codeRefused, errMalformed.Error())
		return
	}
	switch payload[0] {
	case askApplied:
		list, err := parseQuestions(payload[1:])
		if err != nil {
			to.Fail(codeRefused, err.Error())
			return
		}
		go func() { to.Reply(appendReplies(nil, k.answer(list))) }() // a piece takes a while to read
	case askReport:
		w, err := parseWanted(payload[1:])
		if err != nil {
			to.Fail(codeRefused, err.Error())
			return
		}
		r, err := k.own(&w, from)
		if err != nil {
			to.Fail(codeRefused, err.Error())
			return
		}
		to.Reply(appendReport(nil, r))
	default:
		to.Fail(codeRefused, errMalformed.Error())
	}
}

// codeRefused is the failure of a question that cannot be answered; the text says why.
const codeRefused = 1
