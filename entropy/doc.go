// Package entropy says how busy a segment is, where in its range the load falls,
// and what should be done about it. It is a pure core beside the segment's leader:
// once per window Decide takes what was measured and returns a Decision with the
// numbers it rests on.
//
// # What is measured
//
// Rates of writes, reads and bytes, commit latency and queue depth are integers
// and decay exponentially with Config.Memory. Pressure is the largest of their
// ratios to the Thresholds, in thousandths. Load is the same without latency and
// queue: what a split can divide.
//
// The Sketch holds sampled keys with decayed counts, at most SketchKeys of them;
// when it is full, the lightest neighbours become one cell of the range. Spread
// is the Shannon entropy (Shannon 1948) of its cells, normalised so that
// EvenKeys equally busy keys or more are 1000: one hot key is 0, two are 250,
// four are 500. The hot key is the busiest single key's share; the edge is the
// share of new keys that fall into one gap between the keys known before.
//
//	keys   a   b   c       d   e f   g            hot key: c, 40 %
//	       |   |   ####    |   | |   ##           spread: 590
//	                  ^ half of the load          split near here, at a '/'
//
// Fill is the larger of size and key count to their thresholds, in thousandths. It
// does not decay, and where the load falls says nothing about it: the window's
// Marks say where a segment that keeps too much may be cut (Decision.Seek asks for
// them, because to find them costs a walk).
//
// # What is decided
//
//	pressure high for SplitAfter, spread high          split, at the load's median
//	pressure high for SplitAfter, one key, an edge,    cool: move leadership, and
//	  few keys, or only latency or queue                 say why
//	the same for twice as long and above Shed          shed, until well below it
//	fill high                                          split, at the middle kept
//	no operation for SleepAfter                        sleep
//	pressure at most Low for MergeAfter, fill at most  merge, if a neighbour says
//	  half                                               the same and the sums fit
//	otherwise, or too young, degraded, changing; or    none
//	  by load, where no other node could lead a part
//
// Against oscillation: what is low is judged by the maximum over the whole time,
// and Config.Low is at most 250, so two merged neighbours are at most at half of
// the split threshold; a segment is left alone for MinAge after each change; every
// reversal (a split after a merge, a merge after a split) doubles the wait before
// the next merge, up to 64-fold, and MinAge before the next split, up to 8-fold,
// for load that is there must be carried soon; four such waits without a change
// forget one reversal. Evidence carries the number of reversals into the lineage,
// so that neither a new leader nor a child forgets it. Latency counts as pressure:
// nothing is merged while it is high.
//
// # Evidence
//
// Evidence is a decision's numbers in one canonical encoding of integers, for the
// split's or merge's entry. Nobody who applies the entry recomputes them.
//
// # Not here
//
// Carrying anything out; other segments (whether two may merge is decided in
// anchors/place); gossip. Spread is computed with floating point, on the leader
// only, and rounded to thousandths before anything sees it. What a Judge has
// measured is lost with leadership: a new leader measures MinAge anew.
package entropy
