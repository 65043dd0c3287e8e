package leases

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/consensus"
	"github.com/anchormesh/anchormesh/keyspace"
	"github.com/anchormesh/anchormesh/keyspace/codec"
	"github.com/anchormesh/anchormesh/node/host"
)

const (
	// endingAtOnce bounds the leases that end at the same time.
	endingAtOnce = 32
	// endingTick is how often leases are looked for that somebody began to end.
	endingTick = time.Second
	// endingTimeout bounds one attempt; the next tick makes another.
	endingTimeout = 30 * time.Second
)

// Commander puts commands into the log of the segment that holds a key, wherever its
// leader is, until the outcome is known: harmless to repeat.
type Commander interface {
	// Command returns the range of the segment, the command's index and its response.
	Command(ctx context.Context, key []byte, command []byte, stamp bool) (in anchormesh.KeyRange, index uint64, response []byte, err error)
	// LeaseKeys returns the keys that hang on a lease in the segment that holds key.
	LeaseKeys(ctx context.Context, key []byte, id int64) (in anchormesh.KeyRange, keys [][]byte, err error)
}

// Ender ends leases whose keys may lie in several segments: it marks a lease as
// ending at its home, deletes its keys in every range that was registered for it,
// whoever holds it now, and removes it when all have confirmed. Each segment's
// deletions have one revision. Whoever leads the home goes on with what another
// leader began.
type Ender struct {
	host     *host.Host
	engine   *consensus.Engine
	commands Commander
	slots    chan struct{}
	wake     chan struct{}

	mu      sync.Mutex
	running map[int64]chan struct{} // closed when the attempt is over
	wait    sync.WaitGroup
}

// NewEnder returns an ender that Run starts.
func NewEnder(h *host.Host, e *consensus.Engine, c Commander) *Ender {
	return &Ender{
		host: h, engine: e, commands: c, slots: make(chan struct{}, endingAtOnce), wake: make(chan struct{}, 1),
		running: make(map[int64]chan struct{}),
	}
}

// Run goes on with leases that are ending, until ctx ends.
func (x *Ender) Run(ctx context.Context) error {
	defer x.wait.Wait()
	ticker := time.NewTicker(endingTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		case <-x.wake:
		}
		for _, segment := range x.host.Homes() {
			r, ok := x.host.Get(segment)
			if !ok || len(r.Machine.Descriptor().Range.Start) > 0 || r.Machine.State().Line == 0 {
				continue
			}
			if st, ok := x.engine.Status(segment); !ok || !st.Leads() {
				continue
			}
			for _, id := range r.Machine.Space().EndingLeases() {
				x.start(ctx, r, id)
			}
		}
	}
}

// Wake makes Run look at once.
func (x *Ender) Wake() {
	select {
	case x.wake <- struct{}{}:
	default:
	}
}

// start ends a lease that is marked, unless that is under way.
func (x *Ender) start(ctx context.Context, r *host.Replica, id int64) <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	if done := x.running[id]; done != nil {
		return done
	}
	done := make(chan struct{})
	x.running[id] = done
	x.wait.Go(func() {
		defer func() {
			x.mu.Lock()
			delete(x.running, id)
			x.mu.Unlock()
			close(done)
		}()
		select {
		case x.slots <- struct{}{}:
			defer func() { <-x.slots }()
		case <-ctx.Done():
			return
		}
		bounded, cancel := context.WithTimeout(ctx, endingTimeout)
		defer cancel()
		_ = x.finish(bounded, r, id) // what did not succeed, the next tick finds again
	})
	return done
}

// End ends a lease at its home, which this node leads, and waits until its keys are
// gone everywhere. The errors are those of keyspace and of the context; then the
// lease may be ending.
func (x *Ender) End(ctx context.Context, r *host.Replica, id int64) error {
	command := keyspace.AppendCommand(nil, keyspace.OpLeaseEnding, codec.AppendLeaseExpiry(nil, codec.LeaseExpiry{ID: id}))
	if _, _, _, err := x.commands.Command(ctx, nil, command, true); err != nil {
		return err
	}
	for {
		if _, there := r.Machine.Space().LeaseSpread(id); !there {
			return nil
		}
		select {
		case <-x.start(context.WithoutCancel(ctx), r, id):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finish deletes the lease's keys in all its ranges and then removes it.
func (x *Ender) finish(ctx context.Context, r *host.Replica, id int64) error {
	for {
		spread, there := r.Machine.Space().LeaseSpread(id)
		if !there {
			return nil
		}
		if err := x.tell(ctx, spread, keyspace.OpLeaseEnd, spread.Mark, true); err != nil {
			return err
		}
		_, _, response, err := x.commands.Command(ctx, nil, markCommand(keyspace.OpLeaseFinish, spread.Mark), false)
		if errors.Is(err, keyspace.ErrLeaseSpread) {
			continue // a range was registered meanwhile
		}
		if err != nil {
			return err
		}
		var gone codec.LeaseMark
		if err := codec.ParseLeaseMark(response, &gone); err != nil {
			return err
		}
		return x.tell(ctx, spread, keyspace.OpLeaseForget, gone, false)
	}
}

// tell gives every segment in the lease's ranges a command.
func (x *Ender) tell(ctx context.Context, spread keyspace.LeaseSpread, op keyspace.Op, mark codec.LeaseMark, stamp bool) error {
	for _, rng := range spread.Ranges {
		mark.Start, mark.End = rng.Start, rng.End
		for key := rng.Start; ; {
			in, _, _, err := x.commands.Command(ctx, key, markCommand(op, mark), stamp)
			if err != nil {
				return err
			}
			if key = in.End; len(key) == 0 || !rng.Contains(key) {
				break
			}
		}
	}
	return nil
}

func markCommand(op keyspace.Op, m codec.LeaseMark) []byte {
	return keyspace.AppendCommand(nil, op, codec.AppendLeaseMark(nil, m))
}

// Open makes the segments of a range take puts that name a lease. The error is
// keyspace.ErrLeaseNotFound if there is no such lease, or it is ending.
func (x *Ender) Open(ctx context.Context, id int64, in anchormesh.KeyRange) error {
	for {
		err := x.open(ctx, id, in)
		if !errors.Is(err, keyspace.ErrLeaseStale) || ctx.Err() != nil {
			return err
		}
	}
}

// open fails with ErrLeaseStale if another lease was forgotten in the segment since
// the registration; then it is to be registered again.
func (x *Ender) open(ctx context.Context, id int64, in anchormesh.KeyRange) error {
	register := codec.LeaseMark{ID: id, Start: in.Start, End: in.End}
	_, _, mark, err := x.commands.Command(ctx, nil, markCommand(keyspace.OpLeaseRegister, register), false)
	if err != nil {
		return err
	}
	command := keyspace.AppendCommand(nil, keyspace.OpLeaseOpen, mark)
	for key := in.Start; ; {
		got, _, _, err := x.commands.Command(ctx, key, command, false)
		if err != nil {
			return err
		}
		if key = got.End; len(key) == 0 || !in.Contains(key) {
			return nil
		}
	}
}

// Keys returns the keys that hang on a lease in other segments than its home.
func (x *Ender) Keys(ctx context.Context, r *host.Replica, id int64) (keys [][]byte, err error) {
	spread, _ := r.Machine.Space().LeaseSpread(id)
	for _, rng := range spread.Ranges {
		for key := rng.Start; ; {
			in, some, err := x.commands.LeaseKeys(ctx, key, id)
			if err != nil {
				return nil, err
			}
			keys = append(keys, some...)
			if key = in.End; len(key) == 0 || !rng.Contains(key) {
				break
			}
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal), nil
}
