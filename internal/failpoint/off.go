//go:build !failpoints

package failpoint

// Enabled tells whether this build obeys ANCHORMESH_FAILPOINTS.
const Enabled = false

// Hit marks a step; it does nothing in this build.
func Hit(string) {}
