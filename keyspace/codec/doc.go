// Package codec reads and writes etcd's KV, Lease and Alarm messages in
// protobuf wire form, without reflection and nearly without allocations.
//
// # Guarantees
//
// Parsers accept and reject exactly what proto.Unmarshal of
// go.etcd.io/etcd/api/v3 accepts and rejects and see the same values: the last
// of a repeated scalar wins, a repeated submessage is merged, a repeated message
// of one oneof member is merged and of another member replaces, unknown fields
// and known fields of the wrong wire type are skipped. The one exception is
// nesting: a transaction deeper than [TxnDepthMax] is refused with [ErrTooDeep].
// (etcd stops at --max-txn-ops levels, 128 unless configured; protobuf at 10,000
// messages.)
//
// Parsed byte fields alias the input: the caller keeps the buffer alive and
// unchanged for as long as it uses the request. A request struct may be parsed
// into again and again; its slices are reused.
//
// Encoders write what proto.Marshal would write, byte for byte: fields in
// ascending order, zero scalars left out.
//
// # Wire form of the two hot messages
//
//	KeyValue       0A key  10 create  18 mod  20 version  2A value  30 lease
//	RangeResponse  0A header { 12 KeyValue }  18 more  20 count
//
// A [Chunks] is one encoded message in pieces. Small pieces are gathered in
// buffers of their own, large key-values are referenced where they lie, so that
// an answer of many megabytes is never copied into one buffer.
//
// RangeMerge puts the answers of neighbouring ranges together without decoding them
// where the order allows.
//
// # What this package does not do
//
// It does not judge requests (empty keys, conflicting options); package keyspace
// does. It holds no state and starts nothing; everything may be used from any
// goroutine.
package codec
