//go:build !failpoints

package failpoint

import "net"

// Enabled tells whether this build obeys ANCHORMESH_FAILPOINTS.
const Enabled = false

// Hit marks a step; it does nothing in this build.
func Hit(string) {}

// Cut reports whether the process is cut off from others: never in this build.
func Cut() bool { return false }

// Conn is a connection to another node, to be used in place of c: c itself in this build.
func Conn(c net.Conn) net.Conn { return c }
