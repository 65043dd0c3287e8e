package node

import (
	"strings"
	"testing"

	"github.com/anchormesh/anchormesh/consensus/replica"
	"github.com/anchormesh/anchormesh/consensus/wal"
	"github.com/anchormesh/anchormesh/node/config"
)

// TestTheLargestRequestFitsTheLog: no configuration lets clients ask for what would stop every
// anchor, or would never be taken: an entry that no file of the log holds with what is put
// around it, or more than may wait for an entry.
func TestTheLargestRequestFitsTheLog(t *testing.T) {
	for what, room := range map[string]int{
		"a log file": int(wal.DefaultOptions().FileBytes),
		"what waits": replica.DefaultConfig().MaxQueuedBytes,
	} {
		c := config.Default()
		c.Limits.RequestBytes = uint(room/2 + 1)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--max-request-bytes") {
			t.Errorf("requests of more than half of %s are allowed: %v", what, err)
		}
	}
}
