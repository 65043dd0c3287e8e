package consensus

import (
	"sync"
	"time"
)

// gate holds back the answers of applied entries until as many voters have them on disk
// as the group's scope asks for. Apply and reads go on meanwhile.
type gate struct {
	mu    sync.Mutex
	on    bool
	acked uint64
	held  []heldAnswers // ascending
	told  func(took time.Duration, ok bool)
}

// heldAnswers are those of one entry.
type heldAnswers struct {
	index uint64
	since time.Time
	timer *time.Timer
	tell  func(error)
}

// set begins or ends to hold answers back. Those that are held are told when it ends: what
// is asked for when somebody is answered counts, and nobody says any more what is reached.
func (g *gate) set(on bool) {
	g.mu.Lock()
	var free []heldAnswers
	if g.on, g.acked = on, 0; !on {
		free, g.held = g.held, nil
	}
	g.mu.Unlock()
	for _, h := range free {
		h.timer.Stop()
		g.end(h, nil)
	}
}

// hold keeps the answers of an entry, to be told later. It reports false if they may be
// told at once.
func (g *gate) hold(index uint64, limit time.Duration, tell func(error)) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.on || index <= g.acked {
		return false
	}
	h := heldAnswers{index: index, since: time.Now(), tell: tell}
	h.timer = time.AfterFunc(limit, func() { g.expire(index) })
	g.held = append(g.held, h)
	return true
}

// reach tells the answers of entries that have enough acknowledgements.
func (g *gate) reach(acked uint64) {
	g.mu.Lock()
	g.acked = acked
	n := 0
	for n < len(g.held) && g.held[n].index <= acked {
		n++
	}
	ready := g.held[:n:n]
	g.held = g.held[n:]
	g.mu.Unlock()
	for _, h := range ready {
		h.timer.Stop()
		g.end(h, nil)
	}
}

func (g *gate) end(h heldAnswers, err error) {
	h.tell(err)
	if g.told != nil {
		g.told(time.Since(h.since), err == nil)
	}
}

// expire ends the wait of an entry, whose outcome is unknown then: it is applied, but
// not as safe as was asked for.
func (g *gate) expire(index uint64) {
	g.mu.Lock()
	for i, h := range g.held {
		if h.index == index {
			g.held = append(g.held[:i:i], g.held[i+1:]...)
			g.mu.Unlock()
			g.end(h, ErrUnknown)
			return
		}
	}
	g.mu.Unlock()
}

// lose ends all waits: this node leads no more, and nobody else knows who waits here.
func (g *gate) lose() {
	g.mu.Lock()
	held := g.held
	g.held, g.acked = nil, 0
	g.mu.Unlock()
	for _, h := range held {
		h.timer.Stop()
		g.end(h, ErrUnknown)
	}
}
