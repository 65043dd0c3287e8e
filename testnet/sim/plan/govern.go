package plan

import (
	"math/rand/v2"
	"time"
)

// Governance is what operators ask of the scopes, and how voters take it.
type Governance struct {
	Every  time.Duration // mean time between what operators do; 0: nothing
	Scopes bool          // scopes are made and given back, too
	Refuse float64       // chance of a voter to be against
	Strong bool          // some policies want approvals of every write
	Light  bool          // some policies make their scopes light; not where groups have a single anchor
}

// swarmGovernance draws from a source of its own, as swarmSplits does. Scopes come and go
// only where segments may be cut.
func swarmGovernance(c *Config) {
	rng := rand.New(rand.NewPCG(c.Seed, 0x901e))
	if rng.IntN(2) == 0 {
		return
	}
	c.Governance = Governance{
		Every: Pick(rng, 3*time.Second, 10*time.Second, 40*time.Second), Scopes: c.Mesh.SplitsMax > 0 && rng.IntN(3) > 0,
		Refuse: Pick(rng, 0, 0.1, 0.4),
	}
	c.Governance.Strong = c.Mesh.SplitsMax == 0 && rng.IntN(3) > 0
}

// swarmClasses draws light classes, deaths of processes alone, and approvals where
// segments are split from a source of its own.
func swarmClasses(c *Config) {
	rng := rand.New(rand.NewPCG(c.Seed, 0x11647))
	c.Faults.Kill = Pick(rng, 0, 10*time.Second, time.Minute)
	if c.Governance.Every > 0 && c.Mesh.SplitsMax > 0 {
		c.Governance.Strong = rng.IntN(3) == 0
	}
	c.Governance.Light = c.Governance.Every > 0 && c.Mesh.Want >= 3 && rng.IntN(3) > 0
}
