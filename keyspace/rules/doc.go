// Package rules judges the writes of a scope: what its policy says about who may
// write, which keys and values, and what may become of a key that exists.
//
//	create_only    a put finds no key
//	append_only    a put's value begins with the old one; nothing is deleted
//	ttl_required   a put names a lease
//	key_bytes_max, value_bytes_max
//	writers        the user or the peer is in the list
//	signed         the write carries its peer's signature, which the caller verified
//	rules          expressions in CEL that must be true
//
// # What an expression sees
//
//	key       string        the key's bytes, UTF-8 or not
//	old, new  bytes or null the value before and after; null: there is no key
//	lease     int           the lease that the key hangs on behind a put; 0: none
//	revision  int           at which the key was last written; 0: there is no key
//	size      int           bytes of new; 0 for a deletion
//	deleted   bool          the write deletes the key
//	user      string        the authenticated user; "": none
//	peer      string        the libp2p peer ID of the client, or of the signer; "": unknown
//
// Nothing else: no clock, no other keys, no revision of the write itself, which its
// approvers cannot know yet. Of CEL's standard functions those are refused whose
// outcome may differ between machines or releases: floats, maps (they have no order),
// timestamps and durations, messages, and patterns that are no literals.
//
// # Guarantees
//
//   - Deterministic: Judge is a function of its argument and of what was compiled. An
//     expression that fails (string() of what is no UTF-8, an index that is too large) or that takes
//     more than CostMax steps refuses the write, on every replica alike. What counts as
//     a step is the CEL library's to say: its version belongs to the log's format.
//   - Compile refuses what cannot be decided later: unknown names, expressions that are no
//     bool, too many or too long ones. It says which rule, line and column.
//   - A Judge is not changed by judging: any number of goroutines may share one.
//
// # What this package does not do
//
// It reads no keys and verifies no signatures: package keyspace does, in apply. Which
// writes are judged, and which are the system's own, is said there.
package rules
