// Package meshpb holds AnchorMesh's own wire messages: the descriptor, the
// control calls between nodes, and the gRPC services anchormesh.v1.Mesh, behind
// `anchormesh nodes`, `segments` and the like, and anchormesh.v1.Scopes, behind
// `anchormesh scope` and `trust`.
//
// A Descriptor is also a stored format. Its canonical encoding is protobuf with
// the fields in ascending order, absent when zero, written by AppendDescriptor
// without a protobuf library in between (protobuf promises no canonical form).
// One descriptor has exactly one encoding, so its bytes can be hashed, compared
// and chained:
//
//	1 mesh fixed64 | 2 segment fixed64 | 3 start | 4 end | 5 scope
//	6 generation varint | 7 changed varint
//	8 anchor { 1 node | 2 replica varint | 3 role varint | 4 zone } ...
//	9 next_replica varint | 10 lineage 32 bytes | 11 stamped
//
// Fields 10 and 11 came later: bytes stored without them are still canonical.
//
// Guarantees: DecodeDescriptor accepts nothing but canonical bytes of a valid
// descriptor (see ValidateDescriptor), so decode and encode are inverse to each
// other. All functions are pure. The *.pb.go files are generated: `make proto`.
//
// What it does not do: it does not judge whether a descriptor is proven. One
// that came from outside the segment's log is a hint.
package meshpb
