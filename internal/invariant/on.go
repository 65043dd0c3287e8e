//go:build invariants

package invariant

// Enabled tells whether costly checks run in this build.
const Enabled = true
