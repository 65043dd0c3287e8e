// Package keeper decides, without a person, when a light segment begins anew because too
// many of its replicas may have forgotten what they acknowledged.
//
// The keeper of a light scope is the home of the nearest scope around it that is not
// light. A node whose replica may have forgotten something, and whose group does not
// remove it, reports it there: which replica, what is left of its log, and every
// configuration that its state and its log name. A Record is a value of the keeper's
// replicated state: what changes it returns another one, and every replica that applies
// the same entries has the same.
//
//	reports ──> a majority of every configuration named ──> decided ──> chosen ──> begun
//	                                                          │ at once   │ one      │ nothing
//	                                                          in the      node       older is
//	                                                          lineage                heard
//
// # Why nothing that was synced is lost, and nobody goes on beside the new generation
//
// Whoever reports takes no part any more, for good, and reports to one keeper only. A
// change of the configuration, a split, a window is synced by a majority of the
// configuration before it is acknowledged. So one of the reporters, who are a majority of
// that configuration, has it in what is left of its log, and names the next
// configuration; of which the reporters must be a majority, too. So they are one of the
// newest: the group can neither elect nor commit any more. Of logs that hold a majority's
// share the one that ends at the highest term, then index, holds everything that was
// synced, by Raft's own argument; the segment begins anew on a replica that has as much.
// What was acknowledged from memory alone may be missing: that is the loss.
//
// Two decisions about one generation would need a majority each of the same configuration,
// so one replica in both; it reported to one keeper, whose log has one order. What was
// begun, or given up, is remembered as the lowest generation that is heard (Floors).
//
// # Limits
//
// CasesMax segments are waited for at a time; beyond, reports are refused and come again.
// FloorsMax segments are remembered; beyond, no other segment begins anew by itself, and
// operators recover them. A replica that never reports is never counted.
//
// # What it does not do
//
// It asks nobody, and does not know whether a group works: a majority of reporters means
// that it cannot.
package keeper
