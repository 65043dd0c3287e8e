// Package anchors is the organ that decides who should hold a segment.
//
// It suggests, and the segment's log decides: nothing in this organ changes a
// group, it only says which change the leader should propose next.
//
//	anchors/lineage  records why a segment is what it is, and what proves it
//	anchors/recruit  keeps one segment's anchor group alive and of the right size,
//	                 and carries out its moves
//	anchors/place    decides which healthy replicas should be elsewhere, who should
//	                 lead, and whether two neighbours may merge
package anchors
