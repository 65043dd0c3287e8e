// Package etcdapi is the etcd v3 gRPC API of a node: check, route, translate
// errors, encode. It decides nothing about data; what it knows of the node it
// asks through the small interfaces of backend.go.
//
// # How a request passes
//
//	client bytes ──> codec ──> check ──> Requests.Do ──> answer bytes ──> client
//	                 (kept)    (as etcd)  (routes, runs)  (not decoded)
//
// The hot methods (KV, Lease) never meet a generated message. The codec keeps
// the request's bytes in a buffer of their own with one byte to spare in front,
// so that the command of the log (operation, request) is made without a copy.
// The answer comes back encoded, header included, as [codec.Chunks], and goes
// to gRPC in pieces that are referenced, not copied. All other methods use
// protobuf as usual.
//
// # Guarantees
//
//   - Requests are refused with etcd's codes and texts; error texts are API,
//     because clientv3 tells errors apart by text. Table: errors.go, pinned by
//     testdata/errors.
//   - A request whose outcome is unknown is answered with one of the "request
//     timed out" texts, which clientv3 never retries for writes.
//   - A watch stream is sent in the order in which its [WatchStream] hands
//     responses out; a slow client blocks only its own stream.
//   - Keep-alives of one stream are answered in order; all that arrived while
//     the last batch was checked are one batch.
//   - A panic in a handler stops the process: nothing here recovers.
//
// # What a bytes slice may be
//
// gRPC sends after a handler has returned. Everything in a [codec.Chunks] or a
// [watch.Response] handed to this package must therefore stay as it is for ever
// (heap memory nobody changes); a slice of a memory-mapped file is not allowed.
//
// # What it does not do
//
// Users and roles, member changes by hand, snapshots, downgrades and the
// server-side lock and election services are answered with Unimplemented and a
// sentence that says what to do instead. TLS belongs to the listener that is
// given to Serve.
package etcdapi
