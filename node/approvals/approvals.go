package approvals

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/anchors/approval"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/node/host"
	"github.com/anchormesh/anchormesh/node/machine"
)

// Method is the mesh call of this package.
const Method = 17

// ServeMax bounds the batches that are judged at a time.
const ServeMax = 256

// Engine is what this package needs of consensus.Engine.
type Engine interface {
	Submit(segment anchormesh.SegmentID, p consensus.Proposal)
	Status(segment anchormesh.SegmentID) (consensus.Status, bool)
	WhenApplied(segment anchormesh.SegmentID, index uint64, done func(error))
}

// Lines is what it needs of stamps.Lines.
type Lines interface {
	Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result))
	ProposeBatch(d *anchormesh.Descriptor, count int, payload func([]anchormesh.Revision) []byte, done func(consensus.Result))
	Now(ctx context.Context, scope []byte) (anchormesh.Revision, error)
	NumberOver(ctx context.Context, lines [][]byte) (anchormesh.Revision, error)
	Barrier(ctx context.Context, d *anchormesh.Descriptor, t anchormesh.Revision) (uint64, error)
}

// Caller sends requests to other nodes; mesh.Mesh is one.
type Caller interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
}

// Replicas are those on this node; host.Host has them.
type Replicas interface {
	Get(anchormesh.SegmentID) (*host.Replica, bool)
}

// Listener hears of what happens; fields may be nil.
type Listener struct {
	// Decided: the votes on a batch of so many requests were in after a time.
	Decided func(requests, refused int, took time.Duration)
	// Thrown: so many requests were given back without effect, to be tried again.
	Thrown func(requests int)
	// Voted: this node answered a leader, or abstained.
	Voted func(refused int, abstained bool)
	// Invalid: a node sent a vote that it did not sign, or that cannot be read.
	Invalid func(anchormesh.SegmentID, anchormesh.NodeID)
}

// Config of Approvals.
type Config struct {
	Self     anchormesh.NodeID
	Sign     func([]byte) ([]byte, error)
	Verifier *Verifier
	Core     approval.Config
	Logger   *slog.Logger
	Listener Listener
}

// Approvals runs the approvals of a node.
type Approvals struct {
	cfg      Config
	replicas Replicas
	engine   Engine
	lines    Lines
	caller   Caller
	serving  chan struct{}
	wake     chan struct{}

	mu        sync.Mutex
	in        []func(time.Time)
	stopped   bool
	approvers map[anchormesh.SegmentID]*approval.Approver

	// Owned by Run.
	leaders map[anchormesh.SegmentID]*leader
	stirred map[*leader]bool // have something to carry out, or wait for votes
}

// New returns approvals that Run starts.
func New(cfg Config, r Replicas, e Engine, l Lines, c Caller) *Approvals {
	return &Approvals{
		cfg: cfg, replicas: r, engine: e, lines: l, caller: c,
		serving: make(chan struct{}, ServeMax), wake: make(chan struct{}, 1),
		approvers: make(map[anchormesh.SegmentID]*approval.Approver),
		leaders:   make(map[anchormesh.SegmentID]*leader), stirred: make(map[*leader]bool),
	}
}

// Wants reports whether a command needs the approvals of a segment's voters.
func Wants(m *machine.Machine, command []byte) bool {
	_, wanted := m.State().Approvals()
	return wanted && keyspace.Writes(command)
}

// write is a client's write on its way.
type write struct {
	done func(consensus.Result)
}

// Submit takes a write for a segment that is led here. done is called once, from any
// goroutine, and must not block. The command is kept until then.
func (a *Approvals) Submit(segment anchormesh.SegmentID, generation anchormesh.Generation, command []byte, done func(consensus.Result)) {
	ok := a.do(func(now time.Time) {
		l := a.leader(now, segment)
		if l == nil || l.core.Seat().Generation != generation {
			done(consensus.Result{Err: consensus.ErrDropped})
			return
		}
		if err := l.core.Submit(approval.Request[*write]{Command: command, Tag: &write{done: done}}); err != nil {
			done(consensus.Result{Err: translate(err)})
		}
	})
	if !ok {
		done(consensus.Result{Err: consensus.ErrStopped})
	}
}

// translate words the errors of the core as those of a proposal, where it has any.
func translate(err error) error {
	switch err {
	case approval.ErrNotLeader:
		return consensus.ErrNotLeader
	case approval.ErrOverloaded:
		return consensus.ErrOverloaded
	}
	return err
}

// Changed tells that a segment's leader, or its record of itself, is another.
func (a *Approvals) Changed(segment anchormesh.SegmentID) {
	a.do(func(now time.Time) {
		if a.leaders[segment] != nil {
			a.leader(now, segment)
		}
	})
}

// do runs f on the goroutine of Run; false: it runs no more.
func (a *Approvals) do(f func(time.Time)) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.stopped {
		return false
	}
	a.in = append(a.in, f)
	select {
	case a.wake <- struct{}{}:
	default:
	}
	return true
}

// Run serves until ctx ends. What waits then ends without effect.
func (a *Approvals) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			a.stop()
			return nil
		case <-a.wake:
		case <-timer.C:
		}
		if next := a.step(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// step empties the mailbox and carries out what follows. It returns when the next step
// is due without a wake-up; zero is never.
func (a *Approvals) step() (next time.Time) {
	a.mu.Lock()
	in := a.in
	a.in = nil
	a.mu.Unlock()
	now := time.Now()
	for _, f := range in {
		f(now)
	}
	for l := range a.stirred {
		l.core.Tick(now)
		at := l.carryOut(now)
		if at.IsZero() {
			delete(a.stirred, l)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return next
}

func (a *Approvals) stop() {
	a.mu.Lock()
	a.stopped = true
	in := a.in
	a.in = nil
	a.mu.Unlock()
	now := time.Now()
	for _, f := range in {
		f(now) // each ends who waits for it
	}
	for _, l := range a.leaders {
		l.depose(now)
	}
}

// may reports whether this node may vote, by what it remembers of its votes.
func (a *Approvals) may(q *approval.Question) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.approvers[q.Segment]
	if p == nil {
		a.forgetLocked()
		p = &approval.Approver{}
		a.approvers[q.Segment] = p
	}
	return p.May(q)
}

// approversMax is how many segments are remembered before those that left are forgotten.
const approversMax = 1024

func (a *Approvals) forgetLocked() {
	if len(a.approvers) < approversMax {
		return
	}
	for id := range a.approvers {
		if _, here := a.replicas.Get(id); !here {
			delete(a.approvers, id)
		}
	}
}
