// Package scope is the commands that govern scopes: anchormesh scope and anchormesh
// trust.
//
// They are clients of the gRPC service anchormesh.v1.Scopes and know nothing that it
// does not say. A policy document is checked here first, so that what is wrong in it
// is told with its file and line before any node is asked. A change is a proposal; the
// command waits until it is in force everywhere, and says how far it is if that takes
// too long: it goes on without the command.
package scope
