package weave

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// move does one random thing.
func (w *world) move() {
	w.step++
	c := w.clients[w.rng.IntN(len(w.clients))]
	switch n := w.rng.IntN(1000); {
	case n < 130:
		w.write()
	case n < 150:
		w.txn()
	case n < 156 && len(w.table) < 6:
		w.split(w.table[w.rng.IntN(len(w.table))])
	case n < 162:
		w.merge()
	case n < 165:
		w.compact()
	case n < 185 && len(c.all) < 6:
		c.create()
	case n < 187:
		if len(c.all) > 0 {
			s := c.all[w.rng.IntN(len(c.all))]
			s.cancel = s.cancel || !s.over
			if c.weave.Has(s.id) {
				c.do(Cancel{s.id})
			}
		}
	case n < 200:
		c.request()
	case n < 205:
		w.now = w.now.Add(time.Second)
		c.ticked()
	case n < 210:
		w.fault(c)
	case n < 330:
		if rs := w.replicas(); len(rs) > 0 {
			rs[w.rng.IntN(len(rs))].apply()
		}
	case n < 480:
		if rs := w.replicas(); len(rs) > 0 {
			rs[w.rng.IntN(len(rs))].turn()
		}
	case n < 600:
		w.travel(c)
	case n < 700:
		c.read()
	default:
		w.deliver()
	}
}

func (c *client) request() {
	if len(c.weave.order) > 0 && c.weave.progress.seq == 0 {
		c.asked = c.w.answered
		c.do(Progress{})
	}
}

func (c *client) ticked() {
	if !c.next.IsZero() && !c.next.After(c.w.now) {
		c.do(Tick{})
	}
}

// fault breaks something.
func (w *world) fault(c *client) {
	s := w.table[w.rng.IntN(len(w.table))]
	switch w.rng.IntN(4) {
	case 0:
		if len(c.pipes) > 0 {
			c.pipes[w.rng.IntN(len(c.pipes))].kill(c)
			w.stats["broken pipes"]++
		}
	case 1: // a replica leaves its node in good order and another comes
		if r := s.replicas[w.rng.IntN(replicas)]; r != nil {
			r.hub.Stop(errMoved)
			r.turn()
			r.restart()
			for _, c := range w.clients {
				for _, p := range c.pipes {
					if p.replica == r {
						for p.pull(c) {
						}
						for p.push(c) {
						}
						p.dead = true
					}
				}
				c.pipes = slices.DeleteFunc(c.pipes, func(p *pipe) bool { return p.dead })
			}
			w.stats["moves"]++
		}
	case 2:
		s.leader = !s.leader
	case 3:
		if s.leader {
			return
		}
		for _, c := range w.clients {
			for _, seen := range c.all {
				seen.leader = seen.leader || seen.req.Range.Overlaps(s.keys)
			}
			c.do(Leaderless{s.keys})
		}
	}
}

// travel moves what is on its way to a client, unless it reads too slowly.
func (w *world) travel(c *client) bool {
	if len(c.pipes) == 0 || len(c.out) > c.slow {
		return false
	}
	p := c.pipes[w.rng.IntN(len(c.pipes))]
	if w.rng.IntN(2) == 0 {
		return p.pull(c)
	}
	return p.push(c)
}

// deliver runs one thing that was posted.
func (w *world) deliver() bool {
	if len(w.bag) == 0 {
		return false
	}
	i := w.rng.IntN(len(w.bag))
	f := w.bag[i]
	w.bag[i] = w.bag[len(w.bag)-1]
	w.bag = w.bag[:len(w.bag)-1]
	f()
	return true
}

// rest ends all faults and lets everything come to rest.
func (w *world) rest() {
	w.calm = true
	for _, s := range w.table {
		s.leader = true
	}
	for round := 0; w.broken == nil; round++ {
		w.step++
		if round == 20_000 {
			w.fail("the world never comes to rest: %d under way", len(w.bag))
			return
		}
		busy := false
		for range 1 + w.rng.IntN(8) {
			busy = w.deliver() || busy
		}
		w.applyAll()
		for _, r := range w.replicas() {
			busy = r.turn() || busy
		}
		for _, c := range w.clients {
			for _, p := range slices.Clone(c.pipes) {
				for p.pull(c) {
					busy = true
				}
				for p.push(c) {
					busy = true
				}
			}
			for c.read() {
				busy = true
			}
		}
		if !busy {
			return
		}
	}
}

// finish checks everything at the end, when nothing can be under way any more.
func (w *world) finish() error {
	w.rest()
	for _, c := range w.clients {
		c.request()
	}
	w.rest()
	for _, c := range w.clients {
		for _, s := range c.all {
			if c.last() && s.created && !s.over && s.progress < w.line {
				w.fail("client %d: progress of watch %d at rest came for %d, not %d", c.id, s.id, s.progress, w.line)
			}
		}
		for _, s := range c.all {
			if err := s.check(w); err != nil {
				w.fail("client %d: %w", c.id, err)
			}
		}
		if err := c.weave.leftBehind(c); err != nil {
			w.fail("%w", err)
		}
	}
	return w.broken
}

// last reports whether all watches have reached their start.
func (c *client) last() bool {
	return !slices.ContainsFunc(c.weave.order, func(b *braid) bool { return !b.reached(b.closed) })
}

// leftBehind looks for what a weave keeps though nothing needs it.
func (w *Weave) leftBehind(c *client) error {
	threads, held := 0, 0
	for _, b := range w.order {
		threads += len(b.threads)
		held += b.bytes
		if len(b.held) > 0 {
			return fmt.Errorf("client %d: watch %d holds %d events at rest", c.id, b.req.ID, len(b.held))
		}
		if segments := len(c.w.table); len(b.threads) > segments {
			return fmt.Errorf("client %d: watch %d has %d threads over %d segments", c.id, b.req.ID, len(b.threads), segments)
		}
	}
	if len(w.starting) > 0 {
		return fmt.Errorf("client %d: watch %d was never created", c.id, w.starting[0].req.ID)
	}
	if threads != len(w.threads) || held != w.held || held != 0 || w.home.flying != 0 {
		return fmt.Errorf("client %d: %d of %d threads, %d of %d bytes, %d questions", c.id, threads, len(w.threads), held, w.held, w.home.flying)
	}
	return nil
}

// run is one world of one seed.
func run(seed uint64, p plant, moves int) (w *world, err error) {
	defer func() {
		if r := recover(); r != nil && p != nothing {
			err = fmt.Errorf("%v", r)
		} else if r != nil {
			panic(fmt.Sprintf("seed %d: %v", seed, r))
		}
	}()
	w = newWorld(seed, p)
	for range moves {
		if w.move(); w.broken != nil {
			return w, w.broken
		}
	}
	return w, w.finish()
}

var worlds = flag.Int("worlds", 600, "how many random worlds to try")

// TestGuarantees lets worlds happen and checks what every client saw.
func TestGuarantees(t *testing.T) {
	rounds := *worlds
	if testing.Short() {
		rounds = 100
	}
	base, total := rand.Uint64(), map[string]int{}
	for i := range rounds {
		seed := base + uint64(i)
		w, err := run(seed, nothing, 600)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for k, n := range w.stats {
			total[k] += n
		}
		for _, c := range w.clients {
			for _, s := range c.all {
				total["events"] += len(s.events)
			}
		}
	}
	t.Logf("from seed %d: %v", base, total)
}
