package line

import (
	"time"

	"github.com/anchormesh/anchormesh"
	"github.com/anchormesh/anchormesh/internal/invariant"
)

// Collector puts what waits in a node's Holders of one scope into one request to
// the scope's home. One request is under way at a time; the next one may go while
// the writes of the last are being synced. The segment whose leader gives the
// numbers itself, on this node, is asked for apart, and needs no exchange.
//
// A Collector and its Holders are used by one goroutine at a time.
type Collector[W any] struct {
	cfg     Config
	holders map[anchormesh.SegmentID]*Holder[W]
	own     anchormesh.SegmentID // the home, if it is led here; 0 if not
	hungry  fifo[*Holder[W]]     // holders whose writes want to be asked for, first come, first served

	seq     uint64
	open    bool
	until   time.Time // when the request under way is given up
	asks    []Ask
	stirred []*Holder[W]
}

// NewCollector returns one without Holders. The configuration is taken as valid.
func NewCollector[W any](cfg Config) *Collector[W] {
	return &Collector[W]{cfg: cfg, holders: make(map[anchormesh.SegmentID]*Holder[W])}
}

// Add adds the Holder of a segment, which this node leads or may come to lead.
func (c *Collector[W]) Add(segment anchormesh.SegmentID, h *Holder[W]) {
	if c.holders[segment] != nil {
		invariant.Broken("segment %s has two holders", segment)
	}
	c.holders[segment] = h
}

// Remove drops a Holder that leads no longer.
func (c *Collector[W]) Remove(segment anchormesh.SegmentID) { delete(c.holders, segment) }

// Holder returns the Holder of a segment, nil if there is none.
func (c *Collector[W]) Holder(segment anchormesh.SegmentID) *Holder[W] { return c.holders[segment] }

// SetHome says that this node leads the home, the given segment, or (0) does not.
func (c *Collector[W]) SetHome(segment anchormesh.SegmentID) {
	before := c.own
	c.own = segment
	c.feed(before)
}

// Write takes a write for a segment that this node leads. On an error it was not
// taken.
func (c *Collector[W]) Write(segment anchormesh.SegmentID, w W) error {
	h := c.holders[segment]
	if h == nil {
		return ErrNotLeader
	}
	if err := h.write(w); err != nil {
		return err
	}
	c.queue(h)
	return nil
}

// queue remembers a Holder that has something to ask for, once.
func (c *Collector[W]) queue(h *Holder[W]) {
	if h.wants() && !h.queued && h.seat.Segment != c.own {
		h.queued = true
		c.hungry.push(h)
	}
}

func (c *Collector[W]) feed(segment anchormesh.SegmentID) {
	if h := c.holders[segment]; h != nil {
		c.queue(h)
	}
}

// Collect returns the asks of the next request, if one may go and there is
// something to ask for; they are not to be changed. The home's answer, or that there
// is none, comes back under seq; then the next one may go.
func (c *Collector[W]) Collect(now time.Time) (seq uint64, asks []Ask, ok bool) {
	if c.open && !now.Before(c.until) {
		c.Failed(c.seq)
	}
	if c.open {
		return 0, nil, false
	}
	if c.hungry.len() == 0 {
		return 0, nil, false
	}
	c.asks = make([]Ask, 0, min(c.hungry.len(), c.cfg.AsksMax))
	for c.hungry.len() > 0 && len(c.asks) < c.cfg.AsksMax {
		h := c.hungry.pop()
		h.queued = false
		if h.wants() && h.seat.Segment != c.own {
			c.asks = append(c.asks, h.ask())
		}
	}
	if len(c.asks) == 0 {
		return 0, nil, false
	}
	c.seq++
	c.open, c.until = true, now.Add(c.cfg.Retry)
	return c.seq, c.asks, true
}

// Granted puts the home's numbers on the writes they were asked for, and returns
// the Holders to Take from, valid until the next call. An answer that comes after
// its request was given up is ignored.
func (c *Collector[W]) Granted(seq uint64, grants []Grant) []*Holder[W] {
	c.stirred = c.stirred[:0]
	if !c.open || seq != c.seq {
		return c.stirred
	}
	for i := range grants {
		if h := c.holders[grants[i].Segment]; h != nil {
			h.grant(grants[i])
			c.stirred = append(c.stirred, h)
		}
	}
	c.Failed(seq) // whatever was asked for and not granted
	return c.stirred
}

// Failed says that the home refused the request, or that no answer will come. Its
// writes go into the next one.
func (c *Collector[W]) Failed(seq uint64) {
	if !c.open || seq != c.seq {
		return
	}
	c.open = false
	for i := range c.asks {
		if h := c.holders[c.asks[i].Segment]; h != nil {
			h.unask(c.asks[i].Seq)
			c.queue(h)
		}
	}
}

// OwnAsk asks for what waits in the home's own segment, if it is led here. It goes
// to Home.Own.
func (c *Collector[W]) OwnAsk() (Ask, bool) {
	if h := c.holders[c.own]; h != nil && h.wants() {
		return h.ask(), true
	}
	return Ask{}, false
}

// OwnGrant takes what Home.Own answered; the Holder is to Take from. After
// ErrWindow, OwnAsk is called again when the home says so (HomeEffects.Own).
func (c *Collector[W]) OwnGrant(a Ask, g Grant, err error) {
	h := c.holders[a.Segment]
	if h == nil {
		return
	}
	if err == nil {
		h.grant(g)
	}
	h.unask(a.Seq)
	c.queue(h)
}
