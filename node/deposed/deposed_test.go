package deposed

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/anchormesh/anchormesh"
)

// A request that was forwarded to a leader which then fell silent ends soon after the
// replica here follows another one, long before the connection is given up. Where none is
// known, the old one leads on, or another was heard of for a moment only, it waits.
func TestARequestToADeposedLeaderEnds(t *testing.T) {
	for name, c := range map[string]struct {
		leader func(after time.Duration) anchormesh.NodeID
		ends   bool
	}{
		"another is elected": {func(after time.Duration) anchormesh.NodeID {
			if after > time.Second {
				return "new"
			}
			return "old"
		}, true},
		"none is known": {func(time.Duration) anchormesh.NodeID { return "" }, false},
		"it leads":      {func(time.Duration) anchormesh.NodeID { return "old" }, false},
		"it leads again": {func(after time.Duration) anchormesh.NodeID {
			if after > time.Second && after < 1200*time.Millisecond {
				return "new"
			}
			return "old"
		}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			outer, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			ctx, stop := While(outer, "old", func() anchormesh.NodeID { return c.leader(time.Since(begun)) })
			defer stop()
			<-ctx.Done()
			err := Error(ctx, ctx.Err())
			if took := time.Since(begun); c.ends != (took < 1500*time.Millisecond) || c.ends != errors.Is(err, Err) {
				t.Errorf("%s: it ended after %v with %v", name, took, err)
			}
			if err := Error(ctx, nil); err != nil {
				t.Errorf("%s: an answer that came was thrown away: %v", name, err)
			}
		})
	}
}
