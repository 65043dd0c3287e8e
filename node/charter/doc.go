// Package charter serves anchormesh.v1.Scopes: what operators see of governed scopes,
// and how they ask for changes. The service's own description is in scopes.proto.
//
// It decides nothing. Changes go to package governor, which takes them to the home that
// decides; what is shown comes from there, from the routes, and, per segment, from a
// node that has a replica. Every error has a code and says one thing.
//
// A dry run reads policies and counts what lies in the prefix, on all nodes at once: each
// counts what it leads and whom it tells of changes. A node that does not answer within
// the time is named, not waited for.
//
// What it does not do: it is no authority on whether a change will be admitted. A dry run
// judges as the voters would, now; they judge again.
package charter
