// Package admin answers what `anchormesh nodes`, `segments`, `status`, `lineage` and
// `verify` ask, and takes what operators order to where it is carried out: `split`, `move` and
// `transfer` to the segment's leader, `drain` to the node. It is the gRPC service
// anchormesh.v1.Mesh, served beside etcd's API on the same addresses.
//
// It renders snapshots and decides nothing. An order that cannot be carried out is
// refused with the reason, before anything is changed.
package admin
