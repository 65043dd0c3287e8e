package exchange

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/mesh"
	"github.com/anchormesh/anchormesh/node/route"
)

// Method is the mesh call of this package.
const Method = 2

const (
	// Fanout is how many peers a change is pushed to by each who hears of it.
	Fanout = 3
	// PushDelay is how long a push waits for company.
	PushDelay = 20 * time.Millisecond
	// Pause is between questions to a peer that has more to tell: 64 KiB each, at
	// most 3 MB/s for somebody who knows nothing yet.
	Pause = 20 * time.Millisecond
	// callTimeout bounds one question.
	callTimeout = 2 * time.Second
	// pushesMax bounds the pushes that wait to be taken in; further ones are
	// dropped, and heard of by questions.
	pushesMax = 64
	// askedMax bounds the memory of who was asked out of turn.
	askedMax = 1024
)

// Mesh is what the exchange needs of the mesh.
type Mesh interface {
	Call(ctx context.Context, to anchormesh.NodeID, method uint8, parts ...[]byte) ([]byte, error)
	View() mesh.View
	Self() mesh.Member
}

// Config of the exchange.
type Config struct {
	Interval time.Duration // between questions once something is known
	Hurry    time.Duration // between questions while nothing is known
	Logger   *slog.Logger
	// Learn takes a descriptor that was told, into the table at least.
	Learn func(*anchormesh.Descriptor) error
}

// Exchange asks, answers and tells: the shell of a Core. One goroutine, in Run,
// asks and learns; Serve only reads and queues.
type Exchange struct {
	cfg   Config
	mesh  Mesh
	table *route.Table

	mu    sync.Mutex
	core  *Core
	asked map[anchormesh.NodeID]time.Time // out of turn, rate-limited

	ask    chan anchormesh.NodeID
	pushes chan []byte
	urgent chan struct{}
}

// New returns an exchange over a table.
func New(cfg Config, m Mesh, t *route.Table) *Exchange {
	return &Exchange{
		cfg: cfg, mesh: m, table: t, core: NewCore(rand.Uint64(), t), asked: make(map[anchormesh.NodeID]time.Time),
		ask: make(chan anchormesh.NodeID, 16), pushes: make(chan []byte, pushesMax), urgent: make(chan struct{}, 1),
	}
}

// Run asks and tells until ctx ends.
func (x *Exchange) Run(ctx context.Context) error {
	turn := time.NewTimer(x.interval())
	push := time.NewTimer(time.Hour)
	push.Stop()
	defer turn.Stop()
	defer push.Stop()
	var talking []anchormesh.NodeID // have more to tell, the next one first
	for {
		select {
		case <-ctx.Done():
			return nil
		case node := <-x.ask:
			if !slices.Contains(talking, node) && x.question(ctx, node) {
				talking = append(talking, node)
				turn.Reset(Pause)
			}
		case <-turn.C:
			talking = x.turn(ctx, talking)
			if wait := x.interval(); len(talking) == 0 {
				turn.Reset(wait)
			} else {
				turn.Reset(min(wait, Pause))
			}
		case body := <-x.pushes:
			x.pushed(body)
		case <-x.urgent:
			push.Reset(PushDelay)
		case <-push.C:
			if x.push(ctx) {
				push.Reset(PushDelay)
			}
		}
	}
}

func (x *Exchange) interval() time.Duration {
	if seq, _ := x.table.Position(); seq == 0 {
		return x.cfg.Hurry
	}
	return x.cfg.Interval
}

// turn goes on with a peer that has more to tell, or asks the next one, and
// returns who has more to tell then.
func (x *Exchange) turn(ctx context.Context, talking []anchormesh.NodeID) []anchormesh.NodeID {
	if len(talking) == 0 {
		alive, members := x.others()
		x.mu.Lock()
		x.core.Settle(members)
		next, ok := x.core.Next(alive, rand.IntN)
		x.mu.Unlock()
		if !ok {
			return nil
		}
		talking = append(talking, next)
	}
	node := talking[0]
	talking = talking[1:]
	if x.question(ctx, node) {
		talking = append(talking, node)
	}
	return talking
}

// others returns the other nodes that are alive, and all that may come back.
func (x *Exchange) others() (alive, members []anchormesh.NodeID) {
	self := x.mesh.Self().ID
	for _, m := range x.mesh.View().Members() {
		switch {
		case m.ID == self:
		case m.State == mesh.Alive:
			alive = append(alive, m.ID)
			members = append(members, m.ID)
		case m.State == mesh.Dead:
			members = append(members, m.ID)
		}
	}
	return alive, members
}

// question asks a peer once, and reports whether it has more to tell.
func (x *Exchange) question(ctx context.Context, node anchormesh.NodeID) bool {
	x.mu.Lock()
	body := x.core.Question(node)
	x.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := x.mesh.Call(ctx, node, Method, body)
	if err != nil {
		x.cfg.Logger.Debug("descriptors were not told", "by", node.Short(), "err", err)
		return false
	}
	x.mu.Lock()
	items, again, err := x.core.Take(node, answer)
	x.mu.Unlock()
	if err != nil {
		x.cfg.Logger.Warn("malformed descriptors", "from", node.Short(), "err", err)
	}
	for _, i := range items {
		x.learn(i)
	}
	return again
}

// learn takes an item in, and reports whether it was news.
func (x *Exchange) learn(i Item) bool {
	if i.Descriptor == nil {
		return x.table.Bury(i.Tombstone)
	}
	news := x.table.Lacks(i.version())
	if err := x.cfg.Learn(i.Descriptor); err != nil {
		x.cfg.Logger.Warn("descriptor was not taken", "segment", i.Descriptor.Segment, "err", err)
	}
	return news
}

// pushed learns what a peer pushed, and tells on what was news.
func (x *Exchange) pushed(body []byte) {
	x.mu.Lock()
	items, err := x.core.Pushed(body)
	x.mu.Unlock()
	if err != nil {
		x.cfg.Logger.Warn("malformed push", "err", err)
	}
	for _, i := range items {
		if x.learn(i) {
			x.Announce(i.version().Segment)
		}
	}
}

// push tells a few peers what is urgent, and reports whether there is more.
func (x *Exchange) push(ctx context.Context) bool {
	x.mu.Lock()
	body := x.core.Push()
	more := len(x.core.urgent) > 0
	x.mu.Unlock()
	if body == nil {
		return more
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	alive, _ := x.others()
	rand.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
	var told sync.WaitGroup
	for _, node := range alive[:min(Fanout, len(alive))] {
		told.Go(func() {
			if _, err := x.mesh.Call(ctx, node, Method, body); err != nil {
				x.cfg.Logger.Debug("a change was not told", "to", node.Short(), "err", err)
			}
		})
	}
	told.Wait()
	return more
}

// Announce tells a few peers soon what this node knows of these segments: what
// its logs have just decided, or that they are buried.
func (x *Exchange) Announce(ids ...anchormesh.SegmentID) {
	x.mu.Lock()
	x.core.Announce(ids...)
	x.mu.Unlock()
	select {
	case x.urgent <- struct{}{}:
	default: // it is on its way already
	}
}

// From asks a node soon, at most once per Hurry and node.
func (x *Exchange) From(node anchormesh.NodeID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	if now.Sub(x.asked[node]) < x.cfg.Hurry {
		return
	}
	if len(x.asked) >= askedMax {
		clear(x.asked)
	}
	select {
	case x.ask <- node:
		x.asked[node] = now
	default: // enough questions wait
	}
}

// Serve answers a question or queues a push; it is the mesh's call handler.
func (x *Exchange) Serve(from anchormesh.NodeID, payload []byte, to mesh.Responder) {
	if len(payload) > 0 && payload[0] == kindPush {
		select {
		case x.pushes <- payload:
		default: // its news come by questions
		}
		to.Reply()
		return
	}
	x.mu.Lock()
	answer, err := x.core.Answer(from, payload)
	x.mu.Unlock()
	if err != nil {
		to.Fail(1, err.Error())
		return
	}
	to.Reply(answer)
}
