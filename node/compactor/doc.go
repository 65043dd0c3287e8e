// Package compactor decides when history is compacted by itself: etcd's
// --auto-compaction-mode and --auto-compaction-retention.
//
// Periodic keeps the revisions of the last period: the revision is noted in
// steps of a tenth of it (of an hour, if the period is longer) and everything
// below the one noted a period ago is compacted. By revision keeps the newest n
// and looks every five minutes. The segment's leader does it; a new leader
// begins to note anew and keeps a little more for one period.
package compactor
