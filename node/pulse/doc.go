// Package pulse takes the load of the segments on this node at intervals and lets
// package entropy judge it. The data path only touches the meters.
//
// Of each segment led here a window says what was written and read, how much the
// segment keeps, how its group stands, and, when the judge asks for them, at which
// keys it may be cut. A split that is decided is handed to Config.Split, with the
// numbers, and a segment that is dormant to Config.Merge, which says how that stands;
// cool, shed and sleep are shown and logged, and nothing acts on them here (package
// anchors/place sees the load and moves leadership by itself). Each change of a
// decision is logged; the last one is kept for display.
//
// Of other replicas here only the rates are kept, of what this node reads from them.
// A group that sleeps is looked at seldom (Config.Asleep), for nothing happens to it.
//
// Limits: reads that other anchors answer from their own replicas are not counted by
// the leader. What a segment keeps, in bytes, is its share of its scope's file by the
// number of its keys: files do not tell segments apart. The time of a write counts from
// its submission at the leader to its apply, waits for stamps and locks included.
package pulse
