package sim

import (
	"time"

	"github.com/anchormesh/anchormesh/testnet/sim/plan"
)

// Shrink looks for a smaller configuration of the same seed that still fails: it
// tries to leave out each kind of fault, clients, watchers and groups, and to end
// earlier, and keeps what fails.
func Shrink(f *Failure) *Failure {
	smaller := []func(*plan.Config){
		func(c *plan.Config) { c.Faults.Wipe = 0 }, func(c *plan.Config) { c.Faults.Rot, c.Faults.Move = 0, 0 }, func(c *plan.Config) { c.Faults.Swizzle = 0 }, func(c *plan.Config) { c.Faults.DiskFull = 0 },
		func(c *plan.Config) { c.Faults.Jump = 0 }, func(c *plan.Config) { c.Faults.WrongDeath = 0 }, func(c *plan.Config) { c.Faults.WrongLost = 0 },
		func(c *plan.Config) { c.Faults.Transfer = 0 }, func(c *plan.Config) { c.Faults.Blackout = 0 }, func(c *plan.Config) { c.Faults.Pause = 0 },
		func(c *plan.Config) { c.Faults.Cut = 0 }, func(c *plan.Config) { c.Faults.Partition = 0 }, func(c *plan.Config) { c.Faults.PowerCut = 0 },
		func(c *plan.Config) { c.Faults.Crash = 0 }, func(c *plan.Config) { c.Faults.Kill = 0 }, func(c *plan.Config) { c.Governance.Light = false }, func(c *plan.Config) { c.Link.Loss, c.Link.Duplicate, c.Link.Reorder = 0, 0, 0 },
		func(c *plan.Config) { c.Disk.Slow = 0 }, func(c *plan.Config) { c.Load.Watchers = 0 }, func(c *plan.Config) { c.Load.Grant = 0 },
		func(c *plan.Config) { c.Load.Txn, c.Load.Scan = 0, 0 }, func(c *plan.Config) { c.Load.Compact = 0 },
		func(c *plan.Config) { c.Load.Clients = 1 }, func(c *plan.Config) { c.Mesh.Groups = 1 }, func(c *plan.Config) { c.Mesh.Workers = 1 },
		func(c *plan.Config) { c.Faults.Split, c.Mesh.SplitsMax = 0, 0 }, func(c *plan.Config) { c.Mesh.SplitsMax = min(c.Mesh.SplitsMax, 1) },
		func(c *plan.Config) { c.Mesh.SleepTicks = 0 }, func(c *plan.Config) { c.Governance = plan.Governance{} },
		func(c *plan.Config) { c.Governance.Scopes = false }, func(c *plan.Config) { c.Governance.Refuse = 0 },
		func(c *plan.Config) { c.Length /= 2 }, func(c *plan.Config) { c.Length /= 2 }, func(c *plan.Config) { c.Length = c.Length / 2 },
	}
	if f.At < f.Config.Length {
		smaller = append(smaller, func(c *plan.Config) { c.Length = f.At + time.Millisecond })
	}
	for _, less := range smaller {
		cfg := f.Config
		less(&cfg)
		if cfg == f.Config {
			continue
		}
		if _, err := Run(cfg); err != nil {
			f = err.(*Failure)
		}
	}
	return f
}
