package simkit

import (
	"math/rand/v2"
	"time"
)

// DiskConfig says how a disk behaves.
type DiskConfig struct {
	// SyncMin is what a write with its sync takes at least; SyncMean what it takes
	// above that on average.
	SyncMin, SyncMean time.Duration
	// Slow is the chance that a write falls into a slow spell and takes SlowBy
	// longer.
	Slow   float64
	SlowBy time.Duration
}

// Disk draws how long writes take.
type Disk struct {
	rng *rand.Rand
	cfg DiskConfig
}

// NewDisk returns a disk that draws from rng.
func NewDisk(rng *rand.Rand, cfg DiskConfig) *Disk { return &Disk{rng, cfg} }

// Sync draws how long a write with its sync takes.
func (d *Disk) Sync() time.Duration {
	t := d.cfg.SyncMin + time.Duration(d.rng.ExpFloat64()*float64(d.cfg.SyncMean))
	if d.rng.Float64() < d.cfg.Slow {
		t += time.Duration(d.rng.Float64() * float64(d.cfg.SlowBy))
	}
	return t
}

// Heal ends slow spells.
func (d *Disk) Heal() { d.cfg.Slow = 0 }

// epoch is when simulations begin for those who ask a machine's clock.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Clock is what one machine believes the time to be.
type Clock struct {
	offset time.Duration
	drift  float64 // seconds gained per second
}

// NewClock returns a clock that is off by offset and gains drift seconds each
// second.
func NewClock(offset time.Duration, drift float64) *Clock { return &Clock{offset, drift} }

// Read returns the machine's time when the true time is now.
func (c *Clock) Read(now time.Duration) time.Time {
	return epoch.Add(now + c.offset + time.Duration(c.drift*float64(now)))
}

// Jump sets the clock forward, or back.
func (c *Clock) Jump(by time.Duration) { c.offset += by }
