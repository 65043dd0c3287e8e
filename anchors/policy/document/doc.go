// Package document is the written form of a policy: YAML, of which JSON is a part.
//
//	preset: critical        # what the rest changes; standard if it is not named
//	anchors: {count: 3, zones: 3}
//	acks: {count: 3}
//	writes:
//	  value_bytes_max: 64KiB
//	  rules:
//	    - {name: small, expr: size(new) < 1024}
//	retention: {seconds: 10m}
//
// The fields are those of policy.Policy by their yaml tags. Numbers of bytes may
// have a unit (KiB, MiB, GiB, TiB), seconds may be written as Go writes durations. What is named
// replaces what the preset says, lists and acks as a whole, other sections field by
// field.
//
// Guarantees: Read is strict. Unknown fields, fields that stand twice, values of the wrong kind,
// aliases and a second document are refused with the line and the field; so is
// what policy.Validate refuses. Format writes what Read reads back as the same policy.
package document
