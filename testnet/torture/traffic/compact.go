package traffic

import (
	"context"
	"time"
)

// compactEvery is the time between compactions.
const compactEvery = 10 * time.Second

// runCompactions throws history away that no watch needs any more: what one of them
// lacked could not be told from what it was never sent.
func (w *worker) runCompactions(ctx context.Context, seen func() int64) {
	tick := time.NewTicker(compactEvery)
	defer tick.Stop()
	done := seen()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if rev := seen(); rev > done {
			done = rev
			w.compact(ctx, rev)
		}
	}
}

// compact asks for one compaction. One without an answer is not asked for again: the
// next is of a higher revision.
func (w *worker) compact(ctx context.Context, rev int64) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	_, err := w.client.Compact(ctx, rev)
	w.rec.note("compact", judge(err), err)
}
