// Package scope is what a scope's home keeps of the scope: the versions of its policy
// that were decided, the proposals that are open, and the signed votes on them.
//
// It is pure. A Record is a value of the home's replicated state: what changes it
// returns another one, and every replica that applies the same entries has the same.
//
// # What can be proposed
//
// Amend puts a new version of the scope's policy in the place of the newest one. Create
// makes a scope inside this one, Delete gives this one back to the scope around it, and
// Recover lets a segment begin anew on a surviving anchor. Split, Merge and Move are
// operators' orders to change a segment of the scope, where operators vote. A proposal names the version
// that it was judged against (Base); once another version is decided it is outdated.
//
// # Who decides
//
// The voters of the home's anchor group, each with its weight, under the amend threshold
// of the newest version (more than half without one). Votes count once for each node, and
// only while it votes in the group. A proposal is decided when the approvals reach the
// threshold, refused when they cannot reach it any more, expired when the home's leader
// says so: whichever entry comes first in the log, and nothing after it.
//
//	            ┌─ decided ── Amend: a version        another: Doing,
//	open ── votes ┼─ refused                          until Finish or Abandon
//	            ├─ expired
//	            └─ outdated
//
// One thing is done at a time: while something is being carried out, only policies are
// amended, and while the scope is being deleted not even these. A recovery goes beside
// whatever is being carried out, one at a time: that may wait for the segment which has
// lost its majority, and would then end for nobody. A deletion ends behind it.
//
// # Limits
//
// OpenMax proposals are open, VersionsMax versions, ClosedMax ends of proposals and
// CountsMax counts of votes are kept, each count with all that it takes to count again,
// some 300 bytes for five voters; policies are of at most PolicyBytesMax. A new version,
// end or count pushes the oldest out.
//
// # What it does not do
//
// It does not judge policies, does not know clocks (times are what the proposer said) and
// checks signatures only with the function it is given.
package scope
