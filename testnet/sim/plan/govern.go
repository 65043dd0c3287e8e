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
	Strong bool          // some policies want approvals of every write; not where segments are split
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
