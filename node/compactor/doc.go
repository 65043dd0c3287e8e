// Package compactor decides when history is compacted by itself: etcd's
// --auto-compaction-mode and --auto-compaction-retention.
//
// Periodic keeps the revisions of the last period: the revision is noted in
// steps of a tenth of it (of an hour, if the period is longer) and everything
// below the one noted a period ago is compacted. By revision keeps the newest n
// and looks every five minutes. The segment's leader does it; a new leader
// begins to note anew and keeps a little more for one period.
//
// A scope's policy may say what is kept of its history, by age or by a number of writes: then each
// of its segments is compacted by its own leader, by what it sees itself, at revisions that
// lie between two of its notes. So nothing is asked of other nodes, a segment that sleeps is
// not woken, and a scope's failure is its own. Segments of a scope have floors of their own
// then; a read over several is refused below the highest. A number of writes is kept of
// each segment. Who compacts from outside (a client's Compact, the flags above)
// compacts such scopes, too, unless their policy says own_compaction.
package compactor
