package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/anchormesh/anchormesh/mesh/view"
)

// join is the goroutine that reaches out: while alone, to every join address;
// later, now and then, to one of them and to one dead member. memberlist by
// itself never speaks to a dead member again, so a partition that lasted longer
// than its memory would not heal.
func (g *Gossip) join() {
	pause := g.cfg.Pace.JoinMin
	for {
		wait := g.cfg.Pace.Rejoin
		if g.ml.NumMembers() <= 1 && len(g.cfg.Join) > 0 {
			again := pause > g.cfg.Pace.JoinMin // nodes that are started together miss each other once
			for _, addr := range g.cfg.Join {
				g.reach(addr, again)
			}
			if g.ml.NumMembers() <= 1 {
				wait = pause
				pause = min(2*pause, g.cfg.Pace.JoinMax)
			}
		} else {
			pause = g.cfg.Pace.JoinMin
			g.rejoin()
		}
		select {
		case <-g.ctx.Done():
			return
		case <-time.After(wait - rand.N(wait/8+1)):
		}
	}
}

func (g *Gossip) rejoin() {
	if n := len(g.cfg.Join); n > 0 {
		g.reach(g.cfg.Join[rand.N(n)], true)
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
