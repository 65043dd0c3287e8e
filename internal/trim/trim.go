package trim

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	interval = time.Minute
	// pause is so many intervals between two collections: at rest they are what a node
	// with thousands of segments spends most on.
	pause = 5
	// quiet is what part of what lives may be allocated in an interval of rest, or quietMin:
	// the loops of a node with thousands of idle segments allocate half a megabyte per second.
	quiet    = 2
	quietMin = 64 << 20
	// waste is what part of what lives must be gained, at least wasteMin.
	waste    = 5
	wasteMin = 8 << 20
)

// usage is what the runtime counts, in bytes.
type usage struct {
	allocated uint64 // since the start
	live      uint64 // at the last collection
	held      uint64 // objects, dead ones included, and room for more, not given back
}

// due reports whether a process that stood at before an interval ago should give
// memory back. It held floor when it last had: of what was between that and what lives,
// holes between objects, it could not.
func due(before, now usage, floor uint64) bool {
	gain := now.held - min(now.held, max(now.live, floor))
	return now.allocated-before.allocated < max(quietMin, now.live/quiet) && gain > max(wasteMin, now.live/waste)
}

var names = []string{
	"/gc/heap/allocs:bytes", "/gc/heap/live:bytes",
	"/memory/classes/heap/objects:bytes", "/memory/classes/heap/unused:bytes", "/memory/classes/heap/free:bytes",
}

func read() usage {
	samples := make([]metrics.Sample, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	metrics.Read(samples)
	n := func(i int) uint64 { return samples[i].Value.Uint64() }
	return usage{allocated: n(0), live: n(1), held: n(2) + n(3) + n(4)}
}

// Run gives memory back until ctx ends.
func Run(ctx context.Context) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	floor, wait := uint64(0), 0
	for before := read(); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := read()
		if wait--; wait < 0 && due(before, now, floor) {
			debug.FreeOSMemory()
			now = read()
			floor, wait = now.held, pause-1
		}
		before = now
	}
}
