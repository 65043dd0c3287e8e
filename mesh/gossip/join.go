package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/anchormesh/anchormesh/mesh/view"
)

// join is the goroutine that reaches out: while alone, to every join address and every
// remembered one; later, now and then, to one of them and to one dead member. memberlist
// by itself never speaks to a dead member again, so a partition that lasted longer than
// its memory would not heal.
func (g *Gossip) join() {
	pause := g.cfg.Pace.JoinMin
	for {
		wait := g.cfg.Pace.Rejoin
		if known := g.known(); g.ml.NumMembers() <= 1 && len(g.cfg.Join)+len(known) > 0 {
			g.reachAll(known, pause > g.cfg.Pace.JoinMin) // nodes that are started together miss each other once
			if g.ml.NumMembers() <= 1 {
				wait = pause
				pause = min(2*pause, g.cfg.Pace.JoinMax)
			}
		} else {
			pause = g.cfg.Pace.JoinMin
			g.rejoin(known)
		}
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(wait - rand.N(wait/8+1)):
		}
	}
}

// known returns the remembered addresses.
func (g *Gossip) known() []string {
	if g.cfg.Known == nil {
		return nil
	}
	return g.cfg.Known()
}

// reachAtOnce bounds the addresses tried at the same time: one that swallows packets
// must not hold up the others.
const reachAtOnce = 16

// reachAll tries all addresses. Join addresses that fail are told one by one if loud is
// set, remembered ones together: it is no mistake if nobody is there any more.
func (g *Gossip) reachAll(known []string, loud bool) {
	var tries errgroup.Group
	tries.SetLimit(reachAtOnce)
	for _, addr := range g.cfg.Join {
		tries.Go(func() error { g.reach(addr, loud); return nil })
	}
	for _, addr := range known {
		tries.Go(func() error { g.reach(addr, false); return nil })
	}
	_ = tries.Wait()
	if loud && len(known) > 0 && g.ml.NumMembers() <= 1 && g.ctx.Err() == nil && g.quiet.Allow("known") {
		g.log.Info("nobody answers yet where other nodes were when this one ran last, trying on", "addresses", known)
	}
}

func (g *Gossip) rejoin(known []string) {
	if n := len(g.cfg.Join); n > 0 {
		g.reach(g.cfg.Join[rand.N(n)], true)
	}
	if n := len(known); n > 0 {
		g.reach(known[rand.N(n)], false)
	}
	var dead []string
	v := g.View()
	g.mu.Lock()
	for _, m := range v.Members() {
		if a, ok := g.addrs[m.ID]; ok && m.State == view.Dead {
			dead = append(dead, a)
		}
	}
	g.mu.Unlock()
	if len(dead) > 0 {
		g.reach(dead[rand.N(len(dead))], true)
	}
}

// reach exchanges tables with whoever is at addr. A failure is told if loud is
// set and nobody else is known.
func (g *Gossip) reach(addr string, loud bool) {
	targets, err := resolveJoin(g.ctx, addr)
	if err == nil {
		_, err = g.ml.Join(targets)
	}
	if err == nil || g.ctx.Err() != nil {
		return
	}
	if loud && g.ml.NumMembers() <= 1 && g.quiet.Allow("join "+addr) {
		g.log.Warn("cannot join yet, trying on", "address", addr, "error", joinError(err))
	}
}

// joinError says what is wrong in one line: memberlist's errors have several.
func joinError(err error) error {
	text := err.Error()
	if strings.Contains(text, "installed keys could decrypt") {
		return errors.New("it has another mesh key")
	}
	lines := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
	last := strings.TrimLeft(lines[len(lines)-1], "\t *")
	return fmt.Errorf("%s", last)
}
