// Package upkeep does what scopes with limits need done regularly: the leader of a
// scope's home divides the scope's quota over its segments, and every node sets the pace of
// its replicas.
//
// # Quota
//
// A scope of one segment is held to its quota exactly. Of several, each has a share,
// as an entry of its own log. A cut and an absorb keep shares adding up to the quota
// (package keyspace); what they cannot know, where writes will go, is looked after
// here: every Interval (with many segments more seldom) the home's leader asks all segments what they hold, and where a
// share is far from what the segment holds and its part of what is free, moves it:
// first those that get less, and when these have confirmed, those that get more. So the shares
// never add up to more than the quota, but for a policy that has just
// brought a quota to a scope of several segments (until the first round each has the whole),
// and for two leaders of a home who overlap (until the next round). A segment that does not
// answer leaves all shares as they are. A scope of several segments may so refuse a write as full for up to two
// Intervals while another segment has room.
//
// # Pace
//
// Requests per second are counted where requests run: writes by the segment's leader, reads
// by the replica that answers. A segment has its part of the rate, one over
// the number of segments. So a scope of one segment takes its rate of writes exactly, and
// at most as many reads again on each node that answers some. Lease keep-alives and
// watches are not counted.
package upkeep
