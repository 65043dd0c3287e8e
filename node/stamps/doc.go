// Package stamps is the shell around the revision line of a scope that was split
// (package keyspace/line): it carries numbers, questions and barriers between the
// nodes, and stamped writes into the segments' logs.
//
//	write   Propose  waits for its stamp, goes into the log with it
//	read    Now      the line's largest number, after a round at its home
//	        Barrier  nothing at or below it appears in a segment any more
//
// One goroutine per node runs the cores of all scopes; it does no I/O but the
// sending of requests, each from a goroutine of its own. Inputs gather in a mailbox
// that it empties whole, so that many writes become one request to the home and
// few entries.
//
// # Guarantees
//
//   - Propose and Barrier end exactly once, as package line says: with the outcome,
//     with an error that took effect nowhere, or unknown.
//   - Reads share: one question to the home is under way at a time, and serves all
//     that had come before it; equal barriers of one node are one.
//
// # Limits
//
// Those of line.Config. A request to another node waits Config.CallTimeout.
//
// # What travels (mesh call Method)
//
// Request: a byte that says what, then uvarints; see codec.go. A refusal's text
// says why; all refusals mean that nothing took effect.
package stamps
