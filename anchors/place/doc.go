// Package place decides which healthy replicas should be elsewhere, and who should
// lead. It runs on every node, for the segments that this node leads and for
// nothing else: there is no placement driver. Package recruit keeps each group
// alive and carries out a replica's move; this package only wishes.
//
//	members, summaries (gossip) --+
//	led segments, their loads ----+--> Step(now) --> Transfer: hand leadership over
//	operators' orders ------------+              --> Replace: a voter's place to
//	                                                 another node (recruit.Move)
//
// # What is wished, most urgent first
//
//	order    an operator's move, or one that aligns two segments before a merge
//	drain    off a node that leaves the mesh; it hands over its leaderships first
//	zone     to a zone that the group lacks
//	split    a new child whose nodes are all busier than others: off the busiest
//	load     the same for an older segment
//	room     from nodes with more than their even share to nodes with less, so that
//	         a new node fills up
//
// and, besides replicas, leadership from nodes that lead more load than the mean to
// voters' nodes that lead less. An even share follows a node's capacity, which is
// what it holds plus the room it reports.
//
// # Rules
//
//   - Nothing here happens to a group that is not whole: a voter dead, silent or
//     behind, a joint configuration, another change under way (Segment.Degraded,
//     which recruit computes, and Segment.Busy).
//   - One change at a time per segment, Config.MovesMax replica moves under way and
//     Config.TransfersMax transfers per epoch for a node. After any change a segment
//     is left alone for Config.Stay; a new child is not.
//   - No move for any reason worsens a group's spread over zones, except off a node
//     that leaves and by order.
//   - A move for balance must cross the mean from above to below, and leave the
//     giver no lower than the taker was meant to be: Config.Gap between both, and two
//     replicas. So a move is never undone by its reason.
//
// # Many leaders at once
//
// All leaders see the same, late summaries. Three things keep them from acting on
// them all at once. A lottery: a segment's replica may leave a crowded node only if
// the hash of segment, node and epoch falls below the share of the node's replicas
// that is half its surplus, so that about half of what is too much leaves per
// epoch, whoever leads it; leadership is drawn likewise. Rendezvous: of the nodes
// that lack, the weighted hash picks one, each in proportion to its lack. And the
// taker's word: it knows its own count exactly, declines what is above its share
// (Even) and takes few at a time (recruit.Accept, recruit.Promises).
//
// # Merges
//
// Pair says whether two neighbours may merge now, and if their anchors differ, which
// moves would align them. Backoff spaces the attempts.
//
// # Not here
//
// Repair and growth (recruit); whether a segment is split or dormant (entropy);
// trust; carrying anything out. Nodes count as equally fast: capacity is room for
// replicas, not processors. A Planner's memory, the moves under way, is lost with
// leadership; a successor finds their learners and finishes those that still make
// sense, recruit drops the others.
package place
