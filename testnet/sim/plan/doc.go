// Package plan holds what a run of the simulator is made from: its configuration,
// how a seed draws one (Swarm), and the faults that can be planted into it.
//
// The same Config gives the same run. New options draw from sources of their own, so
// that an old seed's other options stay what they were.
package plan
