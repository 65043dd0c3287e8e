// Package mirror fills the target from a real etcd with etcd's own tool,
// "etcdctl make-mirror", while nodes of the target are killed and come back, and
// compares every key. It is the path by which a user would move.
//
// The package holds tests only; see package target for what is tried.
package mirror
