// Package peers keeps gRPC connections of the client protocol to other nodes,
// for what is too long or too large for a mesh call: watch streams and large
// answers. A connection is made at its first use and kept.
package peers
