// Package admin answers what `anchormesh nodes`, `segments` and `status` ask:
// the gRPC service anchormesh.v1.Mesh, served beside etcd's API on the same
// addresses. It renders snapshots and decides nothing.
package admin
