// Package policy is what a scope's rules say: how many anchors govern it and
// where, what an acknowledged write survives, who has to agree, what may be
// written, how much, and for how long it is kept.
//
// It is pure. A Policy is a value: it is validated and compared here, decided in
// the scope's log, and enforced by those whose business the field is.
//
// Guarantees:
//
//   - Policies that mean the same have one encoding, and Decode accepts nothing
//     else. So a policy's bytes can be hashed, compared and chained.
//   - Validate names every field that is wrong, and why, in the order of the fields.
//   - Weakens is transitive: a scope must bind what the one around it binds, so
//     comparing each with the one directly around it is enough.
//   - Everything has a bound; the encoding of a valid policy is at most BytesMax long.
//
// What it does not do: it compiles no rule (Validate asks whoever does), it knows
// no anchors and no weights that are in force, and it reads no file (see package
// document for the YAML form).
package policy
