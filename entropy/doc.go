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
// # What is decided
//
//	pressure high for SplitAfter, spread high          split, at the load's median
//	pressure high for SplitAfter, one key, an edge,    cool: move leadership or
//	  or only latency or queue                           shed, and say why
//	no operation for SleepAfter                        sleep
//	pressure at most a quarter for MergeAfter, after   merge
//	  SleepAfter's sleep or without it
//	otherwise, or too young, or degraded               none
//
// Against oscillation: what is low is judged by the maximum over the whole time,
// and Thresholds.Low is at most 500, so two merged neighbours are below the split
// threshold; a segment is left alone for MinAge after each change; an action that
// reverses the last one doubles that time, up to 64-fold, and a long quiet life
// forgets it. Latency counts as pressure, so nothing is merged while it is high.
//
// # Not here
//
// Carrying anything out; other segments; gossip. The Decision's numbers are
// integers, so they can be written into a log as evidence. Spread is computed
// with floating point, on the leader only; nothing that is applied computes it.
package entropy
