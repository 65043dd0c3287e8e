package config

import (
	"fmt"
	"strconv"
	"time"
)

// Modes of automatic compaction, as in etcd.
const (
	Periodic   = "periodic"
	ByRevision = "revision"
)

// Compaction says how much history is kept.
type Compaction struct {
	Mode string
	// Retention is etcd's text: if periodic, a duration, or a plain number of
	// hours; if by revision, a number of revisions. "0" keeps everything.
	Retention string
}

// Parse returns what is kept: a period or a number of revisions, the other being
// zero; both zero keeps everything.
func (c Compaction) Parse() (period time.Duration, revisions int64, err error) {
	n, errNumber := strconv.ParseInt(c.Retention, 10, 64)
	switch c.Mode {
	case Periodic:
		period = time.Duration(n) * time.Hour
		if errNumber == nil && (n > maxHours || n < -maxHours) {
			return 0, 0, fmt.Errorf("--auto-compaction-retention: %d hours are too many", n)
		}
		if errNumber != nil {
			if period, err = time.ParseDuration(c.Retention); err != nil {
				return 0, 0, fmt.Errorf("--auto-compaction-retention: %q is neither a duration (5m) nor a number of hours", c.Retention)
			}
		}
	case ByRevision:
		if revisions = n; errNumber != nil {
			return 0, 0, fmt.Errorf("--auto-compaction-retention: %q is not a number of revisions", c.Retention)
		}
	default:
		return 0, 0, fmt.Errorf("--auto-compaction-mode: %q is neither %q nor %q", c.Mode, Periodic, ByRevision)
	}
	if period < 0 || revisions < 0 {
		return 0, 0, fmt.Errorf("--auto-compaction-retention: %s is negative", c.Retention)
	}
	return period, revisions, nil
}

// maxHours keeps hours within a time.Duration.
const maxHours = int64(1<<63-1) / int64(time.Hour)
