package fault

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Config says what plan to draw.
type Config struct {
	Seed   uint64
	Count  int           // faults
	Nodes  int           // of the mesh
	Kinds  []Kind        // what can be done here
	Within time.Duration // the faults share this time; what recovery takes comes out of Rest
}

const (
	countMax = 10_000
	forMin   = 500 * time.Millisecond
	lateMin  = 20 * time.Millisecond
	lateMax  = 150 * time.Millisecond
	lossMin  = 2
	lossMax  = 25 // percent
	// shareFor is how much of a fault's share of the time it may last at most; the
	// rest is for recovery and for the time in which all is well.
	shareFor = 0.45
	forMax   = 12 * time.Second
)

// Validate reports the first thing that is wrong.
func (c Config) Validate() error {
	switch {
	case c.Count < 0 || c.Count > countMax:
		return fmt.Errorf("fault: %d faults, can be 0 to %d", c.Count, countMax)
	case c.Nodes < 3:
		return fmt.Errorf("fault: %d nodes, need at least 3", c.Nodes)
	case len(c.Kinds) == 0 && c.Count > 0:
		return errors.New("fault: no kinds of faults")
	case c.Within <= 0:
		return errors.New("fault: no time for the faults")
	}
	return nil
}

// weight is how often a kind comes in a deck. What takes one node is most of what
// happens to real meshes.
var weight = map[Kind]int{Kill: 4, Pause: 3, Restart: 2, Isolate: 2, Cut: 3, OneWay: 2, Delay: 1, Loss: 1, Full: 1, Split: 2, Rolling: 1, KillAll: 1, Power: 2}

// Plan draws a plan. Kinds come from a shuffled deck that holds each at least once,
// dealt anew when it is empty. Half of what can be aimed is aimed at the leader.
func Plan(c Config) ([]Fault, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(c.Seed, 0))
	share := c.Within / time.Duration(max(1, c.Count))
	longest := min(forMax, max(2*forMin, time.Duration(float64(share)*shareFor)))
	var deck []Kind
	var plan []Fault
	for n := 1; n <= c.Count; n++ {
		if len(deck) == 0 {
			deck = newDeck(rng, c.Kinds)
		}
		f := Fault{
			N: n, Kind: deck[0], Whom: Anyone, Node: rng.IntN(c.Nodes), Rest: time.Second,
			Inbound: rng.IntN(2) == 0,
			Late:    lateMin + time.Duration(rng.Int64N(int64(lateMax-lateMin))),
			Percent: lossMin + rng.IntN(lossMax-lossMin+1),
		}
		f.For = forMin + time.Duration(rng.Int64N(int64(longest-forMin)))
		if rng.IntN(2) == 0 && f.Kind != Rolling && f.Kind != KillAll {
			f.Whom = Leader
		}
		plan, deck = append(plan, f), deck[1:]
	}
	return plan, nil
}

func newDeck(rng *rand.Rand, kinds []Kind) []Kind {
	var deck []Kind
	for _, k := range kinds {
		for range max(1, weight[k]) {
			deck = append(deck, k)
		}
	}
	rng.Shuffle(len(deck), func(i, j int) { deck[i], deck[j] = deck[j], deck[i] })
	// The first cards are one of each kind, so that a short run sees all it can.
	seen := make(map[Kind]bool)
	first := 0
	for i, k := range deck {
		if !seen[k] {
			seen[k] = true
			deck[first], deck[i] = deck[i], deck[first]
			first++
		}
	}
	return deck
}
