package host

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Pace bounds the requests that a replica takes each second. It saves up one second's
// worth. The zero Pace bounds nothing.
type Pace struct {
	rate atomic.Uint64 // requests per second, as a float's bits

	mu    sync.Mutex
	saved float64
	at    time.Time
	shed  atomic.Uint64
}

// Set changes the requests per second; 0 is no bound.
func (p *Pace) Set(perSecond float64) { p.rate.Store(math.Float64bits(perSecond)) }

// PerSecond returns what was Set.
func (p *Pace) PerSecond() float64 { return math.Float64frombits(p.rate.Load()) }

// Shed counts the requests that were refused.
func (p *Pace) Shed() uint64 { return p.shed.Load() }

// Take takes one request, and reports false if there is none left at now.
func (p *Pace) Take(now time.Time) bool {
	rate := p.PerSecond()
	if rate <= 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	most := max(1, rate)
	if p.at.IsZero() {
		p.saved = most
	} else if passed := now.Sub(p.at); passed > 0 {
		p.saved = min(most, p.saved+rate*passed.Seconds())
	}
	if p.at.Before(now) {
		p.at = now
	}
	if p.saved < 1 {
		p.shed.Add(1)
		return false
	}
	p.saved--
	return true
}
