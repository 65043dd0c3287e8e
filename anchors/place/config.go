package place

import (
	"fmt"
	"time"
)

// Config is the same for every segment of a node.
type Config struct {
	// Settle is how long a node must have been alive to be given anything.
	Settle time.Duration
	// Stale is the age from which on a node's summary counts for nothing.
	Stale time.Duration
	// Stay is how long a segment is left alone after a change of its leader, range
	// or anchors.
	Stay time.Duration
	// Epoch is how often lots are drawn; longer than a summary takes to get around.
	Epoch time.Duration
	// MovesMax is how many replica moves of led segments may be under way.
	MovesMax int
	// TransfersMax is how many leaderships are handed over per epoch.
	TransfersMax int
	// Gap is, in thousandths of an even share or of the mean load, by how much two
	// nodes must differ for anything to move between them.
	Gap uint64
	// IdleLoad is what leading a segment without load counts.
	IdleLoad uint64
	// GiveUp is how long a move may take; then its segment rests for as long.
	GiveUp time.Duration
	// DeclinedFor is how long a node that declined is not asked by this node.
	DeclinedFor time.Duration
}

// DefaultConfig fits summaries that are up to half an epoch late.
func DefaultConfig() Config {
	return Config{
		Settle:       30 * time.Second,
		Stale:        90 * time.Second,
		Stay:         time.Minute,
		Epoch:        30 * time.Second,
		MovesMax:     2,
		TransfersMax: 4,
		Gap:          150,
		IdleLoad:     10,
		GiveUp:       10 * time.Minute,
		DeclinedFor:  time.Minute,
	}
}

// Validate reports the first field that makes no sense.
func (c Config) Validate() error {
	for _, f := range []struct {
		name string
		wait time.Duration
	}{
		{"Stale", c.Stale}, {"Stay", c.Stay}, {"Epoch", c.Epoch}, {"GiveUp", c.GiveUp}, {"DeclinedFor", c.DeclinedFor},
	} {
		if f.wait <= 0 {
			return fmt.Errorf("place: %s is %v, want more than 0", f.name, f.wait)
		}
	}
	switch {
	case c.Settle < 0:
		return fmt.Errorf("place: Settle is %v, want 0 or more", c.Settle)
	case c.MovesMax < 1 || c.TransfersMax < 1:
		return fmt.Errorf("place: MovesMax %d and TransfersMax %d must be at least 1", c.MovesMax, c.TransfersMax)
	case c.Gap < 50:
		return fmt.Errorf("place: Gap is %d, want at least 50: below it nothing comes to rest", c.Gap)
	case c.IdleLoad == 0:
		return fmt.Errorf("place: IdleLoad is 0: leaderships without load would never be spread")
	}
	return nil
}
