// Package leases is node/leases with its waits turned into events: it drives the
// real lease cores of the segments that are led on a node.
package leases
