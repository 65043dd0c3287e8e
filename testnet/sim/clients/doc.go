// Package clients is the load: clients that read, write and keep leases, and
// watchers that read one watch after the other at a pace of their own. Everything
// that they see is told to the witness.
package clients
