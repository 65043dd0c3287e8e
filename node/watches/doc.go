// Package watches serves etcd's watch streams from the segments' hubs on this
// node, and finds another node where this one holds no anchor.
//
// A stream is bound to the segment that its first watch names.
package watches
