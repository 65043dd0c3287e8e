// Package recruit keeps one segment's anchor group alive: it grows the group to
// the size its policy asks for and replaces voters that died. It runs beside the
// group's leader, as a pure core: Step takes what is known now and says what to
// do next; it holds nothing but its outstanding invitations.
//
//	descriptor, policy ----+                  +--> Invite a node
//	gossip: who is alive --+--> Step(now) ----+--> AddLearner (it accepted)
//	leader: who answers ---+                  +--> Change: promote and remove
//	a wanted Move, if any -+
//
// # A node's way into a group
//
//	candidate --Invite--> invited --accepts--> learner --catches up--> voter
//	                      declines or is silent: asked again after RetryAfter
//
// A learner has caught up when it is in contact and lacks at most
// Config.CatchUpEntries of what is committed.
//
// # Rules
//
//   - A voter is dead if gossip has called it dead (or not known it) for
//     Policy.ReplaceAfter and the leader itself has not heard from it for as long.
//     Neither is enough alone: gossip only suggests, and a leader with one bad
//     link should not expel a healthy voter. A node that flaps is never dead, its
//     clocks start again with every return.
//   - A dead voter leaves in the same joint change in which its replacement, a
//     learner that has caught up, gets its vote. Until then it keeps its seat: a
//     group of 3 with one dead still has a majority, a group of 2 would have no
//     spare.
//   - Voters above the number that the policy asks for go: dead ones first, without
//     replacement, and, so that an odd number stays, one living one with a single dead one;
//     living ones of a group that is well. If those that stay are no majority of all,
//     living ones that go become learners first: see gently.
//   - A Move (balance, zones, drain, an operator's wish; package place chooses it)
//     replaces a healthy voter on the same way: invitation, learner, joint change.
//     It goes on only while every voter is in contact and has caught up, the group
//     has its size, and the voter that leaves is not the leader's own. Given up, it
//     leaves a learner that goes after SurplusAfter.
//   - One change at a time; none while one is under way.
//   - A leader that is not in contact with a majority of the voters does nothing.
//     It could not commit a change anyway, and what it sees is its own isolation.
//   - The voters are an odd number wherever possible. An even group needs a larger
//     majority and survives no more failures than the odd one below it: 2 voters
//     stop when either dies, 1 voter when it dies. So a group grows by two: two
//     learners catch up, then one joint change gives both their votes. A mesh of
//     two nodes therefore stays at 1 voter and 1 learner; the learner has the data
//     (an operator can recover from it by force), but the group's fate hangs on
//     one node and not on two. The third node completes it.
//
// # Who is asked
//
// Candidates are nodes that gossip has called alive for Config.SettleAfter, have
// room and hold no anchor of the segment. Zones with fewer of the group's living
// anchors come first; within a zone, the weighted rendezvous hash (Thaler and
// Ravishankar 1998; weights as in Schindelhauer and Schomaker 2005) of segment
// and node decides, so that segments spread over nodes in proportion to their
// room and a node that comes or goes moves few of them.
//
// # Not here
//
// Choosing moves, trust, splits and merges; the finishing of a joint configuration, which is the engine's; the wire format of
// an invitation.
package recruit
