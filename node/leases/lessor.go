package leases

import (
	"context"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/keyspace/lease"
	"github.com/anchormesh/anchormesh/node/host"
)

// tick moves the leases' clock, as often as etcd does.
const tick = 500 * time.Millisecond

// Lessor drives the lease cores of the segments led here.
type Lessor struct {
	cfg    lease.Config
	host   *host.Host
	engine *consensus.Engine
	stamps Stamps
	ending func()

	mu    sync.Mutex
	queue []func(now time.Time) // bounded by what is applied and by renewals' streams
	wake  chan struct{}

	// Owned by Run.
	cores map[anchormesh.SegmentID]*lease.Core
	waits map[uint64]*renewal
	token uint64
}

// renewal is one batch of keep-alives that waits for its answers.
type renewal struct {
	ttls []int64
	left int
	err  error
	done chan struct{}
	at   map[uint64]int // token -> place in ttls
}

// Stamps puts commands with a revision into the log of a segment that is led here;
// stamps.Lines is one.
type Stamps interface {
	Propose(d *anchormesh.Descriptor, command []byte, done func(consensus.Result))
}

// New returns a lessor; Run starts it. ending is told when a lease of several segments
// begins to end.
func New(cfg lease.Config, h *host.Host, e *consensus.Engine, s Stamps, ending func()) *Lessor {
	return &Lessor{
		cfg: cfg, host: h, engine: e, stamps: s, ending: ending, wake: make(chan struct{}, 1),
		cores: make(map[anchormesh.SegmentID]*lease.Core), waits: make(map[uint64]*renewal),
	}
}

// Follow tells the lessor of a segment's applied lease commands; for
// keyspace.Space.OnLeases.
func (l *Lessor) Follow(segment anchormesh.SegmentID) func([]lease.Event) {
	return func(events []lease.Event) {
		if st, ok := l.engine.Status(segment); !ok || !st.Leads() {
			return // a lead event brings the whole table later
		}
		kept := append([]lease.Event(nil), events...)
		l.do(func(now time.Time) {
			for _, ev := range kept {
				l.step(now, segment, ev)
			}
		})
	}
}

// StatusChanged tells the lessor of leaderships. A new leader's table is read
// only after an entry of its own term is applied here, which a read round
// proves.
func (l *Lessor) StatusChanged(segment anchormesh.SegmentID, s consensus.Status) {
	if !s.Leads() {
		l.do(func(now time.Time) {
			if l.cores[segment] != nil {
				l.step(now, segment, lease.Demote{})
				delete(l.cores, segment)
			}
		})
		return
	}
	l.engine.ReadIndex(segment, func(_ uint64, err error) {
		if err == nil {
			l.do(func(now time.Time) { l.lead(now, segment, s.Term) })
		}
	})
}

// lead begins to count. What is applied between the snapshot of the table and
// the end of this function comes again as an event, which the core takes as
// said once.
func (l *Lessor) lead(now time.Time, segment anchormesh.SegmentID, term uint64) {
	st, ok := l.engine.Status(segment)
	r, here := l.host.Get(segment)
	if !ok || !here || !st.Leads() || st.Term != term || len(r.Machine.Descriptor().Range.Start) > 0 {
		return
	}
	if l.cores[segment] == nil {
		l.cores[segment] = lease.New(l.cfg)
	}
	l.step(now, segment, lease.Lead{Term: term, Leases: r.Machine.Space().Leases()})
}

func (l *Lessor) do(f func(time.Time)) {
	l.mu.Lock()
	l.queue = append(l.queue, f)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Run works until ctx ends.
func (l *Lessor) Run(ctx context.Context) error {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		case <-timer.C:
			now := time.Now()
			for segment := range l.cores { // the order shows nowhere: cores are strangers
				l.step(now, segment, lease.Tick{})
			}
			if len(l.cores) > 0 {
				timer.Reset(tick)
			}
		}
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		idle := len(l.cores) == 0
		for _, f := range queue {
			f(time.Now())
		}
		if idle && len(l.cores) > 0 {
			timer.Reset(tick)
		}
	}
}

func (l *Lessor) step(now time.Time, segment anchormesh.SegmentID, ev lease.Event) {
	core := l.cores[segment]
	if core == nil {
		return
	}
	fx := core.Step(now, ev)
	for _, a := range fx.Answers {
		l.answer(a)
	}
	for _, e := range fx.Expire {
		l.expire(segment, codec.AppendLeaseExpiry(nil, e))
	}
	for _, list := range [][]codec.LeaseCheckpoint{fx.Clear, fx.Checkpoint} {
		if len(list) == 0 {
			continue
		}
		var body []byte
		for _, c := range list {
			body = codec.AppendLeaseCheckpoint(body, c)
		}
		l.propose(segment, keyspace.OpLeaseCheckpoint, body)
	}
}

// propose does not wait: what comes of it is seen when it is applied, and the
// core asks again if nothing does.
// expire ends a lease whose time is up: at once in a scope that was never split, else
// as a mark that the ender goes on from.
func (l *Lessor) expire(segment anchormesh.SegmentID, expiry []byte) {
	r, here := l.host.Get(segment)
	if !here || r.Machine.State().Line == 0 {
		l.propose(segment, keyspace.OpLeaseExpire, expiry)
		return
	}
	l.stamps.Propose(r.Machine.Descriptor(), keyspace.AppendCommand(nil, keyspace.OpLeaseEnding, expiry),
		func(consensus.Result) { l.ending() })
}

func (l *Lessor) propose(segment anchormesh.SegmentID, op keyspace.Op, body []byte) {
	r, here := l.host.Get(segment)
	if !here {
		return
	}
	gen := r.Machine.Descriptor().Generation
	l.engine.Propose(segment, gen, keyspace.AppendCommand(nil, op, body), func(consensus.Result) {})
}

// renew hands a batch of keep-alives to the core of a segment that this node
// was just proved to lead.
func (l *Lessor) renew(segment anchormesh.SegmentID, ids []int64) *renewal {
	b := &renewal{ttls: make([]int64, len(ids)), left: len(ids), done: make(chan struct{}), at: make(map[uint64]int, len(ids))}
	l.do(func(now time.Time) {
		if l.cores[segment] == nil {
			b.err = errNotCounting
			close(b.done)
			return
		}
		ev := lease.Renew{Renewals: make([]lease.Renewal, len(ids))}
		for i, id := range ids {
			l.token++
			b.at[l.token] = i
			l.waits[l.token] = b
			ev.Renewals[i] = lease.Renewal{ID: id, Token: l.token}
		}
		l.step(now, segment, ev)
	})
	return b
}

func (l *Lessor) answer(a lease.Answer) {
	b := l.waits[a.Token]
	if b == nil {
		return
	}
	delete(l.waits, a.Token)
	switch a.Verdict {
	case lease.Renewed:
		b.ttls[b.at[a.Token]] = a.TTL
	case lease.NotFound:
		b.ttls[b.at[a.Token]] = 0
	case lease.NotLeader:
		b.err = errNotCounting
	case lease.Overloaded:
		b.err = consensus.ErrOverloaded
	}
	if b.left--; b.left == 0 {
		close(b.done)
	}
}

// Remaining returns how long a lease has left, as the leader counts it; false
// if it does not count this lease.
func (l *Lessor) Remaining(ctx context.Context, segment anchormesh.SegmentID, id int64) (left time.Duration, ok bool) {
	done := make(chan struct{})
	l.do(func(now time.Time) {
		if core := l.cores[segment]; core != nil {
			left, ok = core.Remaining(now, id)
		}
		close(done)
	})
	select {
	case <-done:
		return left, ok
	case <-ctx.Done():
		return 0, false
	}
}
