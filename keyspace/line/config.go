package line

import (
	"fmt"
	"time"

	"github.com/anchormesh/anchormesh"
)

// Config bounds the cores.
type Config struct {
	// Window is how many numbers an extension of W leaves for use. The next one is
	// asked for when less than half of them are left, so half must last for one
	// write of the home's log: 32768 in 10 ms are 3 million a second. What is left
	// of it is skipped when the home's leader changes.
	Window anchormesh.Revision
	// Patience is how long a barrier waits for a write whose stamp an earlier
	// barrier threw away: one election timeout.
	Patience time.Duration
	// Retry is how long a Collector waits for an answer before it asks anew.
	Retry time.Duration
	// RequestsMax is how many requests wait at the home; one more is answered
	// ErrOverloaded.
	RequestsMax int
	// CountMax is how many numbers one ask gets at most; a Holder asks for no
	// more, and a home that is asked for more answers ErrOverloaded.
	CountMax int
	// AsksMax is how many segments a Collector puts into one request; the others
	// go with the next.
	AsksMax int
	// WritesMax is how many writes of one segment wait for a stamp or are on their
	// way into its log with one; one more is ErrOverloaded.
	WritesMax int
	// BarriersMax is how many barriers wait in one segment; one more is answered
	// ErrOverloaded.
	BarriersMax int
	// SpotsMax is how many segments the home remembers the last stamp of.
	SpotsMax int
	// RangesMax is how many ranges a Spread names before it says "all".
	RangesMax int
}

// DefaultConfig returns limits for ten thousand segments.
func DefaultConfig() Config {
	return Config{
		Window:      1 << 16,
		Patience:    time.Second,
		Retry:       500 * time.Millisecond,
		RequestsMax: 1 << 14,
		CountMax:    1 << 14,
		AsksMax:     1 << 12,
		WritesMax:   1 << 16,
		BarriersMax: 1 << 14,
		SpotsMax:    1 << 14,
		RangesMax:   1 << 10,
	}
}

// Validate says which field is out of range.
func (c Config) Validate() error {
	for _, f := range []struct {
		name  string
		value int
	}{
		{"RequestsMax", c.RequestsMax}, {"CountMax", c.CountMax}, {"AsksMax", c.AsksMax}, {"WritesMax", c.WritesMax},
		{"BarriersMax", c.BarriersMax}, {"SpotsMax", c.SpotsMax}, {"RangesMax", c.RangesMax},
	} {
		if f.value < 1 {
			return fmt.Errorf("line: %s is %d, want at least 1", f.name, f.value)
		}
	}
	switch {
	case c.Window < 2:
		return fmt.Errorf("line: Window is %d, want at least 2", c.Window)
	case c.Patience <= 0:
		return fmt.Errorf("line: Patience is %v, want more than 0", c.Patience)
	case c.Retry <= 0:
		return fmt.Errorf("line: Retry is %v, want more than 0", c.Retry)
	}
	return nil
}
