package traffic

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/anchormesh/anchormesh/testnet/check"
)

const (
	// surgeKeys are written in a surge, all alike, so that a split divides it.
	surgeKeys = 48
	// surgeMax bounds the writes of a surge that wait for their answers.
	surgeMax = 32
)

// runSurges writes many keys at a high rate for the first part of each epoch, and none
// of them afterwards: a hot spot that comes, goes, and comes back elsewhere. What is
// split under it is dormant soon.
func (w *worker) runSurges(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, surgeMax)
	tick := time.NewTicker(time.Duration(float64(time.Second) / w.cfg.Surge))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if w.rec.now()%w.cfg.Epoch > w.cfg.Epoch*3/5 {
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			continue
		}
		r := check.Request{Kind: check.Put, Key: w.group("surge") + strconv.Itoa(w.rng.IntN(surgeKeys)), Value: w.value()}
		wg.Go(func() {
			w.ask(ctx, "surge", r)
			<-slots
		})
	}
}
